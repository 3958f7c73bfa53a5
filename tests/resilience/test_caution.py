"""While the last call has failed, a process's others leave one by one; an answer or an open breaker ends that."""

from __future__ import annotations

import asyncio
import time

from fleet.errors import NotSoon, RateLimited
from fleet.resilience.caution import DOUBT_S
from tests.every import every
from tests.resilience.fleet_of_breakers import LIMIT, Member, member

CALLS = 20


async def ask(one: Member) -> list[asyncio.Task[bool]]:
    """Let many calls ask at once, and each go as far as it may."""
    asked = [asyncio.create_task(one.breakers.admit(LIMIT)) for _ in range(CALLS)]
    await asyncio.sleep(0)
    return asked


def left(asked: list[asyncio.Task[bool]]) -> int:
    return sum(task.done() for task in asked)


def test_calls_leave_one_by_one_after_a_failure_until_one_is_answered(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            assert left(await ask(one)) == CALLS
            await one.fail("a")
            began_s, asked = time.monotonic(), await ask(one)
            assert left(asked) == 0, "those under way tell soon"
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert time.monotonic() - began_s >= 0.8 * DOUBT_S
            assert left(asked) <= 1 + (time.monotonic() - began_s) / DOUBT_S
            await one.do_well()
            await asyncio.wait_for(asyncio.gather(*asked), DOUBT_S)
            assert left(await ask(one)) == CALLS

    asyncio.run(work())


def test_those_that_wait_hear_at_once_that_the_breaker_has_opened(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.fail("a", place=1)
            asked = await ask(one)
            await one.open()
            done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), DOUBT_S)
            assert every(isinstance(each, NotSoon) for each in done if each is not False)
            assert len([each for each in done if each is False]) <= 2

    asyncio.run(work())


def test_a_429_is_no_reason_to_doubt(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.fail("a", RateLimited("429"))
            assert left(await ask(one)) == CALLS

    asyncio.run(work())


def test_a_call_that_is_cancelled_while_it_waits_keeps_nobodys_turn(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.fail("a")
            asked = await ask(one)
            for task in asked[:-1]:
                task.cancel()
            assert await asyncio.wait_for(asked[-1], 2 * DOUBT_S) is False

    asyncio.run(work())


def test_where_failures_are_usual_one_more_lets_nobody_wait(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            for number in range(6):
                await one.fail(f"a{number}")
                await one.do_well()
            await one.fail("b")
            assert left(await ask(one)) == CALLS
            for _ in range(60):
                await one.do_well()
            await one.fail("c")
            asked = await ask(one)
            assert left(asked) == 0, "they are usual no more"
            await one.do_well()
            await asyncio.gather(*asked)

    asyncio.run(work())


def test_calls_that_wait_for_the_road_to_fill_again_leave_one_by_one_when_it_fails_once_more(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.open()
            await one.do_well(is_probe=True)
            asked = await ask(one)
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            await one.fail("a")
            before = left(asked)
            await asyncio.sleep(1.9 * DOUBT_S)
            assert left(asked) <= before + 3, "on the road alone 14 of them would have left by now"
            await one.do_well()
            await asyncio.wait_for(asyncio.gather(*asked), 2)

    asyncio.run(work())
