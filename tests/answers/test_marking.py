"""Answers are compared with the right one by what they mean, wherever it stands."""

from __future__ import annotations

import pytest

from fleet.answers.marking import is_right


@pytest.mark.parametrize(
    ("answer", "right", "by", "verdict"),
    [
        ("1,200", "1200.0", None, True),
        ("so it is 42", "42", None, False),
        ("He has 3.\nA: 42", "42", "A:", True),
        ("A: 1 no wait\nA:   $42 \nThat is it.", "A: 42", "A:", True),
        ("A: 41", "42", "A:", False),
        ("no last line", "42", "A:", False),
        ("A:", "42", "A:", False),
        ('{"total": 42.0, "why": "x"}', "42", ".total", True),
        ('{"total": 41}', '{"total": 42}', ".total", False),
        ("not JSON", "42", ".total", False),
    ],
)
def test_an_answer_is_right_when_it_means_the_same(answer: str, right: str, by: str | None, verdict: bool) -> None:
    assert is_right(answer, right, by) is verdict
