"""A worker's breakers: whose gates open when one closes, and what a new key does. On a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fleet import config
from fleet.engine.admission.holds import PUT_HOLD, hold_call
from fleet.engine.process.breaking import StaleHolds, make_breakers, open_mended
from fleet.errors import KeyRejected, NotServed, ProviderUnavailable
from fleet.resilience import Breakers
from fleet.resilience.layouts import STATE, BreakerAt
from fleet.store import keys
from fleet.store.client import Store
from fleet.waits import Wait

LIMIT = "api/model/default"
LIMITS = (LIMIT, "api/another/default")
SETTINGS = config.Settings.model_validate(
    {
        "providers": {"api": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "pools": {
            "one": {"provider": "api", "model": "model"},
            "two": {"provider": "api", "model": "model"},
            "other": {"provider": "api", "model": "another"},
        },
    }
)


#: Limits whose bursts were spent.
calmed: list[str] = []


@asynccontextmanager
async def worker(url: str, key: str, limit: str = LIMIT) -> AsyncIterator[tuple[Breakers, Store]]:
    """A worker process's breakers, as wiring makes them."""
    store = Store(url)
    breakers = make_breakers(SETTINGS, store, store, {limit: key}, calm=calmed.append)
    try:
        await breakers.load()
        ended = time.monotonic() + 10
        while STATE.unpack(await store.command("HGET", keys.breaker(limit), "state"))[BreakerAt.LIFT_AT]:
            assert time.monotonic() < ended, "expected the gates of a breaker that nobody knew to be opened"
            await asyncio.sleep(0.01)
        yield breakers, store
    finally:
        await breakers.close()
        await store.close()


async def held(store: Store) -> dict[str, bool]:
    """Return which pools are held."""
    return {pool: bool(await store.command("GET", keys.hold(keys.queue(pool)))) for pool in SETTINGS.pools}


async def hold(store: Store, pool: str, wait: Wait) -> None:
    """Put a pool's hold, as a worker does."""
    await store.run(PUT_HOLD, *hold_call(keys.queue(pool), wait))


async def park(store: Store, task_id: str, wait: Wait) -> None:
    """Park a task of pool `one` for a reason of its own."""
    assert wait.opens_at is not None
    order = keys.parked_order(keys.queue("one"))
    await store.command("HSET", keys.parked(), task_id, f"{keys.queue('one')}\n{wait.to_json()}\n{{}}")
    await store.command("ZADD", order, wait.opens_at, task_id)
    await store.command("ZADD", keys.openings(), wait.opens_at, keys.queue("one"))


async def due(store: Store) -> set[bytes]:
    """Return the parked tasks of pool `one` whose time has come."""
    order = keys.parked_order(keys.queue("one"))
    return set(await store.command("ZRANGEBYSCORE", order, "-inf", time.time() + 1))


async def until_open(store: Store, pool: str) -> None:
    """Wait until a pool is not held."""
    ended = time.monotonic() + 10
    while (await held(store))[pool]:
        assert time.monotonic() < ended, f"expected {pool} to be let go"
        await asyncio.sleep(0.01)


