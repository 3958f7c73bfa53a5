"""The watchdog: who is judged to hang, and who is not; a stopped worker of a real stack is replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import config
from fleet.cli.stack.foreground import child_specs
from fleet.cli.stack.stack_file import read_stack
from fleet.cli.stack.supervisor import Supervisor
from fleet.cli.stack.watchdog import LOOK_EVERY_S, MAIN_FACTOR, PAUSE_S, START_S, Watch, Watchdog
from fleet.config import RedisSettings, Settings, WorkerSettings
from fleet.engine.messages.producer import submit_many
from fleet.signals.catalogue import COMPLETIONS
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import broker_url
from tests.counted import counted
from tests.redis_server import RedisServer
from tests.stack_processes import OPEN, end_all_of
from tests.waiting import wait_until

HANG_S = 20.0
SLOW_S = 90.0


def report(at: float, pid: int = 7, beat_at: float | None = None, name: str = "w1@here") -> WorkerReport:
    return WorkerReport(name=name, pid=pid, cpu_percent=0, rss_mb=1, slots=1, busy=0, at=at, beat_at=beat_at)


def hangs_after(watch: Watch, rows: dict[float, WorkerReport | None]) -> list[float]:
    """Show a watch one report (None: Redis is away) at each time; return the times at which the worker hangs."""
    found = []
    for now_s, row in rows.items():
        if watch.look(None if row is None else {row.pid: row}, now_s):
            found.append(now_s)
    return found


def looks(until_s: float) -> list[float]:
    return [LOOK_EVERY_S * number for number in range(int(until_s / LOOK_EVERY_S) + 1)]


def test_a_worker_whose_reports_stop_hangs_after_the_limit_and_not_before() -> None:
    rows = {now: report(at=min(now, 10.0)) for now in looks(40)}
    assert hangs_after(Watch(HANG_S), rows)[0] == 10 + HANG_S + LOOK_EVERY_S


def test_a_worker_that_reports_does_not_hang() -> None:
    assert hangs_after(Watch(HANG_S), {now: report(at=now, beat_at=now) for now in looks(200)}) == []


def test_a_worker_that_has_not_reported_yet_is_starting() -> None:
    watch = Watch(HANG_S)
    assert [watch.look({}, now) for now in looks(100)] == [[]] * len(looks(100))


def test_a_worker_that_does_not_get_as_far_as_a_report_is_told_once(own_redis: RedisServer) -> None:
    dog = Watchdog(Settings(redis=RedisSettings(url=own_redis.url)))  # type: ignore[arg-type]
    ours = {"w1@here": 7, "w2@here": 8}
    told: dict[float, list[str]] = {}
    with connect(own_redis.url) as client:
        for now in looks(3 * START_S):
            client.hset(keys.workers(), "w1@here", report(at=now).model_dump_json())
            assert dog.look(ours, now) == []
            told[now] = dog.late(ours)
            assert dog.look(ours, now + 0.5) == dog.late(ours) == []
    line = "w2 started 62 s ago and has not reported: does an import hang? See its log"
    assert {now: lines for now, lines in told.items() if lines} == {START_S + LOOK_EVERY_S: [line]}


def test_what_is_no_worker_reports_nothing_and_is_never_late(own_redis: RedisServer, tmp_path: Path) -> None:
    """Given a stack with beat and Flower, a minute after the start only the worker without a report is told."""
    settings = Settings.model_validate({
        "redis": {"url": own_redis.url}, "worker": {"processes": 1}, "flower": {"port": 0},
        "schedules": {"news": {"every_s": 3600, "task": {"prompt": "What is new?"}}},
    })  # fmt: skip
    specs = child_specs(settings, tmp_path, flower=True)
    assert [spec.name for spec in specs] == ["w1", "beat", "flower"]
    supervisor = Supervisor([replace(spec, command=("/bin/sleep", "60")) for spec in specs], lambda line: None)
    dog, told = Watchdog(settings), list[str]()
    try:
        supervisor.start()
        for now in looks(2 * START_S):
            assert dog.look(supervisor.workers, now) == []
            told += dog.late(supervisor.workers)
    finally:
        supervisor.stop(grace_s=0.0)
    assert [line.partition(" started")[0] for line in told] == ["w1"]


def test_nobody_is_late_while_redis_is_away_or_the_supervisor_stood_still() -> None:
    watch = Watch(HANG_S)
    for now in looks(10 * START_S):
        assert watch.look(None if now % 40 == 0 else {}, now, [7]) == []
        assert watch.late == {}
    watch.look({}, 11 * START_S, [7])
    assert watch.late == {}


def test_nobody_hangs_while_redis_is_away_and_the_count_starts_over_when_it_is_back() -> None:
    away = {now: report(at=0) if now < 10 else None for now in looks(60)}
    watch = Watch(HANG_S)
    assert hangs_after(watch, away) == []
    back = {60 + now: report(at=0) for now in looks(30)[1:]}
    assert hangs_after(watch, back)[0] == 62 + HANG_S + LOOK_EVERY_S


def test_a_supervisor_that_was_stopped_itself_accuses_nobody() -> None:
    watch = Watch(HANG_S)
    assert hangs_after(watch, {0.0: report(at=0), 2.0: report(at=2)}) == []
    assert hangs_after(watch, {2.0 + PAUSE_S + 100: report(at=2), 2.0 + PAUSE_S + 102: report(at=2)}) == []


def test_a_main_thread_that_stands_still_is_found_though_the_loop_reports() -> None:
    rows = {now: report(at=now, beat_at=min(now, 10.0)) for now in looks(100)}
    assert hangs_after(Watch(HANG_S), rows)[0] == 10 + MAIN_FACTOR * HANG_S + LOOK_EVERY_S


def test_a_main_thread_that_does_not_turn_because_the_worker_stops_is_not_judged() -> None:
    rows = {now: report(at=now, beat_at=now if now < 10 else None) for now in looks(200)}
    assert hangs_after(Watch(HANG_S), rows) == []


def test_a_worker_of_another_host_with_the_same_pid_is_not_ours(own_redis: RedisServer) -> None:
    dog = Watchdog(Settings(redis=RedisSettings(url=own_redis.url), worker=WorkerSettings(hang_s=HANG_S)))  # type: ignore[arg-type]
    with connect(own_redis.url) as client:
        client.hset(keys.workers(), "w1@there", report(at=1, name="w1@there").model_dump_json())
        client.hset(keys.workers(), "w1@here", report(at=1, pid=8).model_dump_json())
    ours = {"w1@here": 7, "w2@here": 8}
    assert [dog.look(ours, now) for now in looks(60)] == [[]] * len(looks(60))
    assert [hang.pid for now in looks(60) for hang in dog.look({"w1@here": 8}, 60 + now)][:1] == [8]


def test_reports_that_nobody_can_write_or_read_accuse_nobody(own_redis: RedisServer) -> None:
    dog = Watchdog(Settings(redis=RedisSettings(url=own_redis.url), worker=WorkerSettings(hang_s=HANG_S)))  # type: ignore[arg-type]
    with connect(own_redis.url) as client:
        client.hset(keys.workers(), "w1@here", report(at=1).model_dump_json())
        assert dog.look({"w1@here": 7}, 0.0) == []
        client.config_set("maxmemory", "1")  # full: the workers cannot report, though everybody can read
        assert [dog.look({"w1@here": 7}, now) for now in looks(60)[1:]] == [[]] * len(looks(60)[1:])
    own_redis.kill()
    assert [dog.look({"w1@here": 7}, 60 + now) for now in looks(60)[1:]] == [[]] * len(looks(60)[1:])


@pytest.fixture
def home(fleet_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(*OPEN)
    fleet_home.mkdir()
    yield fleet_home
    end_all_of(fleet_home)


def test_a_stopped_worker_is_replaced_and_its_tasks_end_with_one_result(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORKER__HANG_S": "5", "WORKER__SLOTS": "8", "SIMULATOR__LATENCY_MS": "2500"}.items():
        monkeypatch.setenv(f"FLEET_{name}", value)
    config.current.cache_clear()
    command = [sys.executable, "-m", "fleet.cli.main", "--home", str(home), "up", "-d", "--workers", "2", "--no-flower"]
    up = subprocess.run(command, capture_output=True, text=True, timeout=SLOW_S, check=False)
    assert up.returncode == 0, up.stderr
    stack = read_stack(home)
    assert stack is not None and stack.children[0].process is not None
    pid = stack.children[0].process.pid
    ids = list(submit_many({"prompt": f"What is {number}+1?"} for number in range(16)))
    with connect(broker_url(config.current())) as client:
        wait_until(lambda: client.hlen("fleet:unacked") == len(ids), 20, "both workers are full")
        os.kill(pid, signal.SIGSTOP)
        log = home / "logs" / "supervisor.log"
        wait_until(lambda: f"w1 (pid {pid}) was killed by SIGKILL" in log.read_text(), 30, "it is replaced")
        assert f"w1 (pid {pid}) hangs: it lives, but has reported nothing for" in log.read_text()
        stored = [keys.result(task_id) for task_id in ids]
        wait_until(lambda: None not in client.mget(stored), 60, "every task has a result")
        results = [json.loads(row)["result"]["status"] for row in client.mget(stored) if row]  # type: ignore[union-attr]
        assert results == ["ok"] * len(ids)
        assert counted(client, COMPLETIONS.name) == len(ids)
    down = subprocess.run([*command[:5], "down"], capture_output=True, text=True, timeout=SLOW_S, check=False)
    assert down.returncode == 0, down.stderr
