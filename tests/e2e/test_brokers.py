"""Pools spread over two brokers, with real workers: what is killed, stopped or moved loses and doubles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import list_key
from fleet.errors import ConfigurationError
from fleet.models import BotTask
from fleet.store import flow_keys, keys
from fleet.waits import Wait
from tests.two_brokers import WAIT_S, TwoBrokers, WatchedBrokers
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES, REPO, WorkerProcess

POOLS = ("research", "sales-eu", "sales-us")
#: In a process of its own: Celery's app has settings for life.
PRODUCER = """
import asyncio
import celery
from fleet import asubmit_many, submit_many, submit_task

ids = []
for pool in ("research", "sales-eu"):
    ids.append(submit_task.delay("What is 1+1?", pool=pool))
    ids.append(submit_task.apply_async(("What is 1+2?",), {"pool": pool}, countdown=1))
    first, second = submit_task.si("What is 2+1?", pool="research"), submit_task.si("What is 2+2?", pool=pool)
    ids.append(celery.chain(first, second)())
answers = [one.get(timeout=60).answer for one in ids]
assert answers == ["2", "3", "4"] * 2, answers
async def more():
    return await asubmit_many([{"prompt": "What is 3+3?", "pool": pool} for pool in ("research", "sales-us")])
print(*asyncio.run(more()))
"""


@pytest.fixture
def brokers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoBrokers]:
    both = TwoBrokers(tmp_path, monkeypatch, latency_ms=100)
    yield both
    both.stop()


def submit(count: int, *pools: str, priority: str = "normal") -> list[str]:
    return list(
        submit_many(
            BotTask.model_validate({"prompt": f"What is {n}+1?", "pool": pools[n % len(pools)], "priority": priority})
            for n in range(count)
        )
    )


def test_each_pool_waits_at_its_own_broker_and_one_worker_serves_all(brokers: TwoBrokers, tmp_path: Path) -> None:
    ids = submit(90, *POOLS)
    main, west = brokers.clients()
    assert main.llen(list_key(keys.queue("research"), 2)) == 30 and not main.llen(list_key(keys.queue("sales-eu"), 2))
    assert west.llen(list_key(keys.queue("sales-eu"), 2)) == west.llen(list_key(keys.queue("sales-us"), 2)) == 30
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        brokers.wait_done(ids)
        said = subprocess.run(
            [sys.executable, "-c", PRODUCER], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=120,
            env={**os.environ, "PYTHONPATH": str(REPO)},
        )  # fmt: skip
        assert said.returncode == 0, said.stderr + worker.log
        brokers.wait_done(said.stdout.split())
        wait_until(lambda: brokers.held() == 0, WAIT_S, "everything is acknowledged")
        assert brokers.attempts(ids) == 90
    finally:
        worker.kill()


def test_a_killed_worker_s_tasks_come_back_at_both_brokers_once_each(brokers: TwoBrokers, tmp_path: Path) -> None:
    ids = submit(200, *POOLS)
    first = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
    second = None
    try:
        wait_until(lambda: len(brokers.results(ids)) >= 20 and brokers.held() > 2, WAIT_S, "work is under way")
        first.kill()
        second = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
        brokers.wait_done(ids)
        wait_until(lambda: brokers.held() == 0, WAIT_S, "everything is acknowledged")
    finally:
        first.kill()
        if second is not None:
            second.kill()


def test_a_broker_that_is_stopped_stops_only_its_pools_and_comes_back_by_itself(
    brokers: TwoBrokers, tmp_path: Path
) -> None:
    before = submit(60, *POOLS)
    worker = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
    try:
        wait_until(lambda: len(brokers.results(before)) >= 10, WAIT_S, "work is under way")
        brokers.west.kill()
        others = submit(60, "research")
        brokers.wait_done(others, "the other broker's tasks are done meanwhile")
        assert "broker away broker=west" in worker.log
        brokers.west.start()
        brokers.wait_done(before, "those of the broker that was away come after it")
        late = submit(20, "sales-us")
        brokers.wait_done(late)
        assert worker.alive and worker.log.count("broker joined broker=west") == 2
        wait_until(lambda: brokers.held() == 0, WAIT_S, "everything is acknowledged")
    finally:
        worker.kill()


def test_a_worker_that_starts_while_a_broker_is_away_serves_the_others(brokers: TwoBrokers, tmp_path: Path) -> None:
    waiting = submit(10, "sales-eu")
    _, west = brokers.clients()
    hold = Wait("configuration", about="[pools.sales-us]", told="a setting was wrong, and is right now")
    west.set(keys.hold(keys.queue("sales-us")), hold.to_json())
    with (tmp_path / "fleet.toml").open("a") as file:
        file.write("[tenants.acme]\nweight = 3\n")
    brokers.west.kill()
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        brokers.wait_done(submit(20, "research"))
        brokers.west.start()
        brokers.wait_done(waiting)
        is_weighed = lambda: west.hget(flow_keys.weights(), flow_of("acme")) == b"3.0"  # noqa: E731
        wait_until(is_weighed, WAIT_S, "the weights that it could not tell as it began")
        wait_until(lambda: not west.exists(keys.hold(keys.queue("sales-us"))), WAIT_S, "and what it would have opened")
    finally:
        worker.kill()


def test_a_rule_that_changes_loses_and_doubles_nothing_that_waits_is_parked_or_is_in_flight(
    brokers: TwoBrokers, tmp_path: Path
) -> None:
    keyed = [f"k{n}" for n in range(30)]
    tasks = [{"prompt": f"What is {n}+2?", "pool": POOLS[n % 3]} for n in range(30)]
    first = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
    later = subprocess.run(
        [sys.executable, "-c", "from fleet import submit_task\n"
         "for pool in ('research', 'sales-eu'): print(submit_task.apply_async(('What is 5+5?',),"
         " {'pool': pool}, countdown=6).id)"],
        capture_output=True, text=True, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(REPO)},
    ).stdout.split()  # fmt: skip
    ids = submit(120, *POOLS)
    wait_until(lambda: brokers.held() > 2, WAIT_S, "work is under way")
    first.kill()
    again = list(submit_many(tasks, idempotency_keys=keyed))
    queued = brokers.queued(*POOLS)
    brokers.rule("research")  # all three pools have another broker than before
    assert list(submit_many(tasks, idempotency_keys=keyed)) == again
    assert brokers.queued(*POOLS) == queued >= 30, "no task is queued a second time"
    new = submit(30, *POOLS)
    second = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
    try:
        brokers.wait_done([*ids, *later, *again, *new])
        wait_until(lambda: brokers.held() == 0, WAIT_S, "everything is acknowledged")
        assert brokers.attempts([*again, *new, *later]) == 62
    finally:
        second.kill()


def test_slots_full_of_tasks_whose_broker_is_away_are_free_for_others_once_their_calls_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = TwoBrokers(tmp_path, monkeypatch, latency_ms=3000)
    first = submit(8, "sales-eu", "sales-us")
    worker = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
    try:
        wait_until(lambda: both.held() == 8, WAIT_S, "all slots have tasks of the broker that is killed")
        both.west.kill()
        both.wait_done(submit(2, "research"), "the other broker's tasks are done meanwhile")
        both.wait_done(first, "what was at work has ended, and has its results")
        both.west.start()
        late = submit(2, "sales-us")
        both.wait_done(late)
        wait_until(lambda: both.held() == 0, WAIT_S, "everything is acknowledged")
        assert both.attempts(first) == 8 and worker.alive, "what came back with its lease was not called again"
    finally:
        worker.kill()
        both.stop()


def test_brokers_that_the_same_sentinel_watches_are_two_and_no_task_is_called_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = WatchedBrokers(tmp_path, monkeypatch, latency_ms=3000)
    ids = submit(48, *POOLS)
    worker = WorkerProcess(tmp_path, app=QUICK_LEASES).wait_ready()
    try:
        both.wait_done(ids)
        wait_until(lambda: both.held() == 0, WAIT_S, "everything is acknowledged, each at its own broker")
        assert both.attempts(ids) == 48
    finally:
        worker.kill()
        both.stop()


def test_urgent_tasks_come_first_at_each_broker(brokers: TwoBrokers, tmp_path: Path) -> None:
    bulk = submit(60, *POOLS, priority="bulk")
    urgent = submit(30, *POOLS, priority="critical")
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        brokers.wait_done([*bulk, *urgent])
        ended = {one["task_id"]: one["finished_at"] for one in brokers.results([*bulk, *urgent])}
        for places in ((0,), (1, 2)):  # the main broker's pool, and those of the other one
            last = max(ended[task_id] for at, task_id in enumerate(urgent) if at % 3 in places)
            early = sum(ended[task_id] < last for at, task_id in enumerate(bulk) if at % 3 in places)
            assert early <= 10, "a round of slots, and the turns of the least urgent"
    finally:
        worker.kill()


def fleet(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Fleet's in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fleet.cli.main", *words], capture_output=True, text=True, cwd=folder, check=False,
        timeout=120, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip


def test_operators_reach_tasks_at_all_brokers_and_where_pools_were_before(brokers: TwoBrokers, tmp_path: Path) -> None:
    ids = submit(30, *POOLS)
    main, west = brokers.clients()
    assert fleet(tmp_path, "backup", "all.fleet").returncode == 0
    brokers.rule("research")  # all three have another broker now; 20 tasks are left at west, 10 at the main one
    said = fleet(tmp_path, "pools", "pause", "sales-eu")
    assert said.returncode == 0, said.stderr
    assert main.exists(keys.gate(keys.queue("sales-eu"))) and west.exists(keys.gate(keys.queue("sales-eu")))
    story = json.loads(fleet(tmp_path, "why", ids[1], "--json").stdout)
    assert (story["state"], story["pool"]) == ("queued", "sales-eu"), story
    checks = {one["name"]: one for one in json.loads(fleet(tmp_path, "doctor", "--json").stdout)}
    assert "20 tasks of 1 pool wait at west, 20 of them" in checks["broker west"]["found"]
    assert "10 tasks of 2 pools wait at main, 10 of them" in checks["broker main"]["found"]
    view = json.loads(fleet(tmp_path, "stats", "--json").stdout)
    assert [(row["name"], row["waiting"], row["elsewhere"]) for row in view["brokers"]] == [
        ("main", 10, 10), ("west", 20, 20),
    ]  # fmt: skip
    assert {row["pool"]: row["waiting"] for row in view["pools"]} == dict.fromkeys(POOLS, 10)
    said = fleet(tmp_path, "cancel", "--pool", "sales-us", "--yes")
    assert said.returncode == 0 and "10 waiting tasks" in said.stdout + said.stderr, said.stderr
    assert brokers.queued(*POOLS) == 20
    said = fleet(tmp_path, "restore", "all.fleet", "--force")
    assert said.returncode == 0, said.stderr
    assert brokers.queued(*POOLS) == 30 and west.llen(list_key(keys.queue("sales-us"), 2)) == 10
    brokers.west.kill()
    said = fleet(tmp_path, "doctor", "--json")
    checks = {one["name"]: one for one in json.loads(said.stdout)}
    assert checks["broker west"]["level"] == "fail"
    assert "broker west does not answer" in fleet(tmp_path, "why", ids[1]).stdout
    assert fleet(tmp_path, "pools", "pause", "sales-us").returncode == 0, "its own broker answers"
    assert "redis.brokers.west" in fleet(tmp_path, "pools", "pause", "research").stderr


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"pools": ["research"]}, "redis.brokers.west.url: field required"),
        ({"url": "redis://b:6379", "pools": ["resaerch"]}, "the nearest known one is `research`"),
        ({"url": "redis://b:6379", "pools": []}, "redis.brokers.west.pools"),
        ({"url": "redis://:secret@localhost", "pools": ["*"]}, "got that of redis.url"),
        ({"url": "sentinel://:secret@b:26379;sentinel://a/0?master_name=one", "pools": ["*"]}, "of redis.state_url"),
    ],
)
def test_a_broker_that_cannot_be_one_is_refused_in_words(
    table: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("FLEET_REDIS__STATE_URL", "sentinel://a;sentinel://b/0?master_name=one")
    monkeypatch.setenv("FLEET_REDIS__BROKERS", json.dumps({"west": table}))
    with pytest.raises(ConfigurationError) as caught:
        config.load()
    assert told in str(caught.value) and "secret" not in str(caught.value)