def test_a_new_key_closes_the_breaker_and_opens_the_gates_it_had_closed_and_no_others(redis_url: str) -> None:
    async def work() -> None:
        async with worker(redis_url, "sk-old") as (breakers, store):
            ruling = await breakers.failed(LIMIT, KeyRejected("401"), who="a", since_s=1)
            assert ruling.wait is not None
            for pool, wait in (
                ("one", ruling.wait),
                ("two", Wait("money", time.time() + 60, LIMIT)),
                ("other", Wait("key", time.time() + 60, "api/another/default")),
            ):
                await store.command("SET", keys.hold(keys.queue(pool)), wait.to_json())
            in_an_hour = replace(ruling.wait, opens_at=time.time() + 3600, is_everyones=False)
            for k in range(600):
                await park(store, f"behind the key {k}", in_an_hour)
                await park(store, f"behind money {k}", replace(in_an_hour, cause="money"))
        async with worker(redis_url, "sk-old") as (_, store):  # a restart alone is no reason
            assert await held(store) == {"one": True, "two": True, "other": True}
        calmed.clear()
        async with worker(redis_url, "sk-new") as (breakers, store):
            await until_open(store, "one")
            assert calmed == [LIMIT]
            assert await held(store) == {"one": False, "two": True, "other": True}
            assert breakers.standing(LIMIT) is None
            events = [
                dict(zip(f[::2], f[1::2], strict=True))
                for _, f in await store.command("XRANGE", keys.events(), "-", "+")
            ]
            assert [event[b"event"] for event in events] == [b"breaker_opened", b"breaker_closed"]
            assert (events[0][b"cause"], events[0][b"limit"]) == (b"key", LIMIT.encode())
            assert b"sk-old" not in b"".join([*events[0].values()])
            ended = time.monotonic() + 10
            while len(await due(store)) < 600:
                assert time.monotonic() < ended, "expected all that is parked for the key to open early"
                await asyncio.sleep(0.01)
            assert await due(store) == {f"behind the key {k}".encode() for k in range(600)}
            assert float(await store.command("ZSCORE", keys.openings(), keys.queue("one"))) < time.time() + 1

    asyncio.run(work())


def test_a_hold_that_somebody_else_wrote_stops_nobody(redis_url: str) -> None:
    async def work() -> None:
        async with worker(redis_url, "sk") as (breakers, store):
            await store.command("SET", keys.hold(keys.queue("one")), "not a wait")
            await store.command("SET", keys.hold(keys.queue("two")), Wait("key", None, LIMIT).to_json())
            await breakers.failed(LIMIT, KeyRejected("401"), who="a", since_s=1)
        async with worker(redis_url, "sk-new") as (_, store):
            await until_open(store, "two")
            assert (await held(store))["one"]

    asyncio.run(work())


def test_a_hold_of_old_knowledge_is_lifted_within_seconds_by_whoever_lives(redis_url: str) -> None:
    async def work() -> None:
        async with worker(redis_url, "sk") as (breakers, store):
            duty = asyncio.ensure_future(StaleHolds(SETTINGS, store, store, LIMITS).attend())
            ruling = await breakers.failed(LIMIT, KeyRejected("401"), who="a", since_s=1)
            assert ruling.wait is not None
            await hold(store, "one", ruling.wait)
            await hold(store, "other", Wait("money", time.time() + 60, "api/another/default"))
            await asyncio.sleep(0)
            breakers.did_well(LIMIT, who="b", seconds=0.0, output_tokens=0, is_probe=True)
            await until_open(store, "one")  # as it closes
            late = replace(ruling.wait, opens_at=time.time() + 3600)
            await hold(store, "one", late)  # its writer had heard "open" just before, and is gone
            await park(store, "behind it", late)
            began = time.monotonic()
            await until_open(store, "one")
            assert time.monotonic() - began < 5
            await park(store, "a moment later", late)
            while len(await due(store)) < 2:
                assert time.monotonic() - began < 10, "expected what is parked behind a stale hold to open with it"
                await asyncio.sleep(0.01)
            assert (await held(store))["other"]
            duty.cancel()
            await asyncio.wait([duty])

    asyncio.run(work())


def test_a_hold_stays_while_its_breaker_is_open_unless_its_pool_calls_another_model_now(redis_url: str) -> None:
    async def work() -> None:
        gone = "api/misspelt/default"
        async with worker(redis_url, "sk") as (breakers, store), worker(redis_url, "sk", limit=gone) as (theirs, _):
            for breaker, limit, pool in ((breakers, LIMIT, "one"), (theirs, gone, "two")):
                ruling = await breaker.failed(limit, NotServed("404"), who="a", since_s=1)
                assert ruling.wait is not None
                await hold(store, pool, ruling.wait)
            await hold(store, "other", Wait("key", time.time() + 60, "api/another/default"))  # put where there is none
            looks = StaleHolds(SETTINGS, store, store, LIMITS)
            await looks.look()
            assert await held(store) == {"one": True, "two": True, "other": True}
            await looks.look(is_first=True)
            assert await held(store) == {"one": True, "two": False, "other": True}

    asyncio.run(work())


