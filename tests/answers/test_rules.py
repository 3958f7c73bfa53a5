"""How votes are counted: majorities, and weights that know who errs together."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.answers import Kinship, Majority, Vote, Weighted, is_fixed, leader, learnt, majority_chance, rest_is_worth
from fleet.answers.rules import chances_of
from tests.every import every

SOURCES = ("a", "b", "c")
votes_of = st.lists(st.builds(Vote, st.sampled_from(SOURCES), st.sampled_from("xyz")), min_size=1, max_size=6)


def graded(seed: int, tasks: int = 300) -> Kinship:
    """A record: `a` is right 8 times in 10; `b` 6 times; `c` says what `b` says, also when that is wrong, 9 in 10."""
    draw = random.Random(seed)
    found = []
    for _ in range(tasks):
        a = "right" if draw.random() < 0.8 else f"a{draw.random()}"
        b = "right" if draw.random() < 0.6 else f"b{draw.random()}"
        c = b if draw.random() < 0.9 else f"c{draw.random()}"
        found.append(([Vote("a", a), Vote("b", b), Vote("c", c)], "right"))
    return Kinship(learnt(found))


@given(votes=votes_of)
def test_a_majority_is_the_most_frequent_answer_and_of_equal_ones_the_first(votes: list[Vote]) -> None:
    counts = Counter(vote.key for vote in votes)
    assert leader(Majority().scores(votes)) == next(v.key for v in votes if counts[v.key] == max(counts.values()))


def test_without_votes_nobody_leads() -> None:
    assert leader(Majority().scores([])) is None
    assert leader(Weighted().scores([])) is None
    assert chances_of({}) == {}


@given(keys=st.lists(st.sampled_from("xyz"), min_size=1, max_size=9))
def test_among_voters_of_one_model_weights_change_nothing(keys: list[str]) -> None:
    votes = [Vote("a", key) for key in keys]
    assert leader(Weighted().scores(votes)) == leader(Majority().scores(votes))
    assert leader(Weighted(graded(1)).scores(votes)) == leader(Majority().scores(votes))


def test_two_that_err_together_do_not_outvote_a_better_one() -> None:
    rule = Weighted(graded(1))
    against = [Vote("b", "wrong"), Vote("c", "wrong"), Vote("a", "right")]
    assert leader(Majority().scores(against)) == "wrong"
    assert leader(rule.scores(against)) == "right"
    assert rule.chances(against)["right"] > 0.5


def test_an_echo_adds_next_to_nothing_and_an_independent_voice_much() -> None:
    kinship = graded(1)
    alone, echoed, joined = (kinship.support(who) for who in (["b"], ["b", "c"], ["b", "a"]))
    assert 0 <= echoed - alone < 0.5 < joined - alone


def test_further_votes_of_one_model_add_ever_less() -> None:
    totals = [Kinship().support(["a"] * number) for number in range(1, 9)]
    gains = [later - earlier for earlier, later in pairwise(totals)]
    assert every(gain > 0 for gain in gains)
    assert gains == sorted(gains, reverse=True)


@given(votes=votes_of)
def test_chances_are_chances(votes: list[Vote]) -> None:
    chances = Weighted(graded(2)).chances(votes)
    assert every(0 < one < 1 for one in chances.values())
    assert sum(chances.values()) < 1


@given(scores=st.dictionaries(st.text(max_size=2), st.floats(-700, 700), max_size=5))
def test_chances_of_extreme_odds_are_numbers(scores: dict[str, float]) -> None:
    chances = chances_of(scores)
    assert [one for one in chances.values() if not 0 <= one <= 1] == []
    assert sum(chances.values()) <= 1 + 1e-9


@pytest.mark.parametrize("rule", [Majority(), Weighted(), Weighted(graded(3))], ids=["majority", "even", "weighted"])
@given(votes=votes_of, rest=st.lists(st.sampled_from(SOURCES), max_size=2))
def test_what_is_fixed_no_way_to_vote_changes(rule: Majority | Weighted, votes: list[Vote], rest: list[str]) -> None:
    now = leader(rule.scores(votes))
    ways = product([*"xyz", "new", "newer", None], repeat=len(rest))
    outcomes = {
        leader(rule.scores([*votes, *(Vote(s, k) for s, k in zip(rest, way, strict=True) if k is not None)]))
        for way in ways
    }
    assert is_fixed(rule, votes, rest) == (outcomes == {now})


def test_nothing_is_certain_where_there_are_too_many_ways_to_look_at() -> None:
    assert not is_fixed(Weighted(), [Vote("a", "x")] * 9, ["a"] * 8)
    assert is_fixed(Majority(), [Vote("a", "x")] * 9, ["a"] * 8)
    assert is_fixed(Weighted(), [], [])
    assert not is_fixed(Majority(), [], ["a"])


def test_a_majority_becomes_sure_as_the_paper_says() -> None:
    assert majority_chance([Vote("a", "x")] * 3) == 15 / 16
    assert majority_chance([Vote("a", "x")] * 4) == 31 / 32
    assert majority_chance([]) == 0.5
    assert majority_chance([Vote("a", "x"), Vote("a", "y")]) == 0.5


def test_an_echo_is_not_worth_asking_and_a_better_voice_is() -> None:
    rule = Weighted(graded(4))
    assert rest_is_worth(rule, [Vote("b", "x")], ["c"]) < 0.01
    assert rest_is_worth(rule, [Vote("b", "x")], ["a"]) > 0.05
    assert rest_is_worth(rule, [Vote("b", "x")], []) == 0
    assert rest_is_worth(rule, [], ["a"]) == 1
    assert rest_is_worth(rule, [Vote("b", "x")], ["a", "c"]) == rest_is_worth(rule, [Vote("b", "x")], ["a", "c"])
