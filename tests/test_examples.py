"""Every file of `examples/` runs as its first lines say, beside one worker that was started in its folder.

The worker of `examples/agents/` is denied every way out of this machine, as frameworks report to their vendors.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.engine.local_simulator import stop_simulator
from fleet.store.private.embedded import stop_redis
from tests.egress import Egress
from tests.house import ROOT
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

EXAMPLES = ROOT / "examples"
AGENTS = EXAMPLES / "agents"
#: Modules of `examples/agents/` that no pool names: what the others use, and what needs an environment of its own.
BESIDE = {"library", "mcp_server", "llamaindex_bot"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the examples with a worker that has taken them up."""
    for worker in with_a_worker(EXAMPLES, tmp_path_factory.mktemp("examples"), {}):
        yield worker.log_path.parent


@pytest.fixture(scope="module")
def egress(tmp_path_factory: pytest.TempPathFactory) -> Egress:
    return Egress(tmp_path_factory.mktemp("egress"))


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, egress: Egress) -> Iterator[WorkerProcess]:
    """A worker in a copy of the agents' folder that has taken them up and must not leave this machine."""
    env = {**egress.environment(ROOT), "OPENAI_API_KEY": "sk-an-operators-own-key"}
    yield from with_a_worker(AGENTS, tmp_path_factory.mktemp("agents"), env)


def with_a_worker(examples: Path, place: Path, env: dict[str, str]) -> Iterator[WorkerProcess]:
    folder = place / "examples"
    shutil.copytree(examples, folder, ignore=shutil.ignore_patterns("__pycache__", ".fleet"))
    home = folder / ".fleet"
    worker = WorkerProcess(folder, env={"FLEET_HOME": str(home), **env})
    try:
        yield worker.wait_ready()
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


def test_of_five_bots_three_that_agree_decide(folder: Path) -> None:
    assert run(folder, "ask_many.py") == "42 ok 100% of 3 agree, 2 not asked\n"


def test_answers_are_graded_by_a_known_answer_and_later(folder: Path) -> None:
    told = run(folder, "grade_answers.py")
    assert told == "['7', '14', '21', '28', '35']\ngraded: see `fleet bots show research-001`\n"


def test_a_persona_is_tried_and_finished(folder: Path) -> None:
    told = run(folder, "rollout.py")
    assert told == "running and no task fails: {'ok'}\n[pools.research]\npersona.archetypes = [\"conservative\"]\n"


def test_who_comes_later_does_not_wait_for_another_customers_queue(folder: Path) -> None:
    told = run(folder, "tenants.py")
    assert told == "zeta: ['7', '8', '9', '10', '11']\nacme's tasks still wait: True\n"
    run(folder, "-m", "fleet.cli.main", "cancel", "--tenant", "acme", "--yes")


def test_the_tool_api_is_asked_by_the_worker(folder: Path) -> None:
    assert run(folder, "tool_api.py") == "7 lamps ok\n"


def test_signed_tasks_are_answered_and_others_are_not_submitted(folder: Path) -> None:
    words = ["keys", "delegate", "simulator", "--to", "me", "--pool", "signed", "-o", "me.delegation"]
    run(folder, "-m", "fleet.cli.main", *words)
    assert run(folder, "signed_tasks.py", "me.delegation") == "NotDelegated\n42 ok\n"


def test_the_job_is_read_as_it_comes_and_may_be_submitted_twice(folder: Path) -> None:
    for _ in range(2):
        assert run(folder, "job.py") == "done 100 of 100 sum 10100\n42\n"


def test_five_accepted_tasks_earn_five_times_their_price(folder: Path) -> None:
    assert run(folder, "payouts.py") == "5 accepted, 0.05 more is due to alice\n"


def test_a_long_document_is_read_in_passages_and_summed_up_once(folder: Path) -> None:
    passages = 6
    for _ in range(2):
        said = run(folder, "map_reduce.py").splitlines()
        found = re.fullmatch(r"(\d+) passages, (\d+) notes, ok after (\d+) calls? by editors-00\d", said[0])
        assert found is not None and found[1] == found[2]
        assert int(found[1]) >= passages and int(found[3]) >= 1 and said[1]


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Path]:
    """A copy of the folder with a schedule, with a worker."""
    for worker in with_a_worker(EXAMPLES / "clock", tmp_path, {}):
        yield worker.log_path.parent


