"""Whether it pays to have documents kept, by how answers have followed each other so far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.economy.contexts.keeping import EXPECTED, READ, WRITTEN_1H, WRITTEN_5M, keeping

COUNTS = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("short", "long", "later", "kept"),
    [
        (0, 0, 0, "5m"), (1000, 0, 0, "5m"), (1000, 5, 0, "1h"), (0, 100, 1, "1h"), (0, 0, 3, "5m"), (0, 0, 100, None),
        (1000, 0, 5, "5m"), (0, 10, 100, None),
    ],
)  # fmt: skip
def test_documents_are_kept_for_as_long_as_pays(short: int, long: int, later: int, kept: str | None) -> None:
    assert keeping(short, long, later) == kept


@given(short=COUNTS, long=COUNTS, later=COUNTS)
def test_no_other_choice_would_have_cost_less_on_what_is_known(short: int, long: int, later: int) -> None:
    near = short + EXPECTED
    costs = {
        "5m": READ * near + WRITTEN_5M * (long + later),
        "1h": READ * (near + long) + WRITTEN_1H * later,
        None: float(near + long + later),
    }
    assert costs[keeping(short, long, later)] <= min(costs.values()) + 1e-6
