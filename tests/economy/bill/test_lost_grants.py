"""A call whose grant was lost on its way to a process that lives: it was never sent, and nothing of it stays."""

from __future__ import annotations

import asyncio

import pytest

from fleet.config import LimitSettings
from fleet.economy.bill.writer import Writer
from fleet.errors import StoreUnavailable
from fleet.limiter import Limiter
from fleet.store import keys
from fleet.store.client import Store
from tests.economy.bill.calls import LIMIT, entry
from tests.redis_server import RedisServer


@pytest.mark.parametrize("hears", [True, False], ids=["the bill hears", "nobody hears"])
def test_what_redis_granted_while_it_stood_is_forgotten_once_it_answers(own_redis: RedisServer, hears: bool) -> None:
    async def body() -> int:
        store = Store(own_redis.url, timeout_s=0.3)
        try:
            limiter, writer = Limiter(store, {LIMIT: LimitSettings(rpm=6000)}), Writer(store)
            if hears:
                limiter.on_lost = writer.void
            note = writer.opened(entry(id="", state="unknown"))
            warm = await limiter.acquire(LIMIT, tokens=1, timeout_s=5, note=note)
            writer.void(LIMIT, warm.ticket)
            await writer.flush(5)
            own_redis.freeze()
            with pytest.raises(StoreUnavailable):
                await limiter.acquire(LIMIT, tokens=1, timeout_s=5, note=note)
            own_redis.thaw()
            await writer.flush(10)
            while (await limiter.snapshot(LIMIT)).granted < 2:  # it was granted all the same
                await asyncio.sleep(0.01)
            await writer.flush(10)
            return int(await store.command("HLEN", keys.limit_keys(LIMIT).open))
        finally:
            own_redis.thaw()
            await store.close()

    assert asyncio.run(asyncio.wait_for(body(), 30)) == (0 if hears else 1)
