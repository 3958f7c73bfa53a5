"""One process of the fleet does a duty, and another one takes it over when that one is gone."""

from __future__ import annotations

import asyncio

import redis

from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.store.running.turns import has_turn


def test_one_process_has_the_turn_and_another_takes_it_when_it_is_left(redis_url: str) -> None:
    name = keys.turn("marks")

    async def whole(client: redis.Redis) -> None:
        store = Store(redis_url)
        try:
            asked = [await has_turn(store, name, one, life_s=20) for one in ("first", "second", "first")]
            assert asked == [True, False, True]
            assert 18 <= int(client.ttl(name)) <= 20, "kept as long again"
            client.delete(name)  # its time is over: the first one has died
            assert [await has_turn(store, name, one, life_s=20) for one in ("second", "first")] == [True, False]
        finally:
            await store.close()

    with connect(redis_url, timeout_s=5) as client:
        asyncio.run(whole(client))
