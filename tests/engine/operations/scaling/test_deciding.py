"""How many slots are wanted of a fleet as it stands in Redis: what is held, parked, due, limited, finished lately."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from fleet.cli.setup.wait_checks import scaling_checks
from fleet.config import LimitSettings, PoolSettings, RedisSettings, ScalingSettings, Settings
from fleet.engine.operations.scaling import deciding
from fleet.engine.operations.scaling.deciding import DECIDE_EVERY_S, decide_now, look
from fleet.engine.operations.scaling.published import read_wanted, scaling_view
from fleet.engine.operations.scaling.reading import arrivals_in, read_demand
from fleet.errors import ConfigurationError
from fleet.scaling.wanted import STALE_S, WantedSlots
from fleet.signals.ahead.scaling_view import ScalingView
from fleet.signals.recorder import WorkerReport
from fleet.signals.series import series_of
from fleet.signals.windows import MINUTES, PERIOD, Period
from fleet.store import keys, schedule_keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.waiting import wait_until

SETTINGS = Settings(
    pools={"a": PoolSettings(bots=10), "b": PoolSettings(bots=10)},
    limits={"simulator/sim-small": LimitSettings(rpm=600)},
    scaling=ScalingSettings(lead_s=60),
)
QUEUE = keys.queue("a")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as found:
        yield found


def now_s(client: redis.Redis) -> float:
    seconds, micros = client.time()  # type: ignore[misc]
    return float(seconds) + float(micros) / 1e6  # type: ignore[arg-type]


def wait(client: redis.Redis, count: int) -> None:
    for start in range(0, count, 10_000):
        client.rpush(f"{QUEUE}\x06\x162", *["x"] * min(10_000, count - start))


def hold(client: redis.Redis, for_s: float, cause: str = "hold") -> None:
    client.set(keys.hold(QUEUE), Wait(cause, now_s(client) + for_s, told="Retry-After").to_json())  # type: ignore[arg-type]


def decided(client: redis.Redis, *, publish: bool = False) -> WantedSlots:
    return decide_now(client, client, SETTINGS, publish=publish)


def test_a_hundred_thousand_tasks_behind_an_hour_of_retry_after_want_the_least(client: redis.Redis) -> None:
    wait(client, 100_000)
    hold(client, 3600)
    found = decided(client)
    assert found.decision.slots == 1
    assert (found.waiting, found.parked) == (0, 100_000)
    assert "a: shut for 60 min: 100,000 tasks behind it" in found.decision.reason


def test_once_it_opens_before_a_new_worker_would_work_what_the_limit_feeds_is_wanted(client: redis.Redis) -> None:
    wait(client, 100_000)
    hold(client, 30)
    demand = read_demand(client, client, SETTINGS).demand
    (pool, _) = demand.pools
    assert pool.is_shut and pool.opens_at is not None and pool.behind == 100_000
    assert decided(client).decision.slots > 1


def test_an_outage_wants_nothing_before_its_next_try_has_done_well(client: redis.Redis) -> None:
    wait(client, 5000)
    hold(client, 5, "outage")
    found = decided(client)
    assert found.decision.slots == 1 and "nobody knows for how long" in found.decision.reason


def test_parked_tasks_count_once_their_time_is_near(client: redis.Redis) -> None:
    at = now_s(client)
    client.zadd(keys.parked_order(QUEUE), {f"soon-{n}": at + 30 for n in range(40)})
    client.zadd(keys.parked_order(QUEUE), {f"later-{n}": at + 7200 for n in range(5000)})
    pool = read_demand(client, client, SETTINGS).demand.pools[0]
    assert (pool.due, pool.ready, pool.behind, pool.later) == (40, 0, 0, 5000)
    assert decided(client).decision.slots == 25  # 4 a second for 5 s each, and the buffer


def test_a_hold_of_seconds_wants_slots_for_what_waits_behind_it_and_none_for_what_is_parked_until_tomorrow(
    client: redis.Redis,
) -> None:
    at = now_s(client)
    client.zadd(keys.parked_order(QUEUE), {f"tomorrow-{n}": at + 86_400 for n in range(20_000)})
    wait(client, 40)
    hold(client, 5)
    pool = read_demand(client, client, SETTINGS).demand.pools[0]
    assert (pool.is_shut, pool.due, pool.behind, pool.later) == (True, 0, 40, 20_000)
    found = decided(client)
    assert (found.decision.slots, found.parked) == (25, 20_040)  # as for 40 that come due


def test_a_pool_without_a_worker_wants_one_all_the_more(client: redis.Redis) -> None:
    wait(client, 50)
    found = decided(client)
    assert found.crew == 0 and found.decision.slots > 20


def test_fixed_workers_and_those_at_their_most_take_no_share_that_they_do_not_use(client: redis.Redis) -> None:
    wait(client, 250)  # 150 slots: 25 tasks a second for 5 s each, and the buffer
    for name, slots, most_slots in (("fixed", 80, None), ("small", 10, 10), ("large", 1, 200)):
        row = WorkerReport(
            name=name, pid=1, cpu_percent=0, rss_mb=1, slots=slots, busy=0, at=now_s(client), most_slots=most_slots
        )
        client.hset(keys.workers(), name, row.model_dump_json())
    found = decided(client)
    assert (found.crew, found.slots, found.decision.slots, found.each) == (3, 91, 150, 60)


def test_a_minute_has_brought_what_was_finished_in_it_and_what_its_backlog_grew_by() -> None:
    last, places = 40_000, {}
    for minute, done in ((last - 3, 60), (last - 2, 60), (last - 1, 60)):
        places[minute % MINUTES] = Period(minute, done, *[0.0] * (len(Period._fields) - 2))
    raw = b"".join(PERIOD.pack(*places.get(at, [0.0] * len(Period._fields))) for at in range(MINUTES))
    series, at = series_of(raw), last * 60.0 + 5
    assert arrivals_in(series, {}, at) == (60, 60, 60)
    assert arrivals_in(series, {last - 2: 0, last - 1: 30, last: 10}, at) == (60, 90, 40)
    assert struct.calcsize("d") == 8


def test_a_decision_is_published_once_and_seen_by_all_until_it_is_stale(client: redis.Redis) -> None:
    assert look(client, client, SETTINGS)[1] is False and read_wanted(client) is None
    first = decided(client, publish=True)
    assert decided(client, publish=True) == first  # not again within a moment
    assert look(client, client, SETTINGS) == (first, True)
    view = scaling_view(client, first.decision.at + DECIDE_EVERY_S)
    assert view is not None and view.slots == 1 and view.by_pool == {"a": 0, "b": 0}
    assert scaling_view(client, first.decision.at + STALE_S + 1) is None
    assert 0 < client.ttl(schedule_keys.wanted()) <= 3600  # type: ignore[operator]


def test_what_another_release_has_published_is_passed_over(client: redis.Redis) -> None:
    client.set(schedule_keys.wanted(), '{"decision": 5}')
    assert read_wanted(client) is None
    assert decided(client, publish=True).decision.slots == 1


def test_a_decider_outlives_what_goes_wrong_in_one_decision_and_says_what_it_was(
    client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, fails = list[str](), [ValueError("a secret"), KeyError("x"), ConfigurationError("no such pool")]

    def fails_first(*args: Any, **kwargs: Any) -> WantedSlots:
        if fails:
            raise fails.pop(0)
        return decide_now(*args, **kwargs)

    monkeypatch.setattr(deciding, "DECIDE_EVERY_S", 0.01)
    monkeypatch.setattr(deciding, "decide_now", fails_first)
    decider = deciding.Decider(
        SETTINGS.model_copy(update={"redis": RedisSettings(url=SecretStr(redis_url))}), said.append
    )
    decider.start()
    wait_until(lambda: len(said) == 2, 20, lambda: f"it decides again: {said}")
    decider.stop()
    assert said[0].startswith("not decided how many slots are wanted: ValueError (a bug: report it); workers go by")
    assert said[1] == "it is decided again how many slots are wanted" and read_wanted(client) is not None


@pytest.mark.parametrize(("wanted", "state"), [(12, "ok"), (60, "warn")])
def test_doctor_says_where_far_more_slots_are_wanted_than_there_are(wanted: int, state: str) -> None:
    view = ScalingView(at=0, slots=wanted, workers=1, there=10, reason="a: 600 tasks wait", by_pool={})
    (check,) = scaling_checks(view)
    assert (check.level, check.found) == (state, f"{wanted} slots wanted, 10 there: a: 600 tasks wait")
    assert list(scaling_checks(None)) == []
