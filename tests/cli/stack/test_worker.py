"""Workers of `fleet up` are Celery's own, started without what other commands of Celery need."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from fleet.cli.stack import worker
from tests.engine.conftest import StartWorker, fleet_env, start_worker

__all__ = ["fleet_env", "start_worker"]


def test_nothing_is_loaded_for_other_commands() -> None:
    code = "import sys, fleet.cli.stack.worker; print(*sorted({'flower', 'prompt_toolkit'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
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
