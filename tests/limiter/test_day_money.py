"""The money of a day: the limiter counts parts of a micro-dollar in doubles, whose error stays far below a cent."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.errors import DeadlineExceeded, NotSoon
from fleet.grants import Caller, Grant
from fleet.limiter import Limiter, live
from fleet.limiter.layouts import BESIDE, STATE, At
from fleet.limiter.limits import DAY_US
from fleet.models import Priority
from fleet.money import PICOS_PER_MICRO
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.waits import Wait

LIMIT = "provider/model/key"
DAY_S = DAY_US / 1e6


def test_a_day_counts_parts_of_a_micro_dollar_and_closes_at_its_budget(redis_url: str) -> None:
    async def body() -> float:
        store = Store(redis_url)
        limiter = Limiter(store, {LIMIT: LimitSettings(usd_per_day=0.0001)}, draw=lambda: 0.0)
        try:
            for _ in range(200):  # each reserves 15.5 and costs 0.42 micro-dollars
                grant = await limiter.acquire(LIMIT, tokens=21, timeout_s=5, cost_usd_micros=15.5)
                limiter.settle(grant, used_tokens=21, cost_usd_micros=0.42)
            await store.command("PING")
            with pytest.raises(DeadlineExceeded):
                await limiter.acquire(LIMIT, tokens=21, timeout_s=0.1, cost_usd_micros=16.5)
            await limiter.acquire(LIMIT, tokens=21, timeout_s=5, cost_usd_micros=15.5)
            return STATE.unpack(await store.command("GET", keys.limit_keys(LIMIT).state))[At.DAY_USD_MICROS]
        finally:
            await store.close()

    assert asyncio.run(body()) == pytest.approx(200 * 0.42 + 15.5, abs=1e-9)


def test_a_million_calls_of_a_day_are_right_to_a_cent_whatever_they_reserve() -> None:
    chance, counted, exact = random.Random(5), 0.0, 0
    for _ in range(1_000_000):
        reserved, used = chance.randrange(5 * 10**12), chance.randrange(2 * 10**12)  # up to $5, up to $2
        counted = counted + reserved / PICOS_PER_MICRO
        counted = counted - reserved / PICOS_PER_MICRO + used / PICOS_PER_MICRO  # as `settle.lua` does
        exact += used
    assert exact > 900_000 * 10**12
    # Two roundings a call, each of at most 2^-53 of the sum: 2 * 10^6 * 10^12 * 2^-53 micro-dollars are $0.0002.
    assert abs(counted - exact / PICOS_PER_MICRO) < 10_000 / 10


def with_day(url: str, body: Any, **limit: Any) -> Any:
    """Run `body` with a limiter of one limit, and what it warned of."""

    async def main() -> Any:
        store = Store(url)
        limiter = Warned(store, {LIMIT: LimitSettings(rpm=60_000, **limit)}, draw=lambda: 0.0)
        try:
            return await body(limiter, store)
        finally:
            await store.close()

    return asyncio.run(main())


class Warned(Limiter):
    """A limiter that keeps what it warned of."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.warned: list[int] = []

    def day_is_used(self, limit: str, percent: int) -> None:
        super().day_is_used(limit, percent)
        self.warned.append(percent)


async def call(limiter: Limiter, *, most: float = 100, cost: float | None = None, **caller: Any) -> Grant:
    """Get a grant, and settle it at its cost; None: it stays in flight."""
    grant = await limiter.acquire(
        LIMIT, tokens=100, timeout_s=600, patience_s=5, cost_usd_micros=most, caller=Caller("bot", **caller)
    )
    if cost is not None:
        limiter.settle(grant, used_tokens=50, used_output_tokens=20, cost_usd_micros=cost)
    return grant


async def refused(limiter: Limiter, *, most: float = 100, **caller: Any) -> Wait:
    with pytest.raises(NotSoon) as caught:
        await call(limiter, most=most, **caller)
    return caught.value.wait()


def test_before_anything_is_learnt_a_call_reserves_the_most_that_it_may_cost_and_then_what_its_kind_mostly_costs(
    redis_url: str,
) -> None:
    async def body(limiter: Limiter, store: Store) -> list[float]:
        first = await call(limiter, most=100, cost=20)
        await store.command("PING")
        rest = [await call(limiter, most=100, cost=20) for _ in range(40)]
        other = await call(limiter, most=100, kind="another")
        return [first.charged_usd_micros, rest[0].charged_usd_micros, rest[-1].charged_usd_micros,
                other.charged_usd_micros]  # fmt: skip

    first, second, late, other = with_day(redis_url, body, usd_per_day=1)
    assert (first, second, other) == (100, 25, 100)  # the mean and a quarter of it, at first
    assert 20 <= late < 22


