"""Spread and verdict: pure arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.signals.catalogue import ErrorField
from fleet.signals.spread import jain_index, spread_of, verdict_of


def failures(*rows: tuple[str, str, str, int]) -> dict[ErrorField, int]:
    return {ErrorField(bot, api, kind): number for bot, api, kind, number in rows}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([4, 4, 0, 0], 0.5), ([0, 0], None), ([], None)],
)
def test_jains_index_is_the_share_of_bots_that_do_the_work(numbers: list[int], expected: float | None) -> None:
    assert jain_index(numbers) == expected


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50).filter(any))
def test_jains_index_stays_between_one_over_n_and_one(numbers: list[int]) -> None:
    index = jain_index(numbers)
    assert index is not None
    assert 1 / len(numbers) - 1e-9 <= index <= 1 + 1e-9


def test_a_spread_names_the_busiest_bots_and_counts_the_idle_ones() -> None:
    spread = spread_of({"a": 1, "b": 9, "c": 0, "d": 9, "e": 4, "f": 2, "g": 3})
    assert (spread.bots, spread.min, spread.median, spread.max, spread.idle) == (7, 0, 3, 9, 1)
    assert [(top.bot, top.completions) for top in spread.top] == [("b", 9), ("d", 9), ("e", 4), ("g", 3), ("f", 2)]


def test_idle_bots_are_not_among_the_busiest() -> None:
    assert spread_of({"a": 0, "b": 1}).top[0].bot == "b"
    assert len(spread_of({"a": 0, "b": 1}).top) == 1


def test_without_failures_the_verdict_is_none() -> None:
    assert verdict_of({}, bots=10, apis=2).verdict == "none"


def test_two_failures_accuse_nobody() -> None:
    assert verdict_of(failures(("a", "x", "BadAnswer", 2)), bots=10, apis=2).verdict == "spread"


def test_a_bot_with_more_than_half_of_the_failures_is_the_culprit() -> None:
    verdict = verdict_of(
        failures(("bad", "x", "BadAnswer", 3), ("bad", "y", "BadRequest", 3), ("b", "x", "BadAnswer", 5)),
        bots=9,
        apis=2,
    )
    assert (verdict.verdict, verdict.culprit) == ("one bot", "bad")


def test_exactly_half_of_the_failures_does_not_make_a_bot_the_culprit() -> None:
    rows = failures(("a", "x", "BadAnswer", 4), ("b", "y", "BadAnswer", 4))
    assert verdict_of(rows, bots=9, apis=2).verdict == "spread"


def test_the_only_bot_is_not_accused_for_being_alone() -> None:
    assert verdict_of(failures(("a", "x", "BadAnswer", 9)), bots=1, apis=1).verdict == "spread"


def test_an_api_with_most_failures_over_many_bots_is_the_culprit() -> None:
    rows = failures(*((f"b{n}", "down/m", "BadAnswer", 2) for n in range(8)), ("b1", "fine/m", "BadAnswer", 4))
    verdict = verdict_of(rows, bots=9, apis=2)
    assert (verdict.verdict, verdict.culprit) == ("one API", "down/m")
    assert verdict_of({**rows, ErrorField("b2", "fine/m", "BadAnswer"): 1}, bots=9, apis=2).verdict == "spread"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ProviderUnavailable", "one API"),
        ("RateLimited", "one API"),
        ("KeyRejected", "one API"),
        ("KeySpent", "one API"),
        ("NotServed", "one API"),
        ("ConfigurationError", "spread"),
        ("BadAnswer", "spread"),
        ("BadRequest", "spread"),
        ("NotAnErrorOfOurs", "spread"),
    ],
)
def test_the_only_api_is_accused_only_of_what_is_a_providers_fault(kind: str, expected: str) -> None:
    rows = failures(*((f"b{n}", "only/m", kind, 1) for n in range(10)))
    assert verdict_of(rows, bots=10, apis=1).verdict == expected


def test_no_bot_is_accused_of_what_is_a_providers_fault() -> None:
    rows = failures(("a", "x/m", "ProviderUnavailable", 9), ("b", "x/m", "ProviderUnavailable", 1))
    assert verdict_of(rows, bots=10, apis=2).verdict == "one API"
    assert verdict_of({**rows, ErrorField("b", "y/m", "KeyRejected"): 9}, bots=10, apis=2).verdict == "spread"


def test_failures_without_a_bot_accuse_nobody() -> None:
    verdict = verdict_of(failures(("-", "-", "InvalidTask", 50)), bots=10, apis=2)
    assert (verdict.verdict, verdict.culprit) == ("spread", None)
