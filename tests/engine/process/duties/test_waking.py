"""Tasks of a tenant or run that wait for what calls in flight have reserved go on as these end, on a real Redis."""

from __future__ import annotations

import asyncio

from fleet.economy.budgets import Freed
from fleet.engine.process.duties.waking import Waking
from fleet.engine.transport.parking import opening
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.engine.transport.test_opening import park

ANN, BOB = "budget tenant:ann, a day", "budget tenant:bob, a day"


def test_as_many_tasks_are_woken_as_calls_have_ended_and_one_more(redis_url: str) -> None:
    """The next of that tenant, and of no other; what is parked beside a queue of no pool is left alone."""
    with connect(redis_url) as client:
        queue = keys.queue("a")
        park(client, "bob", about=BOB, cause="money", in_s=50, queue=queue)
        park(client, *(f"ann-{n}" for n in range(5)), about=ANN, cause="money", queue=queue)
        park(client, "elsewhere", about=ANN, cause="money", in_s=50, queue="other")
        before: list[tuple[bytes, float]] = client.zrange(keys.parked_order(queue), 0, -1, withscores=True)

        async def body() -> None:
            store = Store(redis_url)
            waking = Waking(store, ["a", "b"])
            waking.heard([Freed("tenant:ann", "day", 1), Freed("tenant:carol", "day", 1)])
            waking.heard([Freed("tenant:ann", "day", 1)])
            assert waking._job is not None
            await waking._job
            await waking.close()
            await store.close()

        asyncio.run(body())
        after: list[tuple[bytes, float]] = client.zrange(keys.parked_order(queue), 0, -1, withscores=True)
        woken = {name for name, at in after if at < dict(before)[name]}
        assert woken == {b"ann-0", b"ann-1", b"ann-2"}


def test_a_look_for_tasks_to_wake_is_bounded_and_the_rest_waits_for_its_time(redis_url: str) -> None:
    with connect(redis_url) as client:
        queue = keys.queue("a")
        park(client, *(f"bob-{n}" for n in range(opening.MOST_LOOKED_AT)), about=BOB, cause="money", queue=queue)
        park(client, "ann", about=ANN, cause="money", in_s=90, queue=queue)

        async def opened() -> list[int]:
            store = Store(redis_url)
            try:
                return [
                    await opening.open_some(store, queue, about=told, causes=("money",), most=2) for told in (ANN, BOB)
                ]
            finally:
                await store.close()

        assert asyncio.run(opened()) == [0, 2]