def test_a_day_is_spent_to_the_error_of_its_calls_in_flight_and_no_further(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[int, float, Wait]:
        chance, spent, calls = random.Random(3), 0.0, 0
        while True:
            try:
                grant = await call(limiter, most=300)
            except NotSoon as error:
                return calls, spent, error.wait()
            cost = chance.uniform(80, 120)
            limiter.settle(grant, used_tokens=50, used_output_tokens=20, cost_usd_micros=cost)
            calls, spent = calls + 1, spent + cost

    calls, spent, wait = with_day(redis_url, body, usd_per_day=0.01)
    assert 10_000 - 150 < spent <= 10_000 + 40
    assert calls > 90
    assert (wait.cause, wait.is_everyones) == ("money", True)


def test_money_that_calls_in_flight_have_reserved_is_tried_for_again_soon_and_spent_money_at_midnight(
    redis_url: str,
) -> None:
    async def body(limiter: Limiter, store: Store) -> list[float]:
        grants = [await call(limiter, most=400) for _ in range(2)]
        soon = await refused(limiter, most=400)
        for grant, cost in zip(grants, (390, 390), strict=True):
            limiter.settle(grant, used_tokens=50, used_output_tokens=20, cost_usd_micros=cost)
        late = await refused(limiter, most=400)
        now = time.time()
        assert soon.opens_at is not None and late.opens_at is not None
        assert (soon.cause, late.cause, soon.is_everyones, late.is_everyones) == ("money", "money", True, True)
        return [soon.opens_at - now, late.opens_at - (now // DAY_S + 1) * DAY_S]

    soon_s, after_midnight_s = with_day(redis_url, body, usd_per_day=0.001)
    assert soon_s <= 2
    assert abs(after_midnight_s) < 5


def test_a_reservation_of_a_dead_process_is_taken_for_spent(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> Wait:
        await call(limiter, most=900)
        names = keys.limit_keys(LIMIT)
        beside = list(BESIDE.unpack(await store.command("HGET", names.facts, "beside")))
        beside[At.RESERVED_AT - STATE.size] -= 601e6
        await store.command("HSET", names.facts, "beside", BESIDE.pack(beside[1:]))
        return await refused(limiter, most=900)

    wait = with_day(redis_url, body, usd_per_day=0.001)
    assert wait.opens_at is not None
    assert wait.opens_at - time.time() > 3 or time.time() % DAY_S > DAY_S - 10


def test_a_call_that_is_too_large_for_what_is_left_waits_alone_and_smaller_ones_go(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[Wait, Wait]:
        for _ in range(5):
            await call(limiter, most=100, cost=99)
        left, never = await refused(limiter, most=600, kind="large"), await refused(limiter, most=2000, kind="huge")
        await call(limiter, most=100, cost=99)
        return left, never

    left, never = with_day(redis_url, body, usd_per_day=0.001)
    assert (left.cause, left.is_everyones) == (never.cause, never.is_everyones) == ("money", False)
    assert left.told == "this call may cost $0.0006, more than is left of the day's $0.0010"
    assert never.told == "this call may cost $0.0020, more than a whole day has: $0.0010; raise usd_per_day"


def test_a_day_that_stops_bulk_keeps_its_last_fifth_for_what_is_more_urgent(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> tuple[list[Wait], Wait]:
        for _ in range(8):
            await call(limiter, priority=Priority.BULK)
        stopped = [await refused(limiter, priority=priority) for priority in (Priority.LOW, Priority.BULK)]
        for priority in (Priority.CRITICAL, Priority.NORMAL):
            await call(limiter, priority=priority)
        return stopped, await refused(limiter, priority=Priority.NORMAL)

    stopped, full = with_day(redis_url, body, requests_per_day=10, when_full="stop bulk")
    assert [(wait.cause, wait.lowest, wait.is_everyones) for wait in stopped] == [
        ("requests", Priority.NORMAL, True)
    ] * 2
    assert (full.cause, full.lowest) == ("requests", -1)


def test_a_day_is_warned_of_at_80_and_at_100_percent_once_each(redis_url: str) -> None:
    async def body(limiter: Warned, store: Store) -> list[list[int]]:
        told = []
        for _ in range(10):
            await call(limiter)
            told.append(list(limiter.warned))
        for _ in range(3):
            await refused(limiter)
        return [*told, limiter.warned]

    told = with_day(redis_url, body, requests_per_day=10)
    assert told[6] == []
    assert told[7] == told[8] == [80]
    assert told[9] == told[10] == [80, 100]


def test_what_is_only_reserved_warns_nobody(redis_url: str) -> None:
    async def body(limiter: Warned, store: Store) -> list[int]:
        grants = [await call(limiter, most=300) for _ in range(3)]
        await refused(limiter, most=300)
        for grant in grants:
            limiter.settle(grant, used_tokens=50, used_output_tokens=20, cost_usd_micros=30)
        await call(limiter, most=300, cost=30)
        return limiter.warned

    assert with_day(redis_url, body, usd_per_day=0.001) == []


def test_a_budget_that_is_raised_lets_calls_go_at_once(redis_url: str) -> None:
    async def body(limiter: Limiter, store: Store) -> Wait | None:
        await call(limiter, most=900, cost=900)
        await refused(limiter, most=900)
        configured = LimitSettings(usd_per_day=0.001)
        with connect(redis_url) as client:
            assert live.change(client, LIMIT, {"usd_per_day": 0.5}, configured=configured) == {"usd_per_day": 0.5}
        await call(limiter, most=900, cost=900)
        return limiter.standing(LIMIT)

    assert with_day(redis_url, body, usd_per_day=0.001) is None
