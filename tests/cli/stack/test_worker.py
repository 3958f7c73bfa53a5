"""Workers of `fleet up` are Celery's own, started without what other commands of Celery need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.cli.stack import worker
from tests.engine.conftest import StartWorker, fleet_env, start_worker
from tests.worker_process import REPO

__all__ = ["fleet_env", "start_worker"]


#: Prints what a worker has loaded of these, which are for other commands and for the page.
LOADED = """
import sys, fleet, fleet.cli.stack.worker
fleet.app.loader.import_default_modules()
import fleet.engine.process.slot
print(*sorted({"flower", "prompt_toolkit", "rich", "fleet.signals.view", "fleet.dashboard"} & set(sys.modules)))
"""


def test_nothing_is_loaded_for_other_commands_or_the_page(redis_url: str, tmp_path: Path) -> None:
    env = {**os.environ, "FLEET_REDIS__URL": redis_url, "PYTHONPATH": str(REPO)}
    words = [sys.executable, "-c", LOADED]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, env=env, cwd=tmp_path)
    assert done.stdout.split() == []


@pytest.mark.parametrize("words", [["worker"], ["-A", "fleet", "flower"], ["-A", "fleet", "-q", "worker"]])
def test_other_commands_are_celerys(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["worker.py", *words, "--loglevel", "INFO"])
    with pytest.raises(SystemExit, match=r"expected -A APP worker OPTIONS, got .*; use `celery` for other commands"):
        worker.main()


@pytest.mark.parametrize("program", ["fleet.cli.stack.worker", "celery"])
def test_both_programs_run_a_worker_with_the_same_options(start_worker: StartWorker, program: str) -> None:
    started = start_worker("-c", "3", program=program)
    assert "concurrency: 3" in started.log
    assert started.name in started.log
    started.send(signal.SIGTERM)
    assert started.wait() == 0
