"""Calls under way, read where the limiter notes them: how many, how old, and none of a process that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from fleet.config import BudgetSettings, PoolSettings, Settings
from fleet.economy.bill.notes import packed_note
from fleet.engine.operations.budgets import read_budget_views, scopes_of
from fleet.engine.operations.symptoms import OPEN_CALLS, read_symptoms
from fleet.entries import Entry
from fleet.resilience.view import read_breakers_now
from fleet.signals.counted.answered import KnownTasks
from fleet.signals.diagnosis.symptoms import OpenCalls, Symptoms
from fleet.signals.recorder import WorkerReport
from fleet.signals.view import WaitLine
from fleet.store import keys
from fleet.store.client import connect
from fleet.usage import Usage

LIMIT = "alpha/m-1/default"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as opened:
        yield opened


def report(client: redis.Redis, process: str, ago_s: float = 0.0) -> None:
    row = WorkerReport(name=f"w-{process}@h", pid=1, process=process, cpu_percent=0, rss_mb=0, slots=9, busy=1,
                       at=time.time() - ago_s)  # fmt: skip
    client.hset(keys.workers(), row.row, row.model_dump_json())


def leave(client: redis.Redis, process: str, *, ago_s: float, count: int = 1) -> None:
    """Note calls that left so long ago, as `acquire.lua` does."""
    asked = Entry("t", "task", "p", "p-001", "", "", "", LIMIT, "", Usage(), 1, "unknown", 0.0, "")
    note = packed_note(asked, writer="w", process=process)
    for number in range(count):
        text = f"{(time.time() - ago_s) * 1e6:.0f} 1 {note}"
        client.hset(keys.limit_keys(LIMIT).open, f"{process}-{ago_s}-{number}", text)


def read(client: redis.Redis, in_hand: int = 9) -> Symptoms:
    (breaker,) = read_breakers_now(client, [LIMIT])
    return read_symptoms(
        client, now_s=time.time(), breakers={LIMIT: breaker}, series={}, failures=(),
        workers=client.hgetall(keys.workers()), bots={}, reasons={}, redis_most_bytes=0, answered=KnownTasks((), {}),
        in_hand={LIMIT: in_hand},
    )  # fmt: skip


def test_calls_of_living_processes_are_told_with_their_age(client: redis.Redis) -> None:
    assert read(client).under_way == {}
    report(client, "alive")
    report(client, "dead", ago_s=60)
    leave(client, "alive", ago_s=30, count=2)
    leave(client, "alive/child", ago_s=3)
    leave(client, "", ago_s=9)
    leave(client, "dead", ago_s=99, count=5)
    leave(client, "gone", ago_s=99, count=5)
    client.hset(keys.limit_keys(LIMIT).open, "odd", "what is this")
    found = read(client).under_way[LIMIT]
    assert sorted(round(age) for age in found.ages_s) == [3, 9, 30, 30]
    assert (found.calls, found.older_than(20)) == (4, 2)
    assert read(client, in_hand=4).under_way == {}, "too few to tell anything"


def test_of_many_calls_a_few_are_looked_at(client: redis.Redis) -> None:
    report(client, "alive")
    leave(client, "alive", ago_s=30, count=400)
    found = read(client, in_hand=400).under_way[LIMIT]
    assert (found.calls, len(found.ages_s), found.older_than(20)) == (400, OPEN_CALLS, 400)
    assert OpenCalls(0, ()).older_than(1) == 0


def test_a_budget_that_tasks_wait_for_is_told_though_others_are_fuller(client: redis.Redis) -> None:
    settings = Settings(pools={"p": PoolSettings()}, budgets={"tenant:*": BudgetSettings(usd_per_day=1.0)})
    assert [one.scope for one in read_budget_views(client, settings, {}, time.time())] == ["tenant:*"]
    abouts = ("budget tenant:a, a day", "budget tenant:b, a month", "budget bot:*, pool p", "alpha/m-1/default")
    scopes = scopes_of([WaitLine(pool="p", cause="money", about=about, tasks=1, line="") for about in abouts])
    found = read_budget_views(client, settings, {}, time.time(), waited_for=scopes)
    assert [one.scope for one in found] == ["tenant:*", "tenant:a", "tenant:b"]
