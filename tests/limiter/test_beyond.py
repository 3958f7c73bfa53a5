"""A limit of few calls at once whose calls hang, or whose breaker is open: who has a place, and who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.errors import NotSoon
from fleet.grants import Caller, Grant
from fleet.limiter import Limiter
from fleet.store import keys
from fleet.store.client import Store
from fleet.waits import Wait
from tests.every import every

LIMIT, OTHER = "provider/model/key", "provider/model/other"
PROBE = Caller("probe", is_probe=True)
OUTAGE = Wait("outage", 10.0, LIMIT, "its calls fail")
#: Far longer than a call waits for its next question here (s).
WAIT_S = 10.0


def run(url: str, body: Callable[[Limiter, Limiter, Store], Awaitable[Any]], in_flight: int = 2) -> Any:
    """Run `body` with the limiters of two processes."""

    async def main() -> Any:
        stores = Store(url), Store(url)
        settings = {name: LimitSettings(rpm=60_000, in_flight=in_flight) for name in (LIMIT, OTHER)}
        try:
            mine, other = (Limiter(store, settings, draw=lambda: 0.0) for store in stores)
            return await body(mine, other, stores[0])
        finally:
            for store in stores:
                await store.close()

    return asyncio.run(main())


async def granted(limiter: Limiter, caller: Caller | None = None, limit: str = LIMIT) -> Grant:
    """Return a call's grant that comes soon."""
    call = limiter.acquire(limit, tokens=1, timeout_s=WAIT_S, caller=caller or Caller("bot"))
    return await asyncio.wait_for(call, WAIT_S)


def waiting(limiter: Limiter, *limits: str, caller: Caller | None = None) -> asyncio.Task[Grant]:
    """Return a call that waits."""
    call = limiter.acquire(limits or LIMIT, tokens=1, timeout_s=600, caller=caller or Caller("bot"))
    return asyncio.create_task(call)


async def under_way(store: Store, limit: str = LIMIT) -> int:
    """Return how many calls have a place."""
    count: int = await store.command("ZCARD", keys.limit_keys(limit).leases)
    return count


async def tickets(store: Store) -> int:
    """Return how many calls wait in the order."""
    count: int = await store.command("ZCARD", keys.limit_keys(LIMIT).queue)
    return count


async def asked(limiter: Limiter) -> None:
    """Return once a call has asked again, which it does while it waits for a place."""
    before = limiter.questions
    async with asyncio.timeout(WAIT_S):
        while limiter.questions <= before + 1:
            await asyncio.sleep(0.01)


def test_where_all_calls_hang_one_probe_goes_beyond_them_and_the_next_one_when_it_is_over(redis_url: str) -> None:
    async def body(mine: Limiter, other: Limiter, store: Store) -> None:
        hung = [await granted(mine), await granted(other)]
        assert every(not (grant.is_beyond) for grant in hung)
        call = waiting(mine)
        await asked(mine)
        assert not call.done(), "a call that is no probe has no such place"
        probe = await granted(other, PROBE)
        assert (probe.is_beyond, await under_way(store)) == (True, 3)
        second = waiting(other, caller=PROBE)
        await asked(other)
        assert not second.done(), "one more than the limit, over the whole fleet"
        other.settle(probe, used_tokens=1)
        assert (await asyncio.wait_for(second, WAIT_S)).is_beyond
        assert not call.done()
        call.cancel()
        await asyncio.wait([call])

    run(redis_url, body)


def test_a_probe_that_finds_a_place_within_the_limit_goes_as_any_call(redis_url: str) -> None:
    async def body(mine: Limiter, _: Limiter, __: Store) -> Grant:
        await granted(mine)
        return await granted(mine, PROBE)

    assert not run(redis_url, body).is_beyond


def test_the_place_of_a_probe_whose_process_died_is_free_once_its_lease_ends(redis_url: str) -> None:
    async def body(mine: Limiter, other: Limiter, store: Store) -> None:
        await granted(mine)
        dead = await granted(other, PROBE)
        leases = keys.limit_keys(LIMIT).leases
        await store.command("ZADD", leases, "XX", 1, dead.ticket)  # nobody settles it, and its time has passed
        assert (await granted(mine, PROBE)).is_beyond
        assert await store.command("ZSCORE", leases, dead.ticket) is None

    run(redis_url, body, in_flight=1)


def test_a_call_that_was_let_go_holds_no_place_and_frees_no_second_one_when_it_ends(redis_url: str) -> None:
    async def body(mine: Limiter, _: Limiter, store: Store) -> None:
        hung, _second = await granted(mine), await granted(mine)
        third = waiting(mine)
        mine.let_go(hung)
        await asyncio.wait_for(third, WAIT_S)
        assert await under_way(store) == 2
        mine.settle(hung, used_tokens=1)  # its answer came all the same
        mine.let_go(hung)
        fourth = waiting(mine)
        await asked(mine)
        assert (fourth.done(), await under_way(store)) == (False, 2)
        fourth.cancel()
        await asyncio.wait([fourth])
        mine.let_go(Grant(LIMIT, 1, 0))  # what went without a ticket has no place
        mine.let_go(Grant("nobody/knows/it", 1, 0, ticket="one"))

    run(redis_url, body)


def test_who_waits_for_a_place_leaves_with_the_reason_once_it_is_shut_and_a_probe_stays(redis_url: str) -> None:
    async def body(mine: Limiter, _: Limiter, store: Store) -> None:
        held = [await granted(mine) for _ in range(2)] + [await granted(mine, PROBE)]
        calls = [waiting(mine) for _ in range(5)]
        probe = waiting(mine, caller=PROBE)
        await asked(mine)
        assert not [call for call in calls if call.done()]
        mine.shut = {LIMIT: OUTAGE}.get
        told = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), WAIT_S)
        assert [type(one) for one in told] == [NotSoon] * 5
        assert {one.wait() for one in told if isinstance(one, NotSoon)} == {OUTAGE}
        assert (probe.done(), await tickets(store)) == (False, 1), "they leave nothing behind"
        mine.settle(held[-1], used_tokens=1)
        assert (await asyncio.wait_for(probe, WAIT_S)).is_beyond

    run(redis_url, body)


@pytest.mark.parametrize("is_other_shut", [False, True])
def test_who_may_go_with_several_keys_leaves_only_once_all_of_them_are_shut(
    redis_url: str, is_other_shut: bool
) -> None:
    async def body(mine: Limiter, _: Limiter, __: Store) -> None:
        await granted(mine)
        last = await granted(mine, limit=OTHER)
        call = waiting(mine, LIMIT, OTHER)
        await asked(mine)
        mine.shut = {LIMIT: OUTAGE, OTHER: Wait("outage", 5.0, OTHER) if is_other_shut else None}.get
        if not is_other_shut:
            await asked(mine)
            mine.settle(last, used_tokens=1)
            assert (await asyncio.wait_for(call, WAIT_S)).limit == OTHER
            return
        with pytest.raises(NotSoon) as caught:
            await asyncio.wait_for(call, WAIT_S)
        assert caught.value.wait().opens_at == 5.0, "the one that opens first"

    run(redis_url, body, in_flight=1)
