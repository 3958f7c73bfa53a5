"""Which API has not answered for far longer than usual: told while calls are under way, and only then."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fleet.entries import Entry
from fleet.workers.meter import NO_USAGE
from fleet.workers.road import Road
from fleet.workers.silence.answer_times import FADES, LEAST_S, TIMES
from fleet.workers.silence.under_way import BRIEF_S, FEWEST_ANSWERS, MOST_KINDS, UNKNOWN_S, Hanging, UnderWay

LIMIT = "alpha/m-1/default"


@dataclass(frozen=True)
class One:
    """A call of a task."""

    number: int
    who: str = ""
    pool: str = "research"
    kind: str = "qa"


def answered(calls: UnderWay, *seconds: float, now: float = 0.0, kind: str = "qa") -> None:
    for number, took_s in enumerate(seconds):
        calls.sent(LIMIT, One(-number, kind=kind), now - took_s)
        calls.ended(LIMIT, One(-number, kind=kind), now, is_answered=True)


def silent(calls: UnderWay, now: float) -> dict[str, tuple[int, float, float]]:
    return calls.silent(now, at_least_s=12.0)


def test_calls_without_an_answer_are_told_once_they_take_far_longer_than_the_slowest_before() -> None:
    calls = UnderWay()
    answered(calls, 0.5, 0.2)
    for number in range(3):
        calls.sent(LIMIT, One(number), 10.0 + number)
    assert calls.unanswered(10.0 + LEAST_S - 0.1) == {}
    assert calls.unanswered(10.0 + LEAST_S) == {LIMIT: (3, LEAST_S)}
    calls.ended(LIMIT, One(2), 19.0, is_answered=True)
    assert calls.unanswered(19.0 + LEAST_S) == {}, "it took 7 s: so may the others"
    assert calls.unanswered(19.0 + 3 * LEAST_S) == {LIMIT: (2, 3 * LEAST_S)}


def test_calls_that_hang_while_later_ones_are_answered_are_told_once_each() -> None:
    calls = UnderWay()
    answered(calls, 0.5)
    for number in range(2):
        calls.sent(LIMIT, One(number), 10.0 + number)
    calls.sent(LIMIT, One(2), 30.0)
    assert calls.outlasted(LIMIT, 40.0) == [], "nothing that left later was answered: it may be a silence"
    calls.ended(LIMIT, One(2), 30.5, is_answered=True)
    assert calls.outlasted(LIMIT, 10.0 + LEAST_S) == [One(0)]
    assert calls.outlasted(LIMIT, 10.0 + LEAST_S) == []
    assert calls.outlasted(LIMIT, 40.0) == [One(1)]
    calls.ended(LIMIT, One(0), 41.0, is_answered=True)
    calls.sent(LIMIT, One(0), 41.0)
    assert calls.outlasted(LIMIT, 80.0) == [], "the same task's next call is another one"


def test_a_probe_beyond_the_limit_may_take_three_times_what_the_slowest_answer_took() -> None:
    calls = UnderWay()
    answered(calls, 0.1)
    assert calls.brief_s(LIMIT, "qa") == BRIEF_S
    assert calls.brief_s(LIMIT, "essay") == LEAST_S, "nobody knows how long these take"
    answered(calls, 40.0, kind="essay")
    assert calls.brief_s(LIMIT, "essay") == TIMES * 40.0


def test_a_model_that_thinks_for_minutes_is_not_said_to_hang() -> None:
    calls = UnderWay()
    answered(calls, 120.0, *[1.0] * 20)
    calls.sent(LIMIT, One(1), 10.0)
    assert calls.unanswered(10.0 + 0.9 * TIMES * 120 * FADES**20) == {}
    assert calls.unanswered(10.0 + 1.1 * TIMES * 120 * FADES**20) != {}


def test_nothing_is_told_of_an_api_that_never_answered_here_nor_of_calls_that_have_ended() -> None:
    calls = UnderWay()
    calls.sent(LIMIT, One(1), 0.0)
    assert calls.unanswered(1000.0) == {}
    calls.ended(LIMIT, One(1), 1000.0, is_answered=False)
    answered(calls, 0.5, now=1001.0)
    assert calls.unanswered(2000.0) == {}
    calls.ended(LIMIT, One(1), 2000.0, is_answered=True)
    assert calls.unanswered(2000.0) == {}


def test_calls_hang_that_take_too_long_and_all_of_them_where_nothing_is_answered() -> None:
    calls = UnderWay()
    answered(calls, 0.5)
    for number in range(4):
        calls.sent(LIMIT, One(number, who=f"task {number // 2}", pool=f"pool {number // 2}"), 10.0 + number)
    assert calls.hanging(10.0 + LEAST_S - 0.1) == {}
    all_of_it = frozenset({LIMIT})
    assert calls.hanging(10.0 + LEAST_S) == {"pool 0": Hanging(1, all_of_it), "pool 1": Hanging(1, all_of_it)}
    calls.sent(LIMIT, One(9), 19.0)
    calls.ended(LIMIT, One(9), 19.5, is_answered=True)
    assert calls.hanging(19.5) == {"pool 0": Hanging(1, frozenset(), outlasted=1)}, (
        "the API answers, and these hang all the same"
    )
    assert calls.hanging(30.5)["pool 1"] == Hanging(1, all_of_it, outlasted=1)


def test_calls_of_a_silence_that_has_ended_are_told_apart_from_those_that_hang_while_others_are_answered() -> None:
    calls = UnderWay()
    answered(calls, 0.5)
    for number in range(3):
        calls.sent(LIMIT, One(number, who=f"task {number}"), 10.0)
    answered(calls, 0.5, now=30.0)
    calls.sent(LIMIT, One(9, who="task 9"), 31.0)
    for second in range(31, 39):
        answered(calls, 0.5, now=float(second))
    assert calls.hanging(39.0) == {"research": Hanging(4, frozenset(), outlasted=3)}


def test_an_honest_slow_model_lends_no_slot_before_three_times_what_it_usually_takes() -> None:
    calls = UnderWay()
    answered(calls, 120.0)
    calls.sent(LIMIT, One(1), 10.0)
    assert calls.hanging(10.0 + TIMES * 120 - 1) == {}
    assert calls.hanging(10.0 + TIMES * 120) != {}


def test_slots_of_an_api_that_never_answered_here_are_lent_after_a_while_and_nothing_is_told_of_it() -> None:
    calls = UnderWay()
    calls.sent(LIMIT, One(1), 10.0)
    assert calls.hanging(10.0 + UNKNOWN_S - 0.1) == {}
    assert calls.hanging(10.0 + UNKNOWN_S) == {"research": Hanging(1, frozenset({LIMIT}))}
    assert calls.unanswered(10.0 + UNKNOWN_S) == {}


def test_a_breaker_is_given_those_calls_alone_that_are_late_for_their_class_while_nothing_is_answered() -> None:
    calls = UnderWay()
    answered(calls, *[0.5] * FEWEST_ANSWERS)
    for number in range(3):
        calls.sent(LIMIT, One(number), 10.0 + number)
    assert silent(calls, 21.9) == {}
    assert silent(calls, 22.0) == {LIMIT: (1, 12.0, 0.5)}
    assert silent(calls, 25.0) == {LIMIT: (3, 15.0, 0.5)}
    calls.ended(LIMIT, One(2), 26.0, is_answered=True, is_refused=True)
    assert silent(calls, 37.9) == {}, "it lives: it refused one"
    assert silent(calls, 38.0) == {LIMIT: (2, 12.0, 0.5)}
    calls.ended(LIMIT, One(1), 39.0, is_answered=False)
    assert silent(calls, 39.0) == {LIMIT: (1, 13.0, 0.5)}, "a time-out is no answer"


def test_no_breaker_is_opened_by_a_model_that_thinks_for_minutes_and_has_answered_little() -> None:
    calls = UnderWay()
    answered(calls, *[2.0] * (FEWEST_ANSWERS - 1))  # short questions came first
    for number in range(8):
        calls.sent(LIMIT, One(number), 10.0)
    assert silent(calls, 10.0 + 180) == {}
    answered(calls, 60.0, now=70.0)
    assert silent(calls, 70.0 + 0.9 * TIMES * 60) == {}, "and it is given three times its slowest from then on"
    assert silent(calls, 70.0 + TIMES * 60) != {}


def test_a_task_class_that_takes_minutes_is_not_measured_by_another_one_of_the_same_model() -> None:
    calls = UnderWay()
    answered(calls, *[0.5] * 1000)
    answered(calls, *[150.0] * FEWEST_ANSWERS, kind="proof")
    answered(calls, *[0.5] * 1000)
    for number, kind in enumerate(("proof", "proof", "proof", "new", "new", "new")):
        calls.sent(LIMIT, One(number, kind=kind), 10.0)
    assert silent(calls, 10.0 + 180) == {}
    assert calls.unanswered(10.0 + 180) == {}
    assert calls.hanging(10.0 + UNKNOWN_S - 0.1) == {}
    assert silent(calls, 10.0 + TIMES * 150) == {LIMIT: (3, TIMES * 150, 150.0)}


def test_calls_in_a_slow_tier_are_compared_with_each_other_only() -> None:
    roads: Any = SimpleNamespace(under_way=UnderWay())
    grant: Any = SimpleNamespace(limit=LIMIT)
    kinds = []
    for tier in ("", "flex", "batch"):
        entry = Entry("", "task 1", "research", "bot", "", "qa", "", LIMIT, tier, NO_USAGE, None, "unknown", 0.0)
        kinds.append(Road(roads, grant, entry, 1.0, is_probe=False).kind)
    assert kinds[0] == "qa"
    assert len(set(kinds)) == 3


def test_refusals_and_errors_teach_nothing_of_how_long_answers_take() -> None:
    calls = UnderWay()
    for number in range(FEWEST_ANSWERS):
        calls.sent(LIMIT, One(number), 10.0)
        calls.ended(LIMIT, One(number), 10.2, is_answered=True, is_refused=True)
        calls.ended(LIMIT, One(number), 10.2, is_answered=True)
    for number in range(3):
        calls.sent(LIMIT, One(number), 11.0)
    assert silent(calls, 1000.0) == calls.unanswered(1000.0) == {}


def test_only_so_many_task_classes_are_known() -> None:
    calls = UnderWay()
    for number in range(MOST_KINDS + 1):
        answered(calls, 0.5, kind=f"class {number}")
    calls.sent(LIMIT, One(1, kind="class 0"), 10.0)
    assert calls.unanswered(100.0) == {}
    calls.sent(LIMIT, One(2, kind="class 1"), 10.0)
    assert calls.unanswered(100.0) != {}
