"""Breakers on a real Redis: what opens one, who probes, what closes it, and what a process that dies leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from fleet.errors import (
    BotsQuarantined,
    ConfigurationError,
    KeyRejected,
    KeySpent,
    MachineExhausted,
    NotServed,
    NotSoon,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
    Waits,
)  # fmt: skip
from fleet.resilience.layouts import STATE, BreakerAt
from fleet.resilience.rules import (
    FIRST_LASTING_US,
    IN_A_ROW,
    LONGEST_LASTING_US,
    MOST_IN_A_ROW,
    PROBE_US,
    YOUNG_IN_A_ROW,
)
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.resilience.fleet_of_breakers import LIMIT, Member, member

PROBE_S = PROBE_US / 1e6
OUTAGE = ProviderUnavailable("api: expected an answer, got 503")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(work())


def shift(url: str, *, back_s: float, limit: str = LIMIT, **places: float) -> None:
    """Let time pass for a breaker: move all of its times back; `places` are set to numbers."""
    with connect(url) as client:
        state = list(STATE.unpack(client.hget(keys.breaker(limit), "state") or b""))[1:]  # type: ignore[arg-type]
        for name in (
            "OPENED_AT", "OPENS_AT", "CLOSED_AT", "LIFT_AT", "RUN_AT", "WELL_AT", "OTHER_WELL_AT", "FAILED_AT",
            "TOKENS_AT", "WRITTEN_AT",
        ):  # fmt: skip
            at = getattr(BreakerAt, name) - 1
            state[at] = max(1.0, state[at] - back_s * 1e6) if state[at] else 0.0
        for name, number in places.items():
            state[getattr(BreakerAt, name) - 1] = number
        client.hset(keys.breaker(limit), "state", STATE.pack(state))


def forget(who: Member) -> None:
    """Let a process ask Redis again, as it does a second after it has heard."""
    who.breakers._known[LIMIT].believed_until = 0.0


async def refused(who: Member) -> NotSoon:
    """Return why a call may not go."""
    with pytest.raises(NotSoon) as found:
        await who.breakers.admit(LIMIT)
    return found.value


# -- what opens it


def test_failures_in_a_row_of_different_tasks_open_it_and_everybody_is_told_why(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            for k in range(YOUNG_IN_A_ROW - 1):
                assert (await one.fail(f"task {k}", place=k + 1)).wait is None
            wait = (await one.fail("the last", place=YOUNG_IN_A_ROW)).wait
            assert wait is not None
            assert (wait.cause, wait.about, wait.told, wait.is_everyones) == ("outage", LIMIT, str(OUTAGE), True)
            assert wait.opens_at is not None
            assert wait.opens_at - time.time() <= PROBE_S
            assert wait.probe_every_s == PROBE_S
            assert one.breakers.standing(LIMIT) == wait
            assert (await refused(one)).wait() == wait
            assert one.turns == [wait]
            assert other.breakers.standing(LIMIT) is None  # it has not heard yet: its first failure says so
            assert (await other.fail("elsewhere")).wait == wait
            assert other.turns == []

    run(work)


def test_a_run_that_has_lasted_a_second_needs_fewer_failures(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            for k in range(IN_A_ROW - 1):
                assert (await one.fail(f"task {k}", place=k + 1)).wait is None
            shift(redis_url, back_s=1.5)
            assert (await one.fail("the last", place=IN_A_ROW)).wait is not None

    run(work)


def test_what_one_task_alone_meets_again_and_again_opens_nothing(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            for k in range(50):
                assert (await one.fail("the bad one", place=k + 1)).wait is None
            for k in range(20):  # nor with others who do well, by its share of the window
                await one.tell("good", place=60 + 2 * k)
                assert (await one.fail("the bad one", place=61 + 2 * k)).wait is None

    run(work)


def test_a_success_of_a_call_that_was_sent_later_ends_a_run_and_one_sent_before_does_not(redis_url: str) -> None:
    async def work(place: int, opens: bool) -> None:
        async with member(redis_url) as one:
            for k in range(YOUNG_IN_A_ROW - 1):
                await one.fail(f"task {k}", place=100 + k)
            await one.tell(place=place)
            assert ((await one.fail("one more", place=100 + YOUNG_IN_A_ROW)).wait is not None) is opens

    run(lambda: work(105, opens=False))
    with connect(redis_url) as client:
        client.flushall()
    run(lambda: work(99, opens=True))


def test_failures_among_calls_that_are_still_under_way_are_no_run(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            for k in range(40):  # one in three of what was sent; nothing is known of the others yet
                assert (await one.fail(f"task {k}", place=3 * k + 1)).wait is None or k >= 19

    run(work)


def test_a_burst_of_30_percent_errors_opens_nothing_and_half_of_them_does(redis_url: str) -> None:
    import random

    async def opened(share: float, calls: int) -> bool:
        dice = random.Random(7)
        async with member(redis_url) as one:
            for place in range(1, calls + 1):
                if dice.random() < share:
                    if (await one.fail(f"task {place}", place=place)).wait is not None:
                        return True
                else:
                    one.breakers._known[LIMIT].report_at = 0.0
                    await one.do_well(f"task {place}", place=place)
        return False

    async def work() -> None:
        assert not await opened(0.3, 3000)
        assert await opened(0.6, 1000)

    run(work)


def test_failures_are_usual_so_a_longer_run_is_needed(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            place = 0
            for k in range(30):
                await one.fail(f"task {k}", place=place + 1)
                await one.tell(f"good {k}", place=place + 3)
                place += 3
            shift(redis_url, back_s=2)
            for k in range(YOUNG_IN_A_ROW):
                place += 1
                assert (await one.fail(f"more {k}", place=place)).wait is None
            shift(redis_url, back_s=2)
            needed = YOUNG_IN_A_ROW
            while (await one.fail(f"still more {needed}", place=place + 1)).wait is None:
                place, needed = place + 1, needed + 1
            assert YOUNG_IN_A_ROW < needed < MOST_IN_A_ROW

    run(work)


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("429", retry_after_s=400), RateLimited("429", parallel=True), Relearnt("no"),
        MachineExhausted("no"), BotsQuarantined("no"), ConfigurationError("a bad file"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_is_not_the_providers_or_the_keys_opens_nothing(redis_url: str, error: Waits) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            for k in range(60):
                assert (await one.fail(f"task {k}", error, place=k)).wait is None

    run(work)


@pytest.mark.parametrize(
    ("error", "cause"),
    [(KeyRejected("401"), "key"), (KeySpent("402"), "credit"), (NotServed("404"), "configuration")],
)
def test_a_key_or_an_address_that_is_not_taken_opens_it_at_once(redis_url: str, error: Waits, cause: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            wait = (await one.fail("only", error)).wait
            assert wait is not None
            assert (wait.cause, wait.is_lasting) == (cause, True)
            assert wait.opens_at is not None
            assert 45 < wait.opens_at - time.time() <= 61

    run(work)


def test_a_key_that_others_did_well_with_a_moment_ago_takes_more_than_a_blocked_prompt(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            place = 0
            for k in range(20):  # one prompt in four is refused by a firewall, and now and then two in a row
                await one.tell(f"good {k}", times=5, place=place + 6)
                place += 8
                for refused in range(1 + k % 2):
                    error = KeyRejected("403")
                    assert (await one.fail(f"blocked {k}.{refused}", error, place=place - 1 + refused)).wait is None
            for dead in range(12):
                place += 1
                if (await one.fail(f"somebody {dead}", KeyRejected("401"), place=place)).wait is not None:
                    break
            assert 3 <= dead < 12

    run(work)


def test_a_key_that_nobody_did_well_with_for_five_seconds_opens_it_at_once_again(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.tell("good", place=1)
            assert (await one.fail("somebody", KeyRejected("401"), place=2)).wait is None
            shift(redis_url, back_s=6)
            assert (await one.fail("somebody", KeyRejected("401"), place=3)).wait is not None

    run(work)


def test_slow_answers_count_as_failures_only_while_others_got_none_in_time(redis_url: str) -> None:
    async def slow(one: Member, calls: int) -> bool:
        for k in range(calls):
            one.breakers.did_well(LIMIT, who=f"slow {k}", seconds=60, output_tokens=100, place=0)
            await one.store.command("PING")
            if one.breakers.standing(LIMIT) is not None:
                return True
        return False

    async def work() -> None:
        async with member(redis_url) as one:
            for k in range(40):
                one.breakers.did_well(LIMIT, who=f"usual {k}", seconds=2 + k / 20, output_tokens=50 + k)
            assert not await slow(one, 60)
            await one.fail("hung", ProviderUnavailable("no answer", timed_out=True))
            assert await slow(one, 200)

    run(work)


# -- who probes, and when


def test_one_probe_a_second_goes_over_the_whole_fleet(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as two:
            await one.open()
            await two.fail("elsewhere")
            ended, probes = time.monotonic() + 20, list[float]()
            while len(probes) < 2:
                assert time.monotonic() < ended, "expected two probes"
                for process in (one, two):
                    for _ in range(5):
                        try:
                            assert await process.breakers.admit(LIMIT)
                        except NotSoon:
                            continue
                        probes.append(time.monotonic())
                await asyncio.sleep(0.01)
            assert len(probes) == 2  # none of them has ended: a probe whose process died holds nobody up
            assert probes[1] - probes[0] > 0.9

    run(work)


def test_a_probe_that_does_well_closes_it_and_the_gates_are_opened_once_it_is_told(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            await one.open()
            await other.fail("elsewhere")
            shift(redis_url, back_s=2)
            forget(other)
            assert await other.breakers.admit(LIMIT)
            await other.do_well("probe", is_probe=True)
            await asyncio.gather(*[other.store.command("PING") for _ in range(2)])
            assert other.turns == [None]
            assert LIMIT in other.closed
            assert other.breakers.standing(LIMIT) is None
            forget(one)
            assert not await one.breakers.admit(LIMIT)  # it hears of it when it asks next, within a second
            assert one.breakers.standing(LIMIT) is None

    run(work)


def test_an_answer_to_a_call_that_was_sent_before_it_opened_does_not_close_it(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.open()
            await one.do_well("old", seconds=30)
            assert one.turns[-1] is not None
            shift(redis_url, back_s=5)
            await one.do_well("new", seconds=1)
            assert one.turns[-1] is None

    run(work)


def test_a_probe_that_fails_leaves_it_open_and_retry_after_is_a_floor(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.open()
            shift(redis_url, back_s=2)
            forget(one)
            assert await one.breakers.admit(LIMIT)
            busy = ProviderUnavailable("503", retry_after_s=30)
            wait = (await one.fail("probe", busy, is_probe=True)).wait
            assert wait is not None
            assert wait.opens_at is not None
            assert 15 < wait.opens_at - time.time() < 31

    run(work)


def test_a_dead_key_is_tried_after_a_minute_then_ever_later_up_to_a_quarter_of_an_hour(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            pauses = []
            wait = (await one.fail("first", KeyRejected("401"))).wait
            for _ in range(7):
                assert wait is not None
                assert wait.opens_at is not None
                pauses.append(round(wait.opens_at - time.time()))
                shift(redis_url, back_s=pauses[-1] + 1)
                forget(one)
                assert await one.breakers.admit(LIMIT)
                wait = (await one.fail("probe", KeyRejected("401"), is_probe=True)).wait
            first, longest = FIRST_LASTING_US // 1_000_000, LONGEST_LASTING_US // 1_000_000
            assert pauses == pytest.approx([first, 2 * first, 4 * first, 8 * first, longest, longest, longest], abs=20)

    run(work)


def test_an_account_that_is_filled_again_at_a_named_time_is_not_tried_before(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            at = time.time() + 7200
            wait = (await one.fail("first", KeySpent("402", passes_at=at))).wait
            assert wait is not None
            assert wait.opens_at == pytest.approx(at, abs=0.01)

    run(work)


def test_a_probe_that_was_not_sent_comes_back_and_the_next_keeps_its_distance(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.fail("first", KeyRejected("401"))
            shift(redis_url, back_s=61)
            forget(one)
            assert await one.breakers.admit(LIMIT)
            forget(one)
            await refused(one)
            one.breakers.spare(LIMIT)
            await one.store.command("PING")
            forget(one)
            opens_at = (await refused(one)).passes_at
            assert opens_at is not None
            assert opens_at - time.time() <= PROBE_S
            shift(redis_url, back_s=PROBE_S)
            forget(one)
            assert await one.breakers.admit(LIMIT)

    run(work)


# -- other settings, another key


def test_another_key_or_setting_closes_it_at_once_at_the_start_of_a_process(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url, "aaaa") as old:
            await old.fail("first", KeyRejected("401"))
        async with member(redis_url, "aaaa") as same:
            assert (await refused(same)).wait().cause == "key"  # a restart alone changes nothing
        async with member(redis_url, "bbbb") as new:
            assert new.turns == [None]
            await new.store.command("PING")
            assert new.closed == [LIMIT]
            assert not await new.breakers.admit(LIMIT)

    run(work)


# -- the road fills again


def test_after_closing_calls_leave_at_a_pace_that_doubles(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as two:
            await one.open()
            await two.fail("elsewhere")
            shift(redis_url, back_s=2)
            forget(one)
            assert await one.breakers.admit(LIMIT)
            await one.do_well("probe", is_probe=True)
            forget(two)
            started, left = time.monotonic(), []

            async def go(process: Member) -> None:
                assert not await process.breakers.admit(LIMIT)
                left.append(time.monotonic() - started)

            await asyncio.gather(*[go(process) for _ in range(32) for process in (one, two)])
            assert len(left) == 64
            assert left[7] > 0.6  # 8 calls = 3 doublings of 0.25 s
            assert left[63] > 1.3

    run(work)


# -- the retry budget


def test_retries_are_paid_for_by_successes_and_a_storm_of_them_is_cut(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.tell("good", times=40, place=1000)
            rulings = [await one.fail("one task", since_s=1) for _ in range(60)]
            free = [ruling for ruling in rulings if not ruling.retry_at]
            assert 25 <= len(free) <= 33  # 10 s of the floor, and half of 41 successes
            later = [ruling.retry_at - time.time() for ruling in rulings if ruling.retry_at]
            assert later == sorted(later)  # in turn
            assert 10 < later[-1] - later[0] < 61

    run(work)


def test_successes_that_nobody_reported_pay_with_the_next_failure(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            one.breakers._known[LIMIT].report_at = float("inf")
            for k in range(50):
                await one.do_well(f"task {k}", place=k + 1)
            assert [(await one.fail("bad", place=60 + k)).retry_at for k in range(30)] == [0.0] * 30

    run(work)


# -- whose fault


def test_others_did_well_only_if_other_tasks_did_since_then(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            assert not (await one.fail("a", since_s=60)).counts
            await one.tell("a")
            assert not (await one.fail("a", since_s=60)).counts  # its own success proves nothing
            await other.tell("b")
            assert (await one.fail("a", since_s=60)).counts
            assert not (await one.fail("b", since_s=0.0)).counts
            await one.tell("b")
            assert (await one.fail("b", since_s=60)).counts  # a's
            shift(redis_url, back_s=100)
            assert not (await one.fail("a", since_s=60)).counts

    run(work)


def test_a_failure_counts_as_one_where_failures_are_rare_and_less_where_they_are_usual(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            await other.tell("b", times=97)
            assert (await one.fail("a", place=1)).counts == 1
            for k in range(3):
                await other.tell("b", times=13, place=100 * k + 100)
                for n in range(20):
                    ruling = await one.fail(f"task {k}-{n}", place=100 * k + 101 + n)
                    await other.tell("b", place=100 * k + 101 + n)
            assert ruling.wait is None
            assert 0.5 < ruling.counts < 0.7  # 61 of 300: seven in a row are as unlikely as four where 6% fail

    run(work)


# -- what breaks


def test_in_health_nothing_is_asked_and_successes_are_told_every_ten_seconds(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.do_well("first")
            before = one.store.writes
            for k in range(1000):
                assert one.breakers.standing(LIMIT) is None
                assert not await one.breakers.admit(LIMIT)
                one.breakers.did_well(LIMIT, who=f"task {k}", seconds=1.0, output_tokens=10)
            await asyncio.sleep(0)
            assert one.store.writes == before

    run(work)


def test_whoever_closed_it_and_died_before_the_gates_were_open_is_replaced(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            await one.open()
            shift(redis_url, back_s=2)
            with connect(redis_url) as client:  # as the script leaves it when the process dies on its reply
                state = list(STATE.unpack(client.hget(keys.breaker(LIMIT), "state") or b""))[1:]  # type: ignore[arg-type]
                state[BreakerAt.OPENED_AT - 1] = 0.0
                state[BreakerAt.LIFT_AT - 1] = state[BreakerAt.WRITTEN_AT - 1]
                client.hset(keys.breaker(LIMIT), "state", STATE.pack(state))
            other.closed.clear()
            await other.tell("good")
            await other.store.command("PING")
            assert other.closed == [LIMIT]
            state = STATE.unpack(await other.store.command("HGET", keys.breaker(LIMIT), "state"))
            assert state[BreakerAt.LIFT_AT] == 0

    run(work)


def test_a_clock_that_is_set_back_moves_all_times_with_it(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.open()
            shift(redis_url, back_s=-3600)  # everything was written an hour ahead
            forget(one)
            wait = (await refused(one)).wait()
            assert wait.opens_at is not None
            assert wait.opens_at - time.time() < 2
            shift(redis_url, back_s=2)
            forget(one)
            assert await one.breakers.admit(LIMIT)

    run(work)


def test_a_failure_while_redis_is_away_counts_against_nobody(own_redis: Any) -> None:
    async def work() -> None:
        async with member(own_redis.url) as one:
            own_redis.kill()
            one.store._timeout_s = 0.2
            ruling = await one.fail("a")
            assert (ruling.wait, ruling.retry_at, ruling.counts) == (None, 0.0, 0.0)
            one.breakers.did_well(LIMIT, who="b", seconds=1, output_tokens=1)

    run(work)


def test_a_breaker_expires_and_lives_with_its_limit(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.fail("a", KeySpent("402", passes_at=time.time() + 10 * 86_400))

    run(work)
    with connect(redis_url) as client:
        assert 10.5 * 86_400 < client.ttl(keys.breaker(LIMIT)) <= 11 * 86_400
        assert keys.breaker(LIMIT).startswith(keys.limit(LIMIT))


def test_a_thousand_failures_a_second_cost_redis_little(redis_url: str) -> None:
    async def work() -> None:
        store = Store(redis_url)
        async with member(redis_url) as one:
            before = float((await store.command("INFO", "cpu")).split(b"used_cpu_user:")[1].split()[0])
            await asyncio.gather(*[one.fail(f"task {k}", place=k + 1) for k in range(1000)])
            after = float((await store.command("INFO", "cpu")).split(b"used_cpu_user:")[1].split()[0])
        await store.close()
        assert after - before < 0.5  # measured: 0.05 s

    run(work)
