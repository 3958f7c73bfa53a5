"""`fleet up` and `fleet down` from outside, with real workers; the rules of the stack file within."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fleet.cli.stack.background import stop_stack
from fleet.cli.stack.foreground import child_specs
from fleet.cli.stack.local_services import LocalServices, service_state
from fleet.cli.stack.processes import ProcessId
from fleet.cli.stack.stack_file import AlreadyUp, Part, Stack, hold_lock, is_up, read_stack, write_stack
from fleet.config import load
from fleet.errors import ConfigurationError
from fleet.store.embedded import ensure_redis
from tests.stack_processes import end_all_of, processes_of
from tests.waiting import wait_until

#: Seconds for a whole stack to start on a busy machine.
SLOW_S = 90.0


@pytest.fixture
def home(fleet_home: Path) -> Iterator[Path]:
    fleet_home.mkdir()
    yield fleet_home
    end_all_of(fleet_home)


def fleet(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet.cli.main", "--home", str(home), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=SLOW_S, check=False)


def pids(home: Path) -> dict[str, int]:
    stack = read_stack(home)
    return {part.name: part.process.pid for part in stack.children if part.process} if stack else {}


def said(home: Path, words: str) -> bool:
    return words in (home / "logs" / "supervisor.log").read_text()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_stack_comes_up_is_alone_heals_clears_what_a_killed_one_left_and_goes_down(home: Path) -> None:
    up = fleet(home, "up", "-d", "--workers", "1", "--no-flower")
    assert up.returncode == 0, up.stderr
    assert [line.split()[0] for line in up.stdout.splitlines()] == ["NAME", "redis", "simulator", "w1"]
    assert "the simulator answers" in up.stderr

    second = fleet(home, "up", "-d")
    assert second.returncode == 1
    assert "already up" in second.stderr
    assert "down` stops it" in second.stderr

    before = pids(home)["w1"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pids(home).get("w1", before) != before, 20, "the worker is started again")
    assert f"(pid {before}) was killed by SIGKILL" in (home / "logs" / "supervisor.log").read_text()

    for name in ("redis", "simulator"):
        service = service_state(home, name)
        assert service is not None
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)
        wait_until(partial(said, home, f"{name} died and was started again\n"), 20, f"{name} is started again")
        again = service_state(home, name)
        assert again is not None
        assert again.port == service.port

    stack = read_stack(home)
    assert stack is not None
    stack.supervisor.signal(signal.SIGKILL)
    wait_until(lambda: not is_up(home), 5, "the supervisor is gone")
    third = fleet(home, "up", "-d", "--workers", "1", "--no-flower")
    assert third.returncode == 0, third.stderr
    assert "ended w1, left behind" in (home / "logs" / "supervisor.log").read_text()

    down = fleet(home, "down")
    assert down.returncode == 0, down.stderr
    assert down.stderr.splitlines()[-1] == "fleet: stopped w1, redis, simulator"
    assert processes_of(home) == []
    assert read_stack(home) is None


def test_a_stack_whose_state_folder_is_deleted_ends_and_does_not_make_it_anew(home: Path) -> None:
    up = fleet(home, "up", "-d", "--workers", "1", "--no-flower")
    assert up.returncode == 0, up.stderr
    shutil.rmtree(home)
    wait_until(lambda: processes_of(home) == [], SLOW_S, "all its processes have ended")
    assert not home.exists()


def test_ctrl_c_ends_a_stack_in_the_foreground_and_what_it_did_not_start_stays(home: Path) -> None:
    ensure_redis(home, load().redis.server)
    command = [sys.executable, "-m", "fleet.cli.main", "--home", str(home), "up", "--workers", "1"]
    environment = {**os.environ, "FLEET_FLOWER__PORT": "0"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    wait_until(lambda: getattr(read_stack(home), "ready", False) or process.poll() is not None, SLOW_S, "it is up")
    process.send_signal(signal.SIGINT)
    out, talk = process.communicate(timeout=20)
    assert process.returncode == 0, talk
    assert "http://127.0.0.1:" in out
    assert "flower.password" in talk
    assert talk.endswith("fleet: stopped\n")
    assert service_state(home, "simulator") is None
    assert service_state(home, "redis") is not None


def test_a_stack_that_cannot_start_says_why_and_leaves_nothing(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (home.parent / "fleet.toml").write_text(f"[flower]\nport = {port}\n")
        result = fleet(home, "--config", str(home.parent / "fleet.toml"), "up")
    assert result.returncode == 2
    assert f"flower.port: expected a free port on 127.0.0.1, got {port}" in result.stderr
    assert processes_of(home) == []


def test_going_down_with_nothing_up_is_no_error(home: Path) -> None:
    result = fleet(home, "down")
    assert (result.returncode, result.stderr) == (0, f"fleet: nothing runs in {home}\n")


def test_the_lock_refuses_a_second_supervisor_and_names_the_first(home: Path) -> None:
    with hold_lock(home):
        write_stack(home, Stack(ProcessId(4711, 1.0)))
        with pytest.raises(AlreadyUp, match="pid 4711"):
            hold_lock(home)
        assert is_up(home)
    assert not is_up(home)


def test_what_is_written_is_what_is_read(home: Path) -> None:
    part = Part("w1", ProcessId(12, 34.5), "w1@here", "w1.log")
    stack = Stack(ProcessId(1, 2.0), (part,), (Part("redis", None, "redis://there", ""),), ("simulator",), ready=True)
    write_stack(home, stack)
    assert read_stack(home) == stack


def test_leftovers_are_ended_by_pid_and_start_time_only(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    left = ProcessId.of(sleeper.pid)
    stranger = ProcessId(os.getpid(), 1.0)  # this pid was somebody else's when it was recorded
    children = (Part("w1", left, "", ""), Part("w2", stranger, "", ""))
    write_stack(home, Stack(ProcessId(1, 1.0), children))
    stopped = stop_stack(home)
    assert stopped is not None
    assert sleeper.wait(5) == -signal.SIGTERM
    assert read_stack(home) is None


def test_stopping_where_no_stack_was_is_none(home: Path) -> None:
    assert stop_stack(home) is None


def test_services_that_a_killed_stack_owned_are_inherited_and_others_are_not(home: Path) -> None:
    settings = load(pools={"real": {"provider": "acme", "model": "m"}}, providers={"acme": {"kind": "openai"}})
    ensure_redis(home, load().redis.server)
    foreign = LocalServices(settings, home)
    foreign.start()
    foreign.stop()
    assert service_state(home, "redis") is not None
    heir = LocalServices(settings, home)
    heir.start(inherited=("redis",))
    assert heir.owned == ("redis",)
    assert service_state(home, "simulator") is None
    heir.stop()
    assert service_state(home, "redis") is None


def test_a_stack_has_as_many_workers_as_configured(home: Path) -> None:
    settings = load(worker={"processes": 3}, flower={"port": 0})
    assert [spec.name for spec in child_specs(settings, home, flower=True)] == ["w1", "w2", "w3", "flower"]
    assert [spec.name for spec in child_specs(settings, home, flower=False)] == ["w1", "w2", "w3"]


def test_a_flower_address_that_is_not_ours_is_a_configuration_error(home: Path) -> None:
    settings = load(flower={"address": "192.0.2.1"})
    with pytest.raises(ConfigurationError, match="expected a free port on 192"):
        child_specs(settings, home, flower=True)
