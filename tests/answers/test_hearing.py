"""An ask as it goes on: how many are asked next, when it is over, and what an early stop would have saved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.answers import Early, Hearing, Kinship, Majority, Stop, Vote, Weighted, leader, would_have
from tests.answers.test_rules import graded

keys = st.sampled_from(["x", "y", "z", None])


def held(hearing: Hearing, answers: list[str | None]) -> str:
    """Let members answer, in the order in which they were asked, until it is over; return why it is."""
    waiting: list[int] = []
    while not (why := hearing.why_over()):
        waiting += hearing.ask()
        member = waiting.pop(0)
        hearing.hear(member, answers[member])
    return why


def test_of_seven_the_four_are_asked_that_could_decide_and_no_more_when_they_agree() -> None:
    hearing = Hearing(["m"] * 7, Majority(), "fixed")
    assert list(hearing.ask()) == [0, 1, 2, 3]
    assert not hearing.ask()
    for member in range(4):
        assert not hearing.why_over()
        hearing.hear(member, "x")
    assert hearing.why_over() == "fixed"


def test_as_many_more_are_asked_as_have_gone_another_way_or_failed() -> None:
    hearing = Hearing(["m"] * 7, Majority(), "fixed")
    hearing.ask()
    hearing.hear(0, "x")
    hearing.hear(1, "y")
    assert list(hearing.ask()) == [4]
    hearing.hear(2, None)
    assert not hearing.ask(), "two for x of those under way would do"
    hearing.hear(3, "y")
    assert list(hearing.ask()) == [5]


@given(answers=st.lists(keys, min_size=1, max_size=9), stop=st.sampled_from(["shadow", "fixed"]))
def test_every_ask_ends_and_a_stop_when_fixed_changes_no_outcome(answers: list[str | None], stop: Stop) -> None:
    hearing = Hearing(["m"] * len(answers), Majority(), stop)
    why = held(hearing, answers)
    whole = [Vote("m", key) for key in answers if key is not None]
    assert why == ("heard" if stop == "shadow" else why)
    assert leader(Majority().scores(hearing.votes)) == leader(Majority().scores(whole))
    assert hearing.asked <= len(answers)


@given(answers=st.lists(keys, min_size=3, max_size=3), order=st.permutations(["a", "b", "c"]))
def test_weighted_asks_end_and_a_stop_when_fixed_changes_no_outcome(
    answers: list[str | None], order: list[str]
) -> None:
    rule = Weighted(graded(5))
    hearing = Hearing(order, rule, "fixed")
    held(hearing, answers)
    whole = [Vote(source, key) for source, key in zip(order, answers, strict=True) if key is not None]
    assert leader(rule.scores(hearing.votes)) == leader(rule.scores(whole))


def test_an_adaptive_ask_leaves_out_the_echo() -> None:
    hearing = Hearing(["a", "b", "c"], Weighted(graded(6)), "adaptive")
    assert held(hearing, ["x", "x", "x"]) in ("sure", "fixed")
    assert hearing.asked < 3


def test_so_many_are_asked_at_once_as_is_said() -> None:
    hearing = Hearing(["m"] * 7, Majority(), "fixed", at_once=3)
    assert len(hearing.ask()) == 3
    hearing.hear(0, "x")
    assert len(hearing.ask()) == 1
    assert len(hearing.ask(hurry=True)) == 3


def test_no_stop_comes_before_the_least_that_must_be_heard() -> None:
    hearing = Hearing(["m"] * 7, Majority(), "adaptive", least=6)
    assert len(hearing.ask()) == 6
    for member in range(6):
        assert not hearing.why_over()
        hearing.hear(member, "x")
    assert hearing.why_over() == "fixed"


@pytest.mark.parametrize("rule", [None, Majority()])
def test_where_all_are_to_be_heard_all_are_asked(rule: Majority | None) -> None:
    hearing = Hearing(["m"] * 5, rule, "shadow")
    assert len(hearing.ask()) == 5
    for member in range(5):
        assert not hearing.why_over()
        hearing.hear(member, None)
    assert hearing.why_over() == "heard"


def test_the_source_that_answered_counts_not_the_one_that_was_expected() -> None:
    hearing = Hearing(["m"], Majority(), "fixed")
    hearing.ask()
    hearing.hear(0, "x", "fallback")
    assert hearing.votes == [Vote("fallback", "x")]


def test_what_an_early_stop_would_have_done_is_known_afterwards() -> None:
    assert would_have(Majority(), [Vote("m", "x")] * 7) == Early(4, True)
    assert would_have(Majority(), [Vote("m", key) for key in "xyxyxyx"]) == Early(7, True)
    assert would_have(Weighted(Kinship()), [Vote("m", "x")]) == Early(1, True)
