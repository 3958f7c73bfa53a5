"""Calls of an API that falls silent: how few are sent into it, and how soon they go on; on a loop, with no Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from fleet.errors import NotSoon
from fleet.waits import Wait
from fleet.workers.silence import restraint as module
from fleet.workers.silence.answer_times import KEPT
from fleet.workers.silence.restraint import Restraint
from fleet.workers.silence.under_way import DOUBTED_S, LOOK_EVERY_S, UnderWay
from tests.workers.fakes import FakeBreakers

#: Calls that outlast all answers that are kept, from which on it is no accident.
ENOUGH = 3
LIMIT = "alpha/m-1/default"


@dataclass(frozen=True)
class One:
    """A call of a task."""

    number: int
    who: str = ""
    pool: str = "research"
    kind: str = "qa"


def known(*, answers: int = KEPT, slowest_s: float = 0.5, kind: str = "qa", now: float = 0.0) -> UnderWay:
    """Return calls of which it is well known how long they take."""
    calls = UnderWay()
    for number in range(answers):
        calls.sent(LIMIT, One(-number, kind=kind), now - slowest_s)
        calls.ended(LIMIT, One(-number, kind=kind), now, is_answered=True)
    return calls


def test_it_is_in_doubt_whether_an_api_answers_once_several_calls_in_a_row_take_longer_than_any_before() -> None:
    calls = known()
    for number in range(10):
        calls.sent(LIMIT, One(number), 10.0 + number / 100)
    assert calls.doubted_s(LIMIT, 10.45) == 0
    assert calls.doubted_s(LIMIT, 10.53) == pytest.approx(0.53), "since the first of them left"
    calls.ended(LIMIT, One(9), 10.6, is_answered=True)
    assert calls.doubted_s(LIMIT, 10.6) == 0, "a call that left after them is answered"


def test_answers_to_calls_that_left_before_prove_nothing_and_neither_do_refused_ones_to_none() -> None:
    calls = known()
    calls.sent(LIMIT, One(100), 9.9)
    for number in range(ENOUGH):
        calls.sent(LIMIT, One(number), 10.0)
    calls.ended(LIMIT, One(100), 10.4, is_answered=True)
    assert calls.doubted_s(LIMIT, 10.6) > 0
    calls.ended(LIMIT, One(0), 11.0, is_answered=False)
    assert calls.doubted_s(LIMIT, 11.1) == 0, "one that timed out is not under way, and two are too few"


def test_a_model_that_now_takes_longer_is_known_as_slow_with_its_first_answer() -> None:
    calls = known()
    for number in range(20):
        calls.sent(LIMIT, One(number), 10.0 + number / 10)
    assert calls.doubted_s(LIMIT, 14.0) > 0
    calls.ended(LIMIT, One(0), 15.0, is_answered=True)
    assert calls.doubted_s(LIMIT, 15.0) == 0


@pytest.mark.parametrize("why", ["unknown class", "few calls", "too short"])
def test_nothing_is_in_doubt_where_nobody_knows_what_is_usual_or_too_little_has_happened(why: str) -> None:
    calls = known(slowest_s=0.01 if why == "too short" else 0.5)
    for number in range(ENOUGH - (why == "few calls")):
        calls.sent(LIMIT, One(number, kind="essay" if why == "unknown class" else "qa"), 10.0)
    assert calls.doubted_s(LIMIT, 10.0 + (0.9 * DOUBTED_S if why == "too short" else 60)) == 0
    assert calls.doubted_s("another/m/default", 10.0) == 0


def test_in_health_calls_under_way_are_gone_over_a_few_times_a_second_whoever_asks() -> None:
    calls = known()
    looks = 0

    class Counted(dict[Any, float]):
        def items(self) -> Any:
            nonlocal looks
            looks += 1
            return super().items()

    api = calls._apis[LIMIT]
    api.sent = Counted(api.sent)
    for step in range(1000):
        assert calls.doubted_s(LIMIT, 20.0 + step / 1000) == 0
    assert looks <= 1 / LOOK_EVERY_S + 1


def silent(work: Callable[[Restraint, UnderWay, FakeBreakers], Coroutine[Any, Any, None]], **fakes: Any) -> None:
    """Run a test while an API is silent."""

    async def run() -> None:
        now = asyncio.get_running_loop().time()
        calls, breakers = known(now=now - 10), FakeBreakers(**fakes)
        for number in range(ENOUGH):
            calls.sent(LIMIT, One(number), now - 2)
        restraint = Restraint(calls, breakers, lambda: 1000.0)
        assert restraint.doubts(LIMIT)
        assert not restraint.trusted([LIMIT])
        assert restraint.trusted([LIMIT, "other/m/default"]) == ["other/m/default"]
        await work(restraint, calls, breakers)

    asyncio.run(run())


def test_one_question_serves_all_who_wait_and_the_first_answer_lets_all_go_on() -> None:
    async def work(restraint: Restraint, calls: UnderWay, breakers: FakeBreakers) -> None:
        waiting = [asyncio.ensure_future(restraint.wait(LIMIT, pool="research", patience_s=60)) for _ in range(50)]
        done, rest = await asyncio.wait(waiting, timeout=0.05)
        assert [task.result() for task in done] == [True], "the one that tries"
        assert breakers.asked == 2
        assert restraint.waiting() == {"research": {LIMIT: 49}}
        for number in range(ENOUGH):
            calls.ended(LIMIT, One(number), asyncio.get_running_loop().time(), is_answered=True)
        restraint.answered(LIMIT)
        assert await asyncio.wait_for(asyncio.gather(*rest), 1) == [False] * 49
        assert not await restraint.wait(LIMIT, pool="research", patience_s=60)
        assert restraint.waiting() == {}

    silent(work, turns=[0.0, 30.0])


def test_who_hears_that_others_are_answered_believes_it() -> None:
    async def work(restraint: Restraint, calls: UnderWay, breakers: FakeBreakers) -> None:
        assert not await restraint.wait(LIMIT, pool="research", patience_s=60)
        assert not restraint.doubts(LIMIT)

    silent(work, turns=[None])


def test_a_call_without_patience_is_told_why_and_stops_nobody_else() -> None:
    async def work(restraint: Restraint, calls: UnderWay, breakers: FakeBreakers) -> None:
        with pytest.raises(NotSoon) as found:
            await restraint.wait(LIMIT, pool="research", patience_s=0.05)
        wait = found.value.wait()
        assert (wait.cause, wait.about, wait.is_everyones) == ("outage", LIMIT, False)
        assert wait.opens_at == pytest.approx(1030, abs=1)
        assert "no answer for 2" in wait.told

    silent(work, turns=[30.0])


def test_of_those_who_lose_their_patience_together_one_stays_until_the_next_try_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STAYS_S", 0.4)

    async def work(restraint: Restraint, calls: UnderWay, breakers: FakeBreakers) -> None:
        waiting = [asyncio.ensure_future(restraint.wait(LIMIT, pool="research", patience_s=0.4)) for _ in range(20)]
        ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        assert [type(one) for one in ended].count(NotSoon) == 19
        assert ended.count(True) == 1

    silent(work, turns=[0.7, 0.0])


def test_an_open_breaker_has_the_last_word() -> None:
    async def work(restraint: Restraint, calls: UnderWay, breakers: FakeBreakers) -> None:
        assert not await restraint.wait(LIMIT, pool="research", patience_s=60)
        assert breakers.asked == 0

    silent(work, stands=Wait("outage", about=LIMIT))


def test_who_is_cancelled_while_it_asks_leaves_the_question_to_others() -> None:
    async def work(restraint: Restraint, calls: UnderWay, breakers: FakeBreakers) -> None:
        first = asyncio.ensure_future(restraint.wait(LIMIT, pool="research", patience_s=60))
        breakers.hangs = True
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        breakers.hangs = False
        assert await asyncio.wait_for(restraint.wait(LIMIT, pool="research", patience_s=60), 1)

    silent(work, turns=[0.0])


def test_one_slow_answer_among_many_does_not_put_off_the_doubt() -> None:
    calls = known(slowest_s=0.5)
    for number in range(200):
        calls.sent(LIMIT, One(number + 1000), 1.0)
        calls.ended(LIMIT, One(number + 1000), 11.0 if number == 20 else 1.5, is_answered=True)
    for number in range(ENOUGH + 1):
        calls.sent(LIMIT, One(number), 100.0)
    assert calls.doubted_s(LIMIT, 100.9) > 0