def test_a_schedule_has_its_reports_written_by_the_clock(clock: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FLEET_HOME": str(clock / ".fleet")}
    command = [sys.executable, "-m", "celery", "-A", "fleet", "beat", "--loglevel", "WARNING"]
    beat = subprocess.Popen(command, cwd=clock, env=env)
    try:
        wait_until(lambda: list((clock / "reports").glob("*.txt")), 60, "a report is written")
    finally:
        beat.terminate()
        beat.wait(30)
    report = min((clock / "reports").glob("*.txt"))
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d\.\d\d\.\d0\+00\.00\.txt", report.name)
    assert report.read_text() == "42\n"


def test_the_own_bot_makes_two_calls(folder: Path) -> None:
    assert re.fullmatch(r"42 after 2 calls by careful-00\d\n", run(folder, "own_bot.py"))


def test_the_answer_is_read_while_it_is_made(folder: Path) -> None:
    assert run(folder, "streaming.py") == "42 ok True\n"


def test_the_answers_fit_their_schemas(folder: Path) -> None:
    assert run(folder, "answer_schema.py") == "43\nok ['depth_m', 'name']\n"


def test_the_bot_with_a_tool_comes_to_the_product(folder: Path) -> None:
    assert "42" in run(folder, "tools.py")


def test_equal_tasks_are_asked_once_unless_one_says_otherwise(folder: Path) -> None:
    for calls in (1, 0):
        said = run(folder, "caching.py").splitlines()
        assert said == ["1 answer to three equal tasks", f"{calls} call at most for them", "asked anew: call"]


def test_the_agent_calls_its_tool_and_answers_in_its_form(folder: Path) -> None:
    assert run(folder, "triage.py") == "ok after 3 calls: bool\n"


def test_the_rule_of_scaling_says_how_many_slots_a_load_wants() -> None:
    said = run(EXAMPLES, "scaling.py")
    assert "48 slots, 3 workers: research: 5 tasks/s come, 120 tasks wait; its limits feed 10 a second" in said
    assert "writing: 0.0 slots for 0.0 tasks a second, shut for 30 min: 50,000 tasks behind it" in said


def test_the_limiter_alone_paces_the_calls(redis_url: str) -> None:
    said = run(EXAMPLES, "limiter_alone.py", redis_url)
    seconds = re.fullmatch(r"40 calls in (\d+\.\d) s\n", said)
    assert seconds is not None
    assert 0.8 <= float(seconds[1]) < 10  # ten calls beyond the burst, at ten a second


def ask(worker: WorkerProcess, pool: str) -> dict[str, Any]:
    """Ask as the examples' first lines say."""
    folder = worker.log_path.parent
    command = [sys.executable, "-m", "fleet.cli.main", "submit", "When are tides highest?", "--pool", pool, "--json"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLEET_HOME": str(folder / ".fleet")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("pool", ["researchers", "agents_sdk", "langchain", "pydantic_ai", "mcp"])
def test_an_agent_answers_after_its_tools_and_connects_to_nobody_else(
    agents: WorkerProcess, egress: Egress, pool: str
) -> None:
    result = ask(agents, pool)
    assert (result["status"], result["pool"], result["model"]) == ("ok", pool, "agent-2")
    assert result["attempts"] == 3  # two turns with calls of tools, then the answer
    assert result["usage"]["input_tokens"] > 0 and result["cost_usd_micros"] > 0
    assert egress.tried() == []


def test_a_worker_of_agents_connects_to_nobody_else_when_it_ends(agents: WorkerProcess, egress: Egress) -> None:
    """What a framework has gathered for its vendor is sent in the background, at the latest now."""
    assert ask(agents, "agents_sdk")["status"] == "ok"
    agents.send(signal.SIGTERM)
    assert agents.wait(60) == 0
    assert egress.tried() == []


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text] == []
    pools = tomllib.loads((AGENTS / "fleet.toml").read_text(encoding="utf-8"))["pools"]
    assert [name for name in pools if f'"{name}"' not in text] == []
    named = {pool["function"].partition(":")[0] for pool in pools.values() if "function" in pool}
    named |= {pool["agent"].partition(":")[0] for pool in pools.values() if "agent" in pool}
    assert {path.stem for path in AGENTS.glob("*.py")} == named | BESIDE
