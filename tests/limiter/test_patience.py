"""A turn that is further away than the caller's patience: it is told why and until when, and nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.errors import NotSoon
from fleet.grants import Caller, Grant
from fleet.limiter import Limiter
from fleet.limiter.limits import DAY_US
from fleet.limiter.live import change
from fleet.models import Priority
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.waits import Wait

LIMIT = "provider/model/key"
#: The least that a day must have left, so that it does not end within a test (s).
DAY_S = DAY_US / 1e6


def run(url: str, body: Callable[[Limiter, Limiter, Store], Awaitable[Any]], **limit: Any) -> Any:
    """Run `body` with the limiters of two processes."""

    async def main() -> Any:
        stores = Store(url), Store(url)
        try:
            mine, other = (Limiter(store, {LIMIT: LimitSettings(**limit)}, draw=lambda: 0.0) for store in stores)
            return await body(mine, other, stores[0])
        finally:
            for store in stores:
                await store.close()

    return asyncio.run(main())


async def refused(limiter: Limiter, *, patience_s: float = 5.0, caller: Caller | None = None, **ask: Any) -> Wait:
    """Ask, and return why it does not go."""
    with pytest.raises(NotSoon) as caught:
        asks = {"tokens": 10, "timeout_s": 600, **ask}
        await limiter.acquire(LIMIT, patience_s=patience_s, caller=caller or Caller("bot"), **asks)
    return caught.value.wait()


async def tickets(store: Store) -> int:
    """Return how many calls wait in the order."""
    count: int = await store.command("ZCARD", keys.limit_keys(LIMIT).queue)
    return count


def midnight() -> float:
    """Return when the day (UTC) ends, Unix time."""
    return (time.time() // DAY_S + 1) * DAY_S


def test_a_turn_beyond_the_patience_is_refused_at_once_with_its_time_and_leaves_no_ticket(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Limiter, store: Store) -> tuple[Wait, float, int]:
        await limiter.acquire(LIMIT, tokens=10, timeout_s=0)
        began = time.monotonic()
        return await refused(limiter), time.monotonic() - began, await tickets(store)

    wait, took_s, left = run(redis_url, body, rpm=2)
    assert (wait.cause, wait.about, wait.is_everyones, wait.lowest) == ("limit", LIMIT, True, -1)
    # Half of the patience before its turn, in 30 s: it then waits for that in a slot.
    assert wait.opens_at == pytest.approx(time.time() + 27.5, abs=3)
    assert took_s < 2
    assert left == 0


def test_a_call_that_comes_back_when_it_was_told_to_gets_its_turn_within_its_patience(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Limiter, store: Store) -> tuple[Wait, Grant]:
        await limiter.acquire(LIMIT, tokens=10, timeout_s=0)
        wait = await refused(limiter, patience_s=0.4)
        assert wait.opens_at is not None
        await asyncio.sleep(max(0.0, wait.opens_at - time.time()))
        return wait, await limiter.acquire(LIMIT, tokens=10, timeout_s=600, patience_s=0.4)

    _, grant = run(redis_url, body, rpm=60)
    assert 0 < grant.waited_ms <= 500


def test_who_stands_behind_a_long_line_is_refused_and_more_urgent_calls_may_pass(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Limiter, store: Store) -> tuple[Wait, Grant]:
        waiting = [
            asyncio.create_task(limiter.acquire(LIMIT, tokens=10, timeout_s=600, caller=Caller(f"bot-{number}")))
            for number in range(40)
        ]
        await asyncio.sleep(0.1)
        await store.command("PING")
        wait = await refused(limiter, patience_s=3, caller=Caller("late"))
        assert limiter.standing(LIMIT) is None  # it does not hold for all
        urgent = await limiter.acquire(
            LIMIT, tokens=10, timeout_s=600, patience_s=3, caller=Caller("urgent", priority=Priority.CRITICAL)
        )
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return wait, urgent

    wait, urgent = run(redis_url, body, rpm=120)
    assert (wait.cause, wait.is_everyones, wait.lowest) == ("limit", True, Priority.HIGH)
    assert urgent.waited_ms < 3000


def test_of_a_tenant_that_has_had_more_than_others_only_its_own_calls_wait(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Limiter, store: Store) -> tuple[Wait, Grant]:
        waiting = [
            asyncio.create_task(limiter.acquire(LIMIT, tokens=10, timeout_s=600, caller=Caller("bot", tenant="greedy")))
            for _ in range(40)
        ]
        await asyncio.sleep(0.1)
        await store.command("PING")
        wait = await refused(limiter, patience_s=3, caller=Caller("bot", tenant="greedy"))
        other = await limiter.acquire(
            LIMIT, tokens=10, timeout_s=600, patience_s=3, caller=Caller("bot", tenant="modest")
        )
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return wait, other

    wait, other = run(redis_url, body, rpm=120)
    assert (wait.cause, wait.is_everyones) == ("limit", False)
    assert other.waited_ms < 3000


def test_what_a_used_up_day_has_kept_waiting_goes_at_the_pace_of_the_limit_once_there_is_room(redis_url: str) -> None:
    async def body(mine: Limiter, other: Limiter, _: Store) -> list[float]:
        for _n in range(2):
            await mine.acquire(LIMIT, tokens=10, timeout_s=0)
        assert (await refused(mine)).cause == "requests"
        with connect(redis_url) as client:
            change(client, LIMIT, {"requests_per_day": 100}, configured=LimitSettings(rpm=600, requests_per_day=2))
        begin = time.monotonic()

        async def call(one: Limiter, number: int) -> float:
            await one.acquire(LIMIT, tokens=10, timeout_s=5, patience_s=5, caller=Caller(f"bot-{number}"))
            return time.monotonic() - begin

        return sorted(await asyncio.gather(*[call((mine, other)[n % 2], n) for n in range(10)]))

    gone_at_s = run(redis_url, body, rpm=600, requests_per_day=2)
    assert gone_at_s[-1] >= gone_at_s[0] + 0.7  # 100 ms apart; an idle limit has a burst of a second


@pytest.mark.parametrize("calmed", ["never", "before", "after"])
def test_a_429_is_told_of_with_who_said_it_and_until_when_by_every_process(redis_url: str, calmed: str) -> None:
    async def body(limiter: Limiter, other: Limiter, store: Store) -> list[Wait]:
        if calmed == "before":
            limiter.calm(LIMIT)
        limiter.penalise(LIMIT, retry_after_s=400)
        if calmed == "after":
            limiter.calm(LIMIT)
        await store.command("PING")
        return [await refused(each) for each in (limiter, other)]

    for wait in run(redis_url, body, rpm=6000):
        assert (wait.cause, wait.about, wait.is_everyones) == ("hold", LIMIT, True)
        assert wait.told.startswith("429, Retry-After 400 s, at ")
        assert wait.opens_at == pytest.approx(time.time() + 400, abs=5)


def test_who_waits_or_was_promised_a_slot_as_a_hold_begins_is_told_at_once(redis_url: str) -> None:
    async def body(limiter: Limiter, other: Limiter, store: Store) -> tuple[list[Any], float, int]:
        for _ in range(2):
            await limiter.acquire(LIMIT, tokens=10, timeout_s=600)
        calls = [
            asyncio.create_task(limiter.acquire(LIMIT, tokens=10, timeout_s=600, patience_s=5, caller=Caller(f"{n}")))
            for n in range(3)
        ]
        await asyncio.sleep(0.2)
        assert not [call for call in calls if call.done()]
        began = time.monotonic()
        limiter.penalise(LIMIT, retry_after_s=400)
        told = await asyncio.gather(*calls, return_exceptions=True)
        return told, time.monotonic() - began, await tickets(store)

    told, took_s, left = run(redis_url, body, rpm=60, burst=0.0001, counting="bucket")
    assert [type(one) for one in told] == [NotSoon] * 3
    assert {one.cause for one in told} == {"hold"}
    assert took_s < 1
    assert left == 0


def test_without_patience_a_call_waits_as_long_as_its_timeout(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Limiter, store: Store) -> Grant:
        limiter.penalise(LIMIT, retry_after_s=0.6)
        await store.command("PING")
        return await limiter.acquire(LIMIT, tokens=10, timeout_s=600)

    assert run(redis_url, body, rpm=6000).waited_ms >= 550


def test_what_was_heard_just_now_is_known_without_asking_and_forgotten_soon(redis_url: str) -> None:
    async def body(limiter: Limiter, other: Limiter, store: Store) -> tuple[Wait | None, ...]:
        first = limiter.standing(LIMIT)
        limiter.penalise(LIMIT, retry_after_s=400)
        await refused(limiter)
        asked = limiter.questions
        second, elsewhere = limiter.standing(LIMIT), other.standing(LIMIT)
        assert limiter.questions == asked
        await asyncio.sleep(0.6)
        return first, second, elsewhere, limiter.standing(LIMIT)

    first, second, elsewhere, later = run(redis_url, body, rpm=6000)
    assert first is elsewhere is later is None
    assert second is not None and second.cause == "hold"


def test_the_requests_of_a_day_are_a_gate_that_opens_at_midnight(redis_url: str) -> None:
    async def body(limiter: Limiter, _: Limiter, store: Store) -> Wait:
        for _ in range(3):
            await limiter.acquire(LIMIT, tokens=10, timeout_s=5, patience_s=5)
        return await refused(limiter)

    wait = run(redis_url, body, requests_per_day=3)
    assert (wait.cause, wait.is_everyones, wait.told) == ("requests", True, "100% of the day is used")
    assert wait.opens_at == pytest.approx(midnight(), abs=5)
