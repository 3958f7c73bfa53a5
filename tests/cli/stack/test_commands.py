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

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.cli.stack.background import stop_stack
from fleet.cli.stack.bystanders import tell
from fleet.cli.stack.foreground import child_specs
from fleet.cli.stack.local_services import LocalServices, service_state
from fleet.cli.stack.processes import ProcessId
from fleet.cli.stack.slot_bounds import SLOT_BOUNDS, SlotBounds
from fleet.cli.stack.stack_file import AlreadyUp, Stack, StackPart, hold_lock, is_up, read_stack, write_stack
from fleet.config import load
from fleet.errors import ConfigurationError
from fleet.store.private.embedded import ensure_redis
from tests.ports import lasting_port
from tests.stack_processes import OPEN, end_all_of, processes_of
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

#: Seconds for a whole stack to start on a busy machine.
SLOW_S = 90.0


@pytest.fixture
def home(fleet_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(*OPEN)
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
    assert "top` shows it" in second.stderr
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
    assert "ending w1 first, which a killed `fleet up` left behind" in third.stderr
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
    assert talk.endswith("fleet: stopped; a private Redis runs on; `fleet down` ends it\n")
    assert service_state(home, "simulator") is None
    assert service_state(home, "redis") is not None


def test_a_killed_supervisors_flower_does_not_hold_its_port_against_the_next_one(home: Path) -> None:
    """Given Flower on a fixed port, when the supervisor is killed, `up` ends the orphans and starts them anew.

    A second `up` beside the running stack says that it is up, and blames no port.
    """
    config = home.parent / "fleet.toml"
    config.write_text(f"[flower]\nport = {lasting_port()}\n")
    begin = ("--config", str(config), "up", "--workers", "1")
    assert (first := fleet(home, *begin, "-d")).returncode == 0, first.stderr
    before, stack = pids(home), read_stack(home)
    assert stack is not None and set(before) == {"w1", "flower"}
    beside = fleet(home, *begin)
    assert beside.returncode == 1
    assert beside.stderr.startswith(f"fleet: already up in {home}, pid {stack.supervisor.pid}; "), beside.stderr
    assert pids(home) == before

    stack.supervisor.signal(signal.SIGKILL)
    wait_until(lambda: not is_up(home), 5, "the supervisor is gone")
    again = fleet(home, *begin, "-d")
    assert again.returncode == 0, again.stderr
    assert "ending w1, flower first" in again.stderr
    assert set(pids(home)) == {"w1", "flower"} and not set(pids(home).values()) & set(before.values())
    assert fleet(home, "down").stderr.splitlines()[-1] == "fleet: stopped w1, flower, redis, simulator"
    assert processes_of(home) == []


def test_going_down_names_a_worker_that_somebody_else_started_and_it_goes_on_when_redis_is_back(
    home: Path, tmp_path: Path
) -> None:
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        assert fleet(home, "submit", "What is 6 * 7?").stdout == "42\n"
        fleet(home, "pools", "pause", "review")
        fleet(home, "submit", "What is 1 + 1?", "--pool", "review", "--no-wait")
        wait_until(lambda: str(worker.pid) in " ".join(bystanders(home)), 20, "the worker has reported")
        down = fleet(home, "down")
        assert down.returncode == 0
        assert f"1 worker not started by `fleet up` runs on: {worker.name} (pid {worker.pid}); without" in down.stderr
        assert "1 task waits in Redis" in down.stderr
        assert service_state(home, "redis") is None and service_state(home, "simulator") is None
        assert worker.alive

        answered = fleet(home, "submit", "What is 6 * 8?")
        assert answered.stdout == "48\n", answered.stderr
        fleet(home, "pools", "resume", "review")
    finally:
        worker.kill()


def bystanders(home: Path) -> list[str]:
    return list(tell(load(), home))


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
    part = StackPart("w1", ProcessId(12, 34.5), "w1@here", "w1.log")
    stack = Stack(
        ProcessId(1, 2.0), (part,), (StackPart("redis", None, "redis://there", ""),), ("simulator",), ready=True
    )
    write_stack(home, stack)
    assert read_stack(home) == stack


def test_leftovers_are_ended_by_pid_and_start_time_only(home: Path, sleeper: subprocess.Popen[bytes]) -> None:
    left = ProcessId.of(sleeper.pid)
    stranger = ProcessId(os.getpid(), 1.0)  # this pid was somebody else's when it was recorded
    children = (StackPart("w1", left, "", ""), StackPart("w2", stranger, "", ""))
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


def test_a_stack_that_scales_shares_its_slots_out_over_its_workers(home: Path) -> None:
    settings = load(worker={"processes": 3}, flower={"port": 0})
    specs = child_specs(settings, home, flower=False, autoscale=SlotBounds(4, 100))
    assert {spec.command[-1] for spec in specs} == {"--autoscale=33,2"}


@given(data=st.data(), processes=st.integers(1, 64))
def test_the_processes_never_have_more_slots_together_than_allowed(data: st.DataObject, processes: int) -> None:
    least = data.draw(st.integers(processes, 500))
    bounds = SlotBounds(least, data.draw(st.integers(least, 1000)))
    bounds.check(processes)
    most, fewest = map(int, bounds.each(processes).split(","))
    assert 1 <= fewest <= most and bounds.most - processes < most * processes <= bounds.most


@pytest.mark.parametrize("bounds", ["9", "9:3", "0:4", "a:b", "1:", "-1:4"])
def test_wrong_bounds_are_refused_with_what_was_expected(bounds: str) -> None:
    with pytest.raises(click.BadParameter, match="expected MIN:MAX, two numbers of slots such as 8:200"):
        SLOT_BOUNDS.convert(bounds, None, None)


def test_bounds_that_the_processes_cannot_keep_are_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"expected 4 <= MIN <= MAX <= 8,000 for worker.processes = 4, got 2:9"
    ):
        SlotBounds(2, 9).check(4)


