"""Patterns that somebody wrote, on text that somebody else wrote: linear, or refused."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.patterns import MAX_PATTERN_CHARS, MAX_PLACES, MAX_STEPS, PatternError, pattern, places_of


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("abc", 3),
        ("a{3}", 3),
        ("[a-z]{8}-\\d{4}", 13),
        ("(ab){5}", 10),
        ("((a{10}){10}){10}", 1000),
        ("[^]}]{2}", 2),
        ("\\{3}", 3),
        ("[\\]{9}]{2}", 2),
        ("a{2,}", 2),
        ("a{2,7}", 7),
        ("", 1),
        ("x|y*", 2),
    ],
)
def test_the_size_of_a_pattern_counts_repetitions(text: str, places: int) -> None:
    assert places_of(text) == places


@given(st.text("a()[]{}\\,0123456789|*^$", max_size=60))
def test_any_text_has_a_size_and_is_compiled_or_refused(text: str) -> None:
    assert places_of(text) >= 1
    try:
        assert pattern(text).is_in("aaa") in (True, False)
    except PatternError as error:
        assert 0 < len(str(error)) < 1000


@given(
    st.from_regex(r"[ab]{0,9}", fullmatch=True), st.sampled_from(["(a+)+$", "^(a|b)*c?$", "a{2,3}b", "[^a]", "ab?a"])
)
def test_what_matches_is_what_python_says(text: str, rule: str) -> None:
    assert pattern(rule).is_in(text) == bool(re.search(rule, text))


@pytest.mark.parametrize("text", ["(a+)+$", "(x+x+)+y", "^(a|a)*$", "(.*a){12}", r"^(\w+\s?)*$"])
def test_what_makes_re_backtrack_for_hours_takes_no_time(text: str) -> None:
    rule, value = pattern(text), "a" * 50_000 + "!"
    started = time.thread_time()
    rule.is_in(value)
    assert time.thread_time() - started < 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("(", "unclosed group"),
        ("(a{100}){100}", f"at most {MAX_PLACES:,} places, repetitions counted, got 10,000"),
        ("^.{1,5000}$", "maxLength instead"),
        (r"\w{1900}", "exceeds size limit"),
        ("a" * (MAX_PATTERN_CHARS + 1), "at most 1,000 characters"),
    ],
)
def test_what_needs_more_than_linear_time_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(PatternError) as refused:
        pattern(text)
    assert why in str(refused.value)


def test_the_slowest_match_that_is_allowed_takes_a_fraction_of_a_second() -> None:
    rule = pattern(r"(.|\w|\d){1,600}$")
    value = ("é1" * MAX_STEPS)[: rule.most_chars - 1] + "\n"
    started = time.thread_time()
    assert not rule.is_in(value)
    assert time.thread_time() - started < 1.0
    with pytest.raises(PatternError, match=r"expected at most .* characters for a pattern of this size"):
        rule.is_in("é" * (rule.most_chars + 1))


def test_half_a_character_is_no_error() -> None:
    assert pattern("a").is_in("\ud83da")
    assert pattern("STRASSE", ignore_case=True).is_in("eine Strasse")
