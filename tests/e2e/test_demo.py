"""`fleet demo` from outside: it shows everything, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.cli.stack.local_services import service_state
from fleet.cli.stack.stack_file import read_stack
from tests.stack_processes import OPEN, end_all_of, processes_of
from tests.waiting import wait_until

#: Seconds for a whole stack to start and work on a busy machine.
SLOW_S = 90.0
#: Seconds in which Ctrl-C must have stopped everything.
STOPPED_S = 20.0


@pytest.fixture
def home(fleet_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(*OPEN)
    yield fleet_home
    end_all_of(fleet_home)


@contextmanager
def demo(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "fleet.cli.main", "--home", str(home), "demo", *options]
    environment = {**os.environ, "COLUMNS": "120"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_serving(home: Path) -> bool:
    stack = read_stack(home / "demo")
    return stack is not None and stack.ready


def simulator_runs(home: Path) -> bool:
    return service_state(home / "demo", "simulator") is not None


def test_the_demo_answers_every_task_shows_the_three_signals_and_leaves_nothing_running(home: Path) -> None:
    picture = home.parent / "demo.svg"
    with demo(home, "--tasks", "60", "--svg", str(picture)) as process:
        out, talk = process.communicate(timeout=SLOW_S)
    assert process.returncode == 0, talk
    assert "60 of 60 done" in talk
    for words in ("Answers", "done      60", "Completions", "Errors", "Resources", "API limits", "the simulator"):
        assert words in out
    assert "by the simulator: 60 of 60" in out
    assert "Flower http://127.0.0.1:" in picture.read_text(encoding="utf-8").replace("&#160;", " ")
    assert processes_of(home) == []
    assert read_stack(home / "demo") is None


def test_ctrl_c_in_the_middle_of_the_run_stops_everything(home: Path) -> None:
    with demo(home, "--tasks", "3000") as process:
        wait_until(lambda: is_serving(home) or process.poll() is not None, SLOW_S, "the demo works")
        assert len(processes_of(home)) >= 6
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=STOPPED_S)
    assert process.returncode == 130, talk
    assert "fleet: interrupted" in talk
    assert "Traceback" not in talk
    assert processes_of(home) == []


def test_ctrl_c_while_the_stack_starts_stops_everything(home: Path) -> None:
    with demo(home) as process:
        wait_until(lambda: simulator_runs(home) or process.poll() is not None, SLOW_S, "the simulator starts")
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=STOPPED_S)
    assert process.returncode == 130, talk
    assert "Traceback" not in talk
    assert processes_of(home) == []
