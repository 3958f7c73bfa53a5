"""The circles of a conversation, against a plain reading of the rule over the whole of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.watching.circles import LONGEST_CIRCLE, MOST_WARNINGS, Circle, ToolStep, Track, advance
from tests.every import every

ROUNDS = 3


def walk(letters: str, rounds: int = ROUNDS) -> list[Circle | None]:
    """Return what is told after each step; a step for each letter."""
    track, told = Track(), []
    for letter in letters:
        track, circle = advance(track, ToolStep(letter.encode(), (letter,)), rounds=rounds)
        told.append(circle)
    return told


def shortest_period(letters: str, rounds: int) -> int:
    """Return the shortest period with which the letters end in so many rounds; 0: none does."""
    return next(
        (p for p in range(1, LONGEST_CIRCLE + 1)
         if len(letters) >= rounds * p and letters.endswith(letters[len(letters) - p :] * rounds)),
        0,
    )  # fmt: skip


def by_the_rule(letters: str, rounds: int) -> list[tuple[int, bool]]:
    """Return (period, is_told) of what is told, by looking at the whole conversation anew at each step."""
    found, warned, quiet_until = [(0, False)] * len(letters), set[frozenset[str]](), 0
    for end in range(1, len(letters) + 1):
        period = shortest_period(letters[:end], rounds)
        if not period:
            continue
        circle = frozenset(letters[end - period : end])
        if circle in warned or len(warned) >= MOST_WARNINGS:
            found[end - 1] = (period, True) if end >= quiet_until else (0, False)
        else:
            warned.add(circle)
            quiet_until = end + period
            found[end - 1] = (period, False)
    return found


@given(st.text("ab", max_size=60) | st.text("abcde", max_size=40), st.integers(2, 4))
def test_each_step_is_told_what_a_look_at_the_whole_conversation_tells(letters: str, rounds: int) -> None:
    got = [(0, False) if one is None else (one.period, one.is_told) for one in walk(letters, rounds)]
    assert got == by_the_rule(letters, rounds)


@given(st.text("abcdefgh", max_size=20), st.text("abcdefgh", min_size=1, max_size=LONGEST_CIRCLE))
def test_whatever_comes_before_a_circle_is_warned_of_and_ended_within_two_rounds_more(head: str, circle: str) -> None:
    told = walk(head + circle * (2 * ROUNDS))
    assert any(one is not None and one.is_told for one in told)
    assert any(one is not None and not one.is_told for one in told), "ended without a warning"


@given(st.text("abcdefgh", min_size=1, max_size=60))
def test_steps_of_which_none_comes_twice_in_a_row_or_in_a_round_are_never_told_of(letters: str) -> None:
    changing = [f"{letter}{number}" for number, letter in enumerate(letters)]
    track = Track()
    for name in changing:
        track, circle = advance(track, ToolStep(name.encode()), rounds=ROUNDS)
        assert circle is None


@pytest.mark.parametrize("circle", ["a", "ab", "abc", "abcd", "aab", "abcb"])
def test_a_circle_is_warned_of_after_three_rounds_and_ended_after_four(circle: str) -> None:
    told = walk(circle * 4)
    marks = {n: one.is_told for n, one in enumerate(told, 1) if one is not None}
    assert marks == {3 * len(circle): False, 4 * len(circle): True}


def test_five_steps_in_a_circle_are_too_long_to_be_seen() -> None:
    assert walk("abcde" * 20) == [None] * 100


def test_who_leaves_the_circle_is_let_go_and_warned_of_another() -> None:
    told = [one for one in walk("aaa" + "bcd" + "eee" + "fgh") if one is not None]
    assert [(one.period, one.is_told) for one in told] == [(1, False), (1, False)]


def test_who_comes_back_to_a_circle_that_it_was_warned_of_is_ended() -> None:
    told = [one for one in walk("aaa" + "b" + "aaa") if one is not None]
    assert [one.is_told for one in told] == [False, True]


def test_who_finds_ever_new_circles_is_ended_at_the_fourth() -> None:
    told = [one for one in walk("aaabbbcccddd") if one is not None]
    assert [one.is_told for one in told] == [False] * MOST_WARNINGS + [True]


@pytest.mark.parametrize("rounds", [0, 1])
def test_any_number_of_rounds_is_fine_where_a_pool_says_so(rounds: int) -> None:
    told = walk("a" * 50, rounds)
    assert every(one is None for one in told)


def test_a_circle_names_its_tools_once() -> None:
    last = walk("abababab")[-1]
    assert last == Circle(2, ("a", "b"), is_told=True)


def test_two_that_go_on_from_one_place_do_not_count_together() -> None:
    step, track = ToolStep(b"a"), Track()
    track, _ = advance(track, step, rounds=ROUNDS)
    forks = [advance(track, step, rounds=ROUNDS)[1] for _ in range(5)]
    assert forks == [None] * 5
