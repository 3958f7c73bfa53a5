"""Every file of `examples/` runs as its first lines say, beside one worker that was started in that folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.engine.local_simulator import stop_simulator
from fleet.store.embedded import stop_redis
from tests.house import ROOT
from tests.worker_process import WorkerProcess

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the examples with a worker that has taken them up."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__", ".fleet"))
    home = folder / ".fleet"
    worker = WorkerProcess(folder, env={"FLEET_HOME": str(home)})
    try:
        worker.wait_ready()
        yield folder
    finally:
        worker.kill()
        stop_redis(home)
        stop_simulator(home)


def run(folder: Path, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", name, *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "FLEET_HOME": str(folder / ".fleet")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_submit_and_wait_prints_all_answers_and_may_run_twice(folder: Path) -> None:
    for _ in range(2):
        assert re.fullmatch(r"42 ok \d+ tokens\n2\n4\n6\n8\n10\n", run(folder, "submit_and_wait.py"))


def test_the_web_handler_answers_without_blocking(folder: Path) -> None:
    assert run(folder, "web_handler.py") == "2 4 6\n1 4 9\n"


def test_the_tool_api_is_asked_by_the_worker(folder: Path) -> None:
    assert run(folder, "tool_api.py") == "7 lamps ok\n"


def test_the_own_bot_makes_two_calls(folder: Path) -> None:
    assert re.fullmatch(r"42 after 2 calls by careful-00\d\n", run(folder, "own_bot.py"))


def test_the_answer_is_read_while_it_is_made(folder: Path) -> None:
    assert run(folder, "streaming.py") == "42 ok True\n"


def test_the_answers_fit_their_schemas(folder: Path) -> None:
    assert run(folder, "answer_schema.py") == "43\nok ['depth_m', 'name']\n"


def test_the_bot_with_a_tool_comes_to_the_product(folder: Path) -> None:
    assert "42" in run(folder, "tools.py")


def test_the_agent_calls_its_tool_and_answers_in_its_form(folder: Path) -> None:
    assert run(folder, "triage.py") == "ok after 3 calls: bool\n"


def test_the_limiter_alone_paces_the_calls(redis_url: str) -> None:
    said = run(EXAMPLES, "limiter_alone.py", redis_url)
    seconds = re.fullmatch(r"40 calls in (\d+\.\d) s\n", said)
    assert seconds is not None
    assert 0.8 <= float(seconds[1]) < 10  # ten calls beyond the burst, at ten a second


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text] == []
