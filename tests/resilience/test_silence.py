"""Breakers of APIs that hang, on a real Redis: what opens and closes one where nothing is answered, and its probes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fleet.errors import NotSoon, ProviderUnavailable
from fleet.resilience import read_breakers
from fleet.resilience.rules import (
    PROBE_US,
    PROBES_AT_PACE,
    QUIET_PROCESSES,
    QUIET_US,
    SILENT_US,
    SLOWEST_PROBE_US,
)
from fleet.store import keys
from fleet.waits import Wait
from tests.resilience.fleet_of_breakers import LIMIT, Member, member
from tests.resilience.test_breakers import forget, shift

TOLD = "8 calls of a worker had no answer for 13 s"
SILENT_S = SILENT_US / 1e6
PROBE_S, SLOWEST_S = PROBE_US / 1e6, SLOWEST_PROBE_US / 1e6
LATE = ProviderUnavailable("api: no answer within 120 s", timed_out=True)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


async def hang(who: Member, *, for_s: float = 60.0, calls: int = 3, enough: int = 3) -> Wait | None:
    return await who.breakers.hangs(LIMIT, TOLD, for_s=for_s, calls=calls, enough=enough)


def test_silence_opens_it_and_everybody_is_told_why(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            await one.tell()
            shift(redis_url, back_s=61)
            wait = await hang(one)
            assert wait is not None
            assert (wait.cause, wait.told, wait.probe_every_s) == ("outage", TOLD, PROBE_S)
            assert one.turns == [wait]
            assert await hang(other) is not None, "it hears what is known"
            assert other.turns == []
            (view,) = await read_breakers(one.store, [LIMIT])
            assert (view.state, view.is_silent, view.failed) == ("open", True, 0)

    run(work)


@pytest.mark.parametrize(("well_s", "for_s"), [(SILENT_S - 2, 9.0), (50.0, 60.0)])
def test_it_stays_closed_while_others_are_answered_or_may_not_have_told_it_yet(
    redis_url: str, well_s: float, for_s: float
) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            await other.tell()
            shift(redis_url, back_s=well_s)
            assert await hang(one, for_s=for_s) is None
            assert not one.breakers.is_open(LIMIT)

    run(work)


def test_an_answer_that_this_process_has_not_told_yet_counts(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.tell()
            await one.do_well("untold")
            shift(redis_url, back_s=100)
            assert await hang(one) is None

    run(work)


def test_any_answer_closes_it_also_one_to_a_call_of_before_in_a_process_that_others_outlive(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as other:
            async with member(redis_url) as one:
                assert await hang(one) is not None
            assert await hang(other) is not None
            shift(redis_url, back_s=1)
            await other.do_well("slow", seconds=90.0)
            await other.store.command("PING")
            assert other.turns == [None]
            assert not other.breakers.is_open(LIMIT)
            assert await hang(other) is None, "silence counts from the closing on"

    run(work)


def test_an_answer_of_before_closes_none_that_calls_failed_at_once_under_after_the_silence(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await hang(one)
            shift(redis_url, back_s=5)
            forget(one)
            assert await one.breakers.admit(LIMIT)
            await one.fail("probe", is_probe=True)
            await one.do_well("slow", seconds=90.0)
            assert one.breakers.is_open(LIMIT)

    run(work)


def test_calls_of_several_workers_that_each_see_too_few_make_one_silence(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as two, member(redis_url) as three:
            for _ in range(3):
                assert await hang(one, calls=1) is None, "what one says again counts once"
            assert await hang(two, calls=1) is None
            wait = await hang(three, calls=1)
            assert wait is not None
            assert wait.told == f"{TOLD}; 3 of 3 workers together"

    run(work)


def test_what_workers_said_some_seconds_ago_is_no_part_of_a_silence(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            seconds, microseconds = await one.store.command("TIME")
            old_us = int(seconds) * 1_000_000 + int(microseconds) - QUIET_US
            await one.store.command("HSET", keys.breaker(LIMIT), "quiet", f"gone:9:{old_us} broken")
            assert await hang(one, calls=2) is None
            quiet = await one.store.command("HGET", keys.breaker(LIMIT), "quiet")
            assert quiet.count(b":") == 2, "and it is forgotten"

    run(work)


def test_no_more_workers_are_remembered_than_a_silence_takes(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            for number in range(3 * QUIET_PROCESSES):
                one.breakers._process = f"w{number}"
                assert await hang(one, calls=1, enough=1000) is None
            quiet = await one.store.command("HGET", keys.breaker(LIMIT), "quiet")
            assert len(quiet.split()) == QUIET_PROCESSES

    run(work)


async def probe(who: Member, url: str) -> float:
    """Let time pass until a probe goes; return how long it took."""
    step_s, passed_s = 0.2, 0.0
    while passed_s < 2 * SLOWEST_S:
        forget(who)
        try:
            assert await who.breakers.admit(LIMIT)
            return passed_s
        except NotSoon:
            shift(url, back_s=step_s)
            passed_s += step_s
    raise AssertionError(f"expected a probe within {2 * SLOWEST_S} s, got none")


def test_probes_that_hang_are_followed_ever_more_slowly_and_one_that_fails_at_once_ends_that(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await hang(one)
            waits = [await probe(one, redis_url) for _ in range(PROBES_AT_PACE + 15)]
            assert max(waits[:PROBES_AT_PACE]) <= PROBE_S + 0.3
            assert sum(waits[PROBES_AT_PACE:]) > 100, "15 probes of a fleet in two minutes, not 71"
            assert waits[-1] <= SLOWEST_S + 0.3
            for _ in range(17):
                await one.fail("probe", LATE, is_probe=True)
            await probe(one, redis_url)
            assert await probe(one, redis_url) <= PROBE_S + 0.3, "those that have ended hold nobody up"
            for _ in range(15):
                await probe(one, redis_url)
            await one.fail("probe", is_probe=True)
            assert await probe(one, redis_url) <= PROBE_S + 0.3
            assert await probe(one, redis_url) <= PROBE_S + 0.3

    run(work)


def test_calls_of_before_the_closing_that_time_out_behind_it_open_nothing(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await hang(one)
            shift(redis_url, back_s=2)
            await one.do_well("probe", is_probe=True)
            await one.store.command("PING")
            shift(redis_url, back_s=20)
            for k in range(40):
                ruling = await one.breakers.failed(LIMIT, LATE, who=f"t{k}", since_s=120, lasted_s=120, place=k + 1)
                assert ruling.wait is None
            (view,) = await read_breakers(one.store, [LIMIT])
            assert view.calls["late"] == 40
            for k in range(20):
                ruling = await one.breakers.failed(LIMIT, LATE, who=f"t{k}", since_s=10, lasted_s=10, place=k + 50)
            assert ruling.wait is not None, "those that were sent since then do"

    run(work)


def test_who_doubts_tries_as_seldom_as_probes_go_over_the_whole_fleet_and_believes_what_others_hear(
    redis_url: str,
) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            for who in (one, other):
                who.breakers._known[LIMIT].answered_at = who.breakers._clock() - 1.0
            assert await one.breakers.turn_in_silence(LIMIT, left_s=60) == 0
            pause_s = await other.breakers.turn_in_silence(LIMIT, left_s=60)
            assert pause_s is not None
            assert PROBE_S - 0.5 < pause_s <= PROBE_S
            assert not one.breakers.is_open(LIMIT), "what a process doubts opens nothing"
            assert not await one.breakers.admit(LIMIT), "who does not doubt goes"
            shift(redis_url, back_s=PROBE_S)
            assert await other.breakers.turn_in_silence(LIMIT, left_s=60) == 0, "whatever became of the one before"
            await other.do_well("tried")
            assert await one.breakers.turn_in_silence(LIMIT, left_s=60) is None, "the first answer is told at once"

    run(work)


def test_the_last_call_that_left_before_the_doubt_was_a_try(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            for who in (one, other):
                who.breakers._known[LIMIT].answered_at = who.breakers._clock() - 1.0
            pause_s = await one.breakers.turn_in_silence(LIMIT, left_s=0.2)
            assert pause_s == pytest.approx(PROBE_S - 0.2, abs=0.1)
            shift(redis_url, back_s=0.3)
            pause_s = await other.breakers.turn_in_silence(LIMIT, left_s=0.9)
            assert pause_s == pytest.approx(PROBE_S - 0.5, abs=0.1), "no sooner than after the last of all"
            shift(redis_url, back_s=PROBE_S - 0.5)
            assert await one.breakers.turn_in_silence(LIMIT, left_s=PROBE_S) == 0
            await other.do_well("answered")
            assert await one.breakers.turn_in_silence(LIMIT, left_s=0.2) is None, "others are heard at once"

    run(work)


def test_who_doubts_hears_of_an_open_breaker(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            await hang(other)
            assert (await one.breakers.turn_in_silence(LIMIT, left_s=60) or 0) > 0
            assert one.breakers.is_open(LIMIT)

    run(work)
