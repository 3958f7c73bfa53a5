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
from fleet.signals.reader import Signals
from fleet.signals.windows import RECENT, RECENT_ENTRY, RecentEntry, kept_of
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
