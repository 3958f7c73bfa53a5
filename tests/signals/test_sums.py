"""What pools count, added up to what the fleet counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import redis

from fleet.config import PoolSettings, Settings
from fleet.engine.operations.overview import Overview
from fleet.signals.catalogue import NOBODY
from fleet.signals.counted import sums
from fleet.signals.counted.answered import answered
from fleet.signals.reader import Signals
from fleet.signals.windows import RECENT, RECENT_ENTRY, RecentEntry, checksum, kept_of
from fleet.store import keys
from fleet.store.client import Store

SETTINGS = Settings(pools={"a": PoolSettings(bots=2), "b": PoolSettings(bots=2)})


def with_store(url: str, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = Store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def ring(times: list[float]) -> bytes:
    return b"".join(RECENT_ENTRY.pack(*RecentEntry(at, 1, 2, 0, 1, 0, 5, 50)) for at in times)


def test_the_fleets_counters_are_those_of_all_pools_and_of_what_has_none(client: redis.Redis, redis_url: str) -> None:
    with_store(redis_url, lambda store: sums.register(store, ["gone", "a"]))
    for pool, number in (("a", 1), ("b", 20), (NOBODY, 300), ("gone", 4000)):
        client.hset(keys.pool_totals(pool), mapping={"completions": number, "ok": number})
    client.hset(keys.totals(), mapping={"completions": 50_000, "asks": 7})  # also what an earlier release counted
    assert sums.read_totals(client, SETTINGS.pools) == {b"completions": 54_321, b"ok": 4321, b"asks": 7}
    assert Overview(SETTINGS, state=client, broker=client).read().totals["completions"] == 54_321
    assert Signals(client, SETTINGS).read().completions.total == 54_321


def test_a_few_counters_are_added_up_on_the_workers_connection(client: redis.Redis, redis_url: str) -> None:
    client.hset(keys.pool_totals("a"), "completions", 2)
    client.hset(keys.pool_totals("b"), "attempts", 3)

    async def read(store: Store) -> list[int]:
        return await sums.read_counters(store, SETTINGS.pools, ["completions", "attempts"])

    assert with_store(redis_url, read) == [2, 3]


def test_the_newest_completions_of_all_pools_are_shown_and_it_is_known_since_when_they_are_all() -> None:
    busy, quiet = ring([1000.0 + n for n in range(40)]), ring([10.0, 1020.0])
    recent, since = sums.newest_recent([(busy, 40), (quiet, 40), (None, 40)])
    assert len(recent) == 42
    assert since == 1000.0, "before that the busy pool's ring has forgotten what it had"
    recent, since = sums.newest_recent([(ring([float(n) for n in range(1, 1500)]), 2000), (quiet, 40)])
    assert len(recent) == RECENT and min(one.at for one in recent) == since == 501.0


def test_the_last_completions_are_those_of_a_time_of_which_all_pools_remember_all(client: redis.Redis) -> None:
    """Given ten pools of 400 places, one with 100 tasks a second and nine that did theirs yesterday."""
    pools, now_s = [f"p{number}" for number in range(10)], float(client.time()[0])
    settings = Settings(pools={pool: PoolSettings(bots=1) for pool in pools})
    client.set(keys.pool_recent("p0"), ring([now_s - number / 100 for number in range(400)]))
    for pool in pools[1:]:
        client.set(keys.pool_recent(pool), ring([now_s - 86_400 - number for number in range(400)]))
    recent = Overview(settings, state=client, broker=client).read().recent
    assert (recent.completions, recent.span_s < 6, recent.per_s > 60) == (400, True, True), recent


def test_no_more_than_the_last_thousand_are_shown_where_many_ended_at_once() -> None:
    assert len(sums.newest_recent([(ring([7.0] * 700), 1000), (ring([7.0] * 700), 1000)])[0]) == RECENT


def test_what_is_known_of_an_api_is_not_forgotten_for_a_busy_pool_of_another() -> None:
    """Given an API whose last answer is ten minutes old, beside one that answers nine times a second."""
    apis = {"busy": "m", "quiet": "n", "idle": "o", "gone": ""}
    settings = Settings(
        pools={pool: PoolSettings(bots=1, provider="simulator", model=model) for pool, model in apis.items() if model}
    )
    busy, at = ring([1000.0 - number / 9 for number in range(50)]), checksum("simulator/n")
    quiet = RECENT_ENTRY.pack(*RecentEntry(400.0, 1, at, 0, 1, 0, 5, 50))
    rings: dict[str, sums.Ring] = {sums.FORMER: (None, RECENT), "busy": (busy, 50), "quiet": (quiet, 50)}
    rings |= {"idle": (None, 50), "gone": (ring([300.0, 200.0]), 2)}
    found = answered(rings, settings)
    assert max(one.at for one in found.entries if one.api == at) == 400.0
    since = 1000.0 - 49 / 9
    assert found.known_from == {"simulator/m": since, "simulator/n": 200.0, "simulator/o": 200.0}
    busy_too = busy.replace(busy[12:16], at.to_bytes(4, "little"))  # the busy pool falls back to it
    shared = answered({**rings, "busy": (busy_too, 50)}, settings)
    assert shared.known_from["simulator/n"] == since, "it may have forgotten an answer"


def test_what_old_workers_remember_is_of_all_apis() -> None:
    settings = Settings(pools={"a": PoolSettings(bots=1, provider="simulator", model="m")})
    full = ring([1000.0 + number for number in range(RECENT)])
    assert answered({sums.FORMER: (full, RECENT), "a": (None, 50)}, settings).known_from == {"simulator/m": 1000.0}


def test_entries_behind_what_a_ring_keeps_are_stale() -> None:
    recent, since = sums.newest_recent([(ring([50.0, 60.0, 1.0]), 2)])
    assert ({one.at for one in recent}, since) == ({50.0, 60.0}, 50.0)


def test_failures_are_merged_newest_first_and_a_full_list_says_since_when() -> None:
    lines, since = sums.newest_failures([[b"9.5|x", b"3.0|x"], [b"7.0|y"], []], kept=2)
    assert lines == [b"9.5|x", b"7.0|y", b"3.0|x"]
    assert since == 3.0
    assert sums.newest_failures([[b"9.5|x"]], kept=2)[1] == 0.0


def test_many_pools_remember_less_each() -> None:
    assert [kept_of(pools) for pools in (0, 1, 4, 10, 1000)] == [1000, 1000, 1000, 400, 50]
