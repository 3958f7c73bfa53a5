"""The supervisor with real processes that are cheap to start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from fleet.cli.stack.processes import ProcessId, end_all, wait_gone
from fleet.cli.stack.supervisor import FIRST_PAUSE_S, ChildSpec, Supervisor, tail
from tests.every import every
from tests.ports import is_free
from tests.waiting import wait_until

SLEEPS = "echo started; exec sleep 60"
STUBBORN = "trap '' TERM; echo started; while :; do sleep 0.05; done"


@contextmanager
def supervising(folder: Path, *scripts: str) -> Iterator[tuple[Supervisor, list[str]]]:
    said: list[str] = []
    specs = [
        ChildSpec(f"c{number}", ("/bin/sh", "-c", script), folder / "logs" / f"c{number}.log")
        for number, script in enumerate(scripts, 1)
    ]
    supervisor = Supervisor(specs, said.append)
    try:
        supervisor.start()
        yield supervisor, said
    finally:
        supervisor.stop(grace_s=0.0)


def pids(supervisor: Supervisor) -> list[int]:
    return [part.process.pid for part in supervisor.parts if part.process]


def all_said(folder: Path, names: Sequence[str]) -> bool:
    return all("started" in tail(folder / "logs" / f"{name}.log", 1) for name in names)


def test_output_goes_to_a_log_of_the_childs_name(tmp_path: Path) -> None:
    with supervising(tmp_path, SLEEPS, SLEEPS):
        wait_until(lambda: all_said(tmp_path, ["c1", "c2"]))


def test_a_child_that_dies_is_started_again_after_a_pause(tmp_path: Path) -> None:
    with supervising(tmp_path, SLEEPS) as (supervisor, said):
        (pid,) = pids(supervisor)
        os.kill(pid, signal.SIGKILL)
        wait_until(supervisor.tick)
        died = time.monotonic()
        assert f"c1 (pid {pid}) was killed by SIGKILL; starting it again in 0.5 s" in said[0]
        assert not pids(supervisor)
        wait_until(supervisor.tick)
        assert time.monotonic() - died >= FIRST_PAUSE_S * 0.9
        assert said[1:] == ["c1 started again"]
        assert pids(supervisor) != [pid]


def test_the_pause_doubles_with_every_death_up_to_ten_seconds(tmp_path: Path) -> None:
    with supervising(tmp_path, "exit 3") as (supervisor, _):
        (child,) = supervisor.children
        pauses = []
        now = time.monotonic()
        for _ in range(7):
            wait_until(lambda: not child.running)
            line = child.revive(now)
            assert line is not None and "exited with code 3" in line
            pauses.append(float(line.split(" in ")[1].split(" s")[0]))
            now += 11
            child.revive(now)
        assert pauses == [0.5, 1, 2, 4, 8, 10, 10]


def test_half_a_minute_of_health_resets_the_pause(tmp_path: Path) -> None:
    with supervising(tmp_path, SLEEPS) as (supervisor, _):
        (child,) = supervisor.children
        child.pause_s = 8.0
        child.revive(time.monotonic() + 29)
        assert child.pause_s == 8.0
        child.revive(time.monotonic() + 31)
        assert child.pause_s == FIRST_PAUSE_S


def test_stopping_ends_a_stubborn_child_after_the_grace_and_not_before(tmp_path: Path) -> None:
    with supervising(tmp_path, SLEEPS, STUBBORN) as (supervisor, _):
        wait_until(lambda: all_said(tmp_path, ["c1", "c2"]))
        before = time.monotonic()
        supervisor.stop(grace_s=0.4)
        assert 0.4 <= time.monotonic() - before < 5
        assert every(not child.running for child in supervisor.children)


def test_insisting_ends_the_patience_at_once(tmp_path: Path) -> None:
    with supervising(tmp_path, STUBBORN) as (supervisor, _):
        wait_until(lambda: all_said(tmp_path, ["c1"]))
        before = time.monotonic()
        supervisor.stop(insisted=lambda: True, grace_s=60)
        assert time.monotonic() - before < 5


def test_a_pid_that_belongs_to_somebody_else_by_now_is_left_alone() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        recorded = ProcessId(stranger.pid, ProcessId.of(stranger.pid).started_at - 3600)
        assert not recorded.is_alive()
        end_all([recorded], grace_s=0.1)
        assert stranger.poll() is None
        ProcessId.of(stranger.pid).signal(signal.SIGKILL)


def test_a_process_that_has_ended_is_not_alive_and_a_zombie_neither() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    identity = ProcessId.of(process.pid)
    assert not wait_gone([identity], timeout_s=10)  # a zombie still: nobody has waited for it
    process.wait()
    assert not identity.is_alive()


def test_a_big_log_is_put_aside_when_its_process_starts(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "c1.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(10_000_001)
    with supervising(tmp_path, SLEEPS):
        wait_until(lambda: all_said(tmp_path, ["c1"]))
        assert log.with_name("c1.log.1").stat().st_size == 10_000_001
        assert log.stat().st_size < 100


#: The main thread ends, as it does first when a process with threads is killed; another one, and the port, live on.
HALF_ENDED = """
import ctypes, socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=time.sleep, args=(60,)).start()
print(server.getsockname()[1], flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a process is not shown as a zombie")
def test_a_process_that_has_half_ended_and_holds_its_port_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", HALF_ENDED], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 10, "it has half ended")
            process = ProcessId.of(child.pid)
            assert process.is_alive()
            assert not is_free(port)
            end_all([process], grace_s=10)
            assert not process.is_alive()
            assert is_free(port)
        finally:
            child.kill()
