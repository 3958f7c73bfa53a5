"""Answers that mean the same have one form."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.answers import canonical

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("42", " 42.0 "),
        ("$1,234.50", "1234.5"),
        ("-3", "-3.00."),
        ("1e3", "1000"),
        ("Yes.", "yes"),
        ("New  York", "new york"),
        ("Ｙｅｓ", "YES"),
        ('{"a": 1, "b": [true]}', '{"b":[true],\n "a":1.0}'),
        ('```json\n{"a": 1}\n```', '{"a":1}'),
    ],
)
def test_answers_that_mean_the_same_have_one_form(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"), [("42", "42%"), ("yes", "no"), ('{"a": "1"}', '{"a": 1}'), ("[1, 2]", "[2, 1]"), ("1,2", "12")]
)
def test_answers_that_differ_stay_apart(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_what_counts_is_cut_out_and_is_the_last_that_fits() -> None:
    pattern = re.compile(r"A:\s*(.*)")
    assert canonical("A: 3\nno, wait\nA: $1,000.", pattern=pattern) == "1000"
    assert canonical("I do not know", pattern=pattern) is None
    assert canonical("17 or 18", pattern=re.compile(r"\d+")) == "18"


def test_a_field_of_an_answer_in_json_is_cut_out() -> None:
    answer = '{"why": "so", "found": {"places": ["Rome", "Paris"]}}'
    assert canonical(answer, field="found.places.1") == "paris"
    assert canonical(answer, field="found.nothing") is None
    assert canonical(answer, field="found.places.7") is None
    assert canonical("Paris", field="found") is None
    assert canonical('{"sum": 18.0}', field="sum") == canonical("18")


@given(value=st.lists(JSON, max_size=3) | st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_json_has_one_form_however_it_is_written(value: object) -> None:
    compact = json.dumps(value, separators=(",", ":"))
    assert canonical(json.dumps(value, indent=2, sort_keys=True)) == canonical(compact)
    assert canonical(f"```\n{compact}\n```") == canonical(compact)


@given(number=st.integers(-(10**15), 10**15))
def test_a_number_has_one_form_however_it_is_written(number: int) -> None:
    assert canonical(f"{number:,}") == canonical(f"{number}.00") == canonical(str(number)) == str(number)


@given(text=st.text(max_size=200))
def test_any_text_has_a_form_and_that_form_is_its_own(text: str) -> None:
    form = canonical(text)
    assert form is not None
    assert not form.startswith("\0") or text.strip().startswith("\0")


def test_odd_json_is_an_answer_like_any_other() -> None:
    deep = "[" * 2000 + "]" * 2000
    deepest = ["[" * levels + "]" * levels for levels in range(880, 1000, 10)]
    for text in ('{"a": NaN}', '{"a": 1e9999999}', '{"a": ', deep, '{"a":' * 60 + "1" + "}" * 60, "{}", *deepest):
        assert canonical(text)
    assert canonical('{"a": 1e9999999}', field="a") == "1E+9999999"
    assert canonical('{"a": 12345678901234567890123456789}') != canonical('{"a": 12345678901234567890123456788}')
