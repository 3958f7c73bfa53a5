"""What is read of a fleet before a run: learnt lengths, times, what waits before, budgets as they stand."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from fleet.config import BudgetSettings, LimitSettings, Settings, WorkerSettings
from fleet.economy.habits import Experience
from fleet.engine.messages.queues import list_key
from fleet.engine.operations.expecting.experience import read_experience
from fleet.models import Priority
from fleet.roster import health
from fleet.store import keys

API, POOL = "simulator/simulated-1", "research"
SETTINGS = Settings(
    worker=WorkerSettings(processes=1, slots=7),
    limits={API: LimitSettings(rpm=120, usd_per_day=2.0, when_full="stop bulk")},
    budgets={"fleet": BudgetSettings(usd_per_hour=3.0), "pool:writing": BudgetSettings(usd_per_day=1.0)},
)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    queue = keys.queue(POOL)
    facts = keys.limit_keys(f"{API}/default").facts
    places = [facts, keys.norms(POOL), keys.parked_order(queue), *(list_key(queue, step) for step in Priority)]
    with redis.Redis.from_url(redis_url) as found:
        found.hset(facts, mapping={"q:sum": "0.2000 0.0400 0.0500 0.0080", "q:once": "0.4000 0.1000 0.2000 0.0500"})
        norm = health.NORM.struct.pack(3, 800, 40, 0, 0, 0, 0)
        found.hset(keys.norms(POOL), "sum", norm)
        found.lpush(list_key(queue, Priority.LOW), "a", "b")
        found.lpush(list_key(queue, Priority.BULK), "c")
        found.zadd(keys.parked_order(queue), {"soon": time.time() + 5, "tomorrow": time.time() + 86_400})
        yield found
        found.delete(*places)


def read(client: redis.Redis, priority: Priority) -> Experience:
    asked = [(POOL, "sum"), (POOL, "once"), (POOL, "new")]
    return read_experience(client, client, SETTINGS, asked, priority=priority)


def test_what_kinds_use_and_how_long_they_take_is_read_as_the_workers_have_learnt_it(client: redis.Redis) -> None:
    known = read(client, Priority.LOW)
    learnt, once = known.habits[API, "sum"], known.habits[API, "once"]
    assert (learnt.share, learnt.deviation) == (0.05, pytest.approx(0.01))
    assert 20 < learnt.answers < 31  # a mean that forgets is never worth more than 31 of 40
    assert learnt.is_good_for("sum") and not once.is_good_for("once"), "one answer tells nothing of the next ones"
    assert (API, "new") not in known.habits
    assert known.latency_s(POOL, "sum").low < 0.8 < known.latency_s(POOL, "sum").high
    assert (known.slots, known.rooms[API].rpm, known.is_learnt) == (7, 120, True)


def test_what_is_as_urgent_waits_before_and_bulk_stops_at_a_share_of_the_day(client: redis.Redis) -> None:
    low, bulk = read(client, Priority.LOW), read(client, Priority.BULK)
    assert (low.backlog[POOL], bulk.backlog[POOL]) == (3, 4)  # what opens soon, but not what opens tomorrow
    assert read(client, Priority.HIGH).backlog[POOL] == 1
    by_about = {fund.about: fund for fund in low.funds}
    assert by_about[f"the day's budget of {API} ($2.00)"].left == 1.6e12
    assert by_about["the budget of fleet ($3.00 an hour)"].left == 3e12
    assert len(by_about) == 2, "a budget of another pool is none of theirs"
    urgent = read(client, Priority.HIGH).funds
    assert urgent[0].left == 2e12
