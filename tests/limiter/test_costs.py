"""What calls really cost is learnt for the fleet: a process that starts now knows it."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.config import LimitSettings
from fleet.grants import Caller
from fleet.limiter import LearntCosts, Limiter
from fleet.store import keys
from fleet.store.client import Store

LIMIT = "provider/model/key"


def test_a_fresh_process_knows_what_others_have_learnt_of_a_kinds_cost(redis_url: str) -> None:
    async def body() -> tuple[list[float], int]:
        store, fresh = Store(redis_url), Store(redis_url)
        now = 0.0
        limiter = Limiter(store, {LIMIT: LimitSettings(rpm=600_000)}, draw=lambda: 0.0)
        costs, shares = LearntCosts(fresh, clock=lambda: now), []
        try:
            shares.append(await costs.share(LIMIT, "sums"))
            for _ in range(60):
                grant = await limiter.acquire(
                    LIMIT, tokens=100, timeout_s=5, caller=Caller(kind="sums"), cost_usd_micros=50.0
                )
                limiter.settle(grant, used_tokens=20, used_output_tokens=5, cost_usd_micros=5.0)
            await store.command("PING")
            shares.append(await costs.share(LIMIT, "sums"))  # what was read a moment ago is believed
            now, before = 1.5, fresh.writes
            shares += [await costs.share(LIMIT, "sums") for _ in range(50)]
            read = fresh.writes - before
            shares.append(await costs.share(LIMIT, "essays"))
            return shares, read
        finally:
            await store.close()
            await fresh.close()

    (unknown, believed, *learnt, other), read = asyncio.run(body())
    assert (unknown, believed, other) == (1.0, 1.0, 1.0)
    assert set(learnt) == {learnt[0]} and 0.1 <= learnt[0] < 0.15 and read == 1


def test_a_kind_of_which_only_tokens_are_learnt_costs_the_most_that_it_may(redis_url: str) -> None:
    async def body() -> Any:
        store = Store(redis_url)
        try:
            await store.command("HSET", keys.limit_keys(LIMIT).facts, "q:sums", "0.2 0.1 0.2 0.1")
            return await LearntCosts(store).share(LIMIT, "sums")
        finally:
            await store.close()

    assert asyncio.run(body()) == 1.0