def test_a_flower_address_that_is_not_ours_is_a_configuration_error(home: Path) -> None:
    settings = load(flower={"address": "192.0.2.1"})
    with pytest.raises(ConfigurationError, match="expected a free port on 192"):
        child_specs(settings, home, flower=True)


#: Commands that need the state folder, each as a person types it.
NEED_HOME = [
    ("fleet.cli.main", "up", "--no-flower"),
    ("fleet.cli.main", "up", "-d"),
    ("fleet.cli.main", "demo"),
    ("fleet.cli.main", "submit", "What is 1 + 1?"),
    ("celery", "-A", "fleet", "worker"),
    ("celery", "-A", "fleet", "flower"),
]


@pytest.mark.parametrize("command", NEED_HOME, ids=lambda command: " ".join(command[1:3]))
@pytest.mark.parametrize("place", ["a file", "no rights"])
def test_a_state_folder_that_cannot_be_used_is_one_line(tmp_path: Path, command: tuple[str, ...], place: str) -> None:
    home = Path("/proc/fleet")  # where not even root may make one
    if place == "a file":
        (home := tmp_path / "home").touch()
    environment = {**os.environ, "FLEET_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=SLOW_S, check=False, env=environment
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fleet: ")]
    assert done.returncode == 2
    assert line.startswith(f"fleet: expected a folder that can be written at {home}") and "FLEET_HOME" in line
    assert "Traceback" not in done.stderr


def test_a_damaged_stack_file_is_named(home: Path) -> None:
    (home / "stack.json").write_text("{")
    done = fleet(home, "down")
    assert done.returncode == 2
    assert done.stderr.startswith(f"fleet: {home / 'stack.json'}: expected what `fleet up` wrote, got JSONDecodeError")


def test_a_full_disk_does_not_end_a_stack_that_runs(home: Path) -> None:
    """Given a stack whose file cannot be replaced any more, when a worker dies, it is started again all the same."""
    up = fleet(home, "up", "-d", "--workers", "1", "--no-flower")
    assert up.returncode == 0, up.stderr
    stack = read_stack(home)
    assert stack is not None
    blocked = home / f"stack.json.{stack.supervisor.pid}.new"
    blocked.mkdir()
    (blocked / "in the way").touch()
    os.kill(pids(home)["w1"], signal.SIGKILL)
    wait_until(partial(said, home, "w1 started again"), 20, "the worker is started again")
    wait_until(partial(said, home, "the stack goes on"), 20, "the trouble is told")
    assert is_up(home)
    shutil.rmtree(blocked)
    assert fleet(home, "down").returncode == 0
