"""What is sent to the page: a page that takes every change shows what a page that asks for everything shows."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from fleet.dashboard.frames import COLUMNS, STATES, Frame, columns_of, names_of
from fleet.models import bot_name
from fleet.signals.view import BotTable

NAMES = [("a", bot_name("a", n)) for n in (1, 2, 3, 7, 8)] + [("b-c", "b-c-001"), ("b-c", "stranger"), ("d", "d-1000")]
numbers = st.integers(0, 3)


def table(rows: list[tuple[int, ...]]) -> BotTable:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    names = NAMES[: len(rows)]
    return BotTable(
        name=tuple(name for _, name in names), pool=tuple(pool for pool, _ in names),
        state=tuple(STATES[number] for number in columns[0]),
        **dict(zip(COLUMNS[1:], columns[1:], strict=True)),  # type: ignore[arg-type]
    )  # fmt: skip


def frame(rows: list[tuple[int, ...]], version: str) -> Frame:
    """Make a frame without the rest of a view, which is one JSON object whatever it says."""
    return Frame(version, f'{{"version":"{version}"', names_of(table(rows)), columns_of(table(rows)))


rows = st.lists(st.tuples(*[numbers] * len(COLUMNS)), max_size=len(NAMES))


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
    assert sent["changed"] == {"rows": [3], "columns": [[1]] * len(COLUMNS)}
