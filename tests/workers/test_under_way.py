"""Which API has not answered for far longer than usual: told while calls are under way, and only then."""

from __future__ import annotations

from fleet.workers.under_way import FADES, LEAST_S, TIMES, UnderWay

LIMIT = "alpha/m-1/default"


def answered(calls: UnderWay, *seconds: float, now: float = 0.0) -> None:
    for number, took_s in enumerate(seconds):
        calls.sent(LIMIT, f"before-{number}", now - took_s)
        calls.ended(LIMIT, f"before-{number}", now, is_answered=True)


def test_calls_without_an_answer_are_told_once_they_take_far_longer_than_the_slowest_before() -> None:
    calls = UnderWay()
    answered(calls, 0.5, 0.2)
    for number in range(3):
        calls.sent(LIMIT, number, 10.0 + number)
    assert calls.unanswered(10.0 + LEAST_S - 0.1) == {}
    assert calls.unanswered(10.0 + LEAST_S) == {LIMIT: (3, LEAST_S)}
    calls.ended(LIMIT, 2, 19.0, is_answered=True)
    assert calls.unanswered(19.0 + LEAST_S) == {}, "it took 7 s: so may the others"
    assert calls.unanswered(19.0 + 3 * LEAST_S) == {LIMIT: (2, 3 * LEAST_S)}


def test_a_model_that_thinks_for_minutes_is_not_said_to_hang() -> None:
    calls = UnderWay()
    answered(calls, 120.0, *[1.0] * 20)
    calls.sent(LIMIT, "thinks", 10.0)
    assert calls.unanswered(10.0 + 0.9 * TIMES * 120 * FADES**20) == {}
    assert calls.unanswered(10.0 + 1.1 * TIMES * 120 * FADES**20) != {}


def test_nothing_is_told_of_an_api_that_never_answered_here_nor_of_calls_that_have_ended() -> None:
    calls = UnderWay()
    calls.sent(LIMIT, 1, 0.0)
    assert calls.unanswered(1000.0) == {}
    calls.ended(LIMIT, 1, 1000.0, is_answered=False)
    answered(calls, 0.5, now=1001.0)
    assert calls.unanswered(2000.0) == {}
    calls.ended(LIMIT, 1, 2000.0, is_answered=True)
    assert calls.unanswered(2000.0) == {}
