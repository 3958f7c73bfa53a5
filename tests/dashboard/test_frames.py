"""What is sent to the page: a page that takes every change shows what a page that asks for everything shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet import dashboard
from fleet.dashboard.frames import COLUMNS, EVIDENCE_UNIT, STATES, TESTS, Frame, columns_of, names_of, reasons_of
from fleet.models import bot_name
from fleet.signals.bot_table import BotTable

NAMES = [("a", bot_name("a", n)) for n in (1, 2, 3, 7, 8)] + [("b-c", "b-c-001"), ("b-c", "stranger"), ("d", "d-1000")]
numbers = st.integers(0, 3)


def table(rows: list[tuple[int, ...]]) -> BotTable:
    columns: dict[str, tuple[Any, ...]] = dict(
        zip(COLUMNS, zip(*rows, strict=True) if rows else [()] * len(COLUMNS), strict=True)
    )
    names = NAMES[: len(rows)]
    told = {
        "state": tuple(STATES[number] for number in columns["state"]),
        "test": tuple(TESTS[number] for number in columns["test"]),
        "evidence": tuple(number / EVIDENCE_UNIT for number in columns["evidence"]),
        "until": tuple(number or None for number in columns["until"]),
        "alike": tuple(bool(number) for number in columns["alike"]),
        "reason": tuple(f"why {number}" if number else "" for number in columns["until"]),
    }
    return BotTable(name=tuple(name for _, name in names), pool=tuple(pool for pool, _ in names), **columns | told)


def frame(rows: list[tuple[int, ...]], version: str) -> Frame:
    """Make a frame without the rest of a view, which is one JSON object whatever it says."""
    return Frame(
        version, f'{{"version":"{version}"', names_of(table(rows)), columns_of(table(rows)), reasons_of(table(rows))
    )


rows = st.lists(
    st.tuples(*[st.integers(0, 1) if name == "alike" else numbers for name in COLUMNS]), max_size=len(NAMES)
)


@given(old=rows, new=rows)
def test_a_page_that_applies_changes_shows_what_a_fresh_page_shows(
    old: list[tuple[int, ...]], new: list[tuple[int, ...]]
) -> None:
    before, after = frame(old, "1"), frame(new, "2")
    shown = json.loads(before.whole())["bots"]
    sent = json.loads(after.since(before))
    if "bots" in sent:
        shown = sent["bots"]
    else:
        for column, values in zip(shown["columns"], sent["changed"]["columns"], strict=True):
            for row, value in zip(sent["changed"]["rows"], values, strict=True):
                column[row] = value
        reasons = dict(shown["reasons"]) | dict(sent["changed"]["reasons"])
        shown["reasons"] = sorted([row, why] for row, why in reasons.items() if why)
    assert shown == json.loads(after.whole())["bots"]


@given(rows=rows)
def test_names_are_shortened_to_runs_and_none_is_lost(rows: list[tuple[int, ...]]) -> None:
    names = []
    for pool, first, *count in frame(rows, "1").names:
        names += [(pool, bot_name(pool, n)) for n in range(first, first + count[0])] if count else [(pool, first)]
    assert names == NAMES[: len(rows)]


def test_what_did_not_change_is_not_sent() -> None:
    quiet = [(0,) * len(COLUMNS)] * 5
    busy = [*quiet[:3], (1,) * len(COLUMNS), quiet[4]]
    sent = json.loads(frame(busy, "2").since(frame(quiet, "1")))
    assert sent["changed"] == {"rows": [3], "columns": [[1]] * len(COLUMNS), "reasons": []}


def test_the_page_reads_the_columns_states_and_tests_in_the_order_in_which_they_are_sent() -> None:
    script = (Path(dashboard.__file__).parent / "static" / "store.js").read_text(encoding="utf-8")
    for name, sent in (("COLUMNS", COLUMNS), ("STATES", STATES), ("TESTS", TESTS)):
        (read,) = re.findall(rf"^export const {name} = (.*);$", script, re.MULTILINE)
        assert tuple(json.loads(read)) == sent


def test_why_a_bot_is_out_is_sent_once_and_taken_back_when_it_is_back() -> None:
    state, until = COLUMNS.index("state"), COLUMNS.index("until")
    well = (0,) * len(COLUMNS)
    out = tuple(STATES.index("quarantined") if place == state else int(place == until) for place in range(len(COLUMNS)))
    before, during = frame([well, well], "1"), frame([well, out], "2")
    assert json.loads(before.whole())["bots"]["reasons"] == []
    assert json.loads(during.since(before))["changed"]["reasons"] == [[1, "why 1"]]
    assert json.loads(frame([well, out], "3").since(during))["changed"]["reasons"] == []
    assert json.loads(before.since(during))["changed"]["reasons"] == [[1, ""]]
