"""The money of a day: the limiter counts parts of a micro-dollar in doubles, whose error stays far below a cent."""

from __future__ import annotations

import asyncio
import random

import pytest

from fleet.config import LimitSettings
from fleet.errors import DeadlineExceeded
from fleet.limiter import Limiter
from fleet.limiter.layouts import STATE, At
from fleet.money import PICOS_PER_MICRO
from fleet.store import keys
from fleet.store.client import Store

LIMIT = "provider/model/key"


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