def test_a_rung_that_closed_a_moment_ago_opens_its_ladder_once_more(redis_url: str) -> None:
    rungs = {"fallback": [{"model": "another", "when": ["outage", "key"]}]}
    settings = SETTINGS.model_copy(
        update={"pools": {"one": config.PoolSettings(provider="api", model="model", **rungs)}}
    )

    async def work() -> None:
        below = "api/another/default"
        async with worker(redis_url, "sk") as (breakers, store), worker(redis_url, "sk", limit=below) as (others, _):
            ruling = await breakers.failed(LIMIT, KeyRejected("401"), who="a", since_s=1)
            assert ruling.wait is not None
            await others.failed(below, KeyRejected("401"), who="a", since_s=1)
            looks = StaleHolds(settings, store, store, LIMITS)
            await hold(store, "one", ruling.wait)
            await looks.look()
            assert (await held(store))["one"]
            others.did_well(below, who="b", seconds=0.0, output_tokens=0, is_probe=True)
            await store.command("PING")
            await looks.look()
            assert not (await held(store))["one"]
            breakers.did_well(LIMIT, who="b", seconds=0.0, output_tokens=0, is_probe=True)
            await store.command("PING")
            await asyncio.sleep(0.1)  # what the closing itself lifts
            await hold(store, "one", ruling.wait)
            lacks_it = StaleHolds(settings, store, store, [])  # a worker without the key: it is none of a breaker's
            await lacks_it.look()
            assert (await held(store))["one"]
            await looks.look()
            assert not (await held(store))["one"]

    asyncio.run(work())


def test_a_worker_that_lacks_nothing_opens_pools_that_were_held_for_any_of_their_models(redis_url: str) -> None:
    """That of a persona, a rung of its ladder, its own; its code: another worker lacked the key, or had other code."""
    rungs = {"fallback": [{"model": "small"}], "persona": {"models": ["model", "second"]}}
    settings = SETTINGS.model_copy(
        update={"pools": {"one": config.PoolSettings(provider="api", model="model", validator="my:check", **rungs)}}  # type: ignore[arg-type]
    )
    abouts = ["api/second/default", "api/small/default", LIMIT, "[pools.one]", "validator my:check"]

    async def work() -> None:
        store = Store(redis_url)
        try:
            for limits in (abouts[:3], []):
                left = []
                for about in abouts:
                    wait = Wait("key", time.time() + 900, about, probe_every_s=60)
                    await store.run(PUT_HOLD, *hold_call(keys.queue("one"), wait))
                    await open_mended(store, settings, ["one"], limits)
                    left += [about] if await store.command("GET", keys.hold(keys.queue("one"))) else []
                    await store.command("DEL", keys.hold(keys.queue("one")))
                assert left == [about for about in abouts[:3] if about not in limits]
        finally:
            await store.close()

    asyncio.run(work())


def test_where_failures_are_usual_nobody_finds_a_burst_for_retries_would_come_on_top_of_it(redis_url: str) -> None:
    async def work() -> None:
        outage = ProviderUnavailable("503")
        async with worker(redis_url, "sk") as (breakers, _):

            async def fail_after(well: int, k: int) -> None:
                for n in range(well):
                    breakers.did_well(LIMIT, who=f"good {k} {n}", seconds=0.0, output_tokens=0)
                await breakers.failed(LIMIT, outage, who=f"bad {k}", since_s=60)

            calmed.clear()
            await fail_after(100, 0)
            await fail_after(100, 1)
            assert calmed == [], "one call in a hundred fails: that is no trouble"
            for k in range(2, 32):
                await fail_after(2, k)
            assert set(calmed) == {LIMIT}
            assert len(calmed) < 10, "it is told once a second"

    asyncio.run(work())
