"""The names of counters and of error rows."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from fleet.quoting import named
from fleet.signals import catalogue
from fleet.signals.catalogue import NOBODY, Counter, ErrorField
from tests.every import every


def test_every_counter_is_declared_once_and_described() -> None:
    declared = [value for value in vars(catalogue).values() if isinstance(value, Counter)]
    assert sorted(c.name for c in declared) == sorted(c.name for c in catalogue.COUNTERS)
    assert len({c.name for c in declared}) == len(declared)
    assert every(c.description.endswith(".") and "\n" not in c.description for c in declared)


@given(
    bot=st.from_regex(r"[a-z_-]{1,8}-[0-9]{3}", fullmatch=True),
    api=st.text(min_size=1),
    kind=st.from_regex(r"[A-Z][A-Za-z]{0,20}", fullmatch=True),
    of=st.sampled_from(("task", "call")),
)
def test_an_error_field_reads_what_it_spelled_whatever_the_model_is_called(
    bot: str, api: str, kind: str, of: Literal["task", "call"]
) -> None:
    field = ErrorField(bot, api, kind, of)
    assert ErrorField.parse(field.spell()) == field


def test_what_a_result_does_not_have_is_named_as_that() -> None:
    assert [named(one, "pool") for one in (None, "", NOBODY, "research")] == ["no pool"] * 3 + ["research"]
