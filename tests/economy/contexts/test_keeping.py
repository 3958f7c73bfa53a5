"""Whether it pays to have documents kept, by what that costs and how answers have followed each other so far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import config
from fleet.economy.contexts.keeping import EXPECTED, UNPRICED, CacheCost, cache_cost, keeping
from fleet.economy.prices import PriceList

COUNTS = st.integers(0, 10_000)
COSTS = st.builds(CacheCost, st.floats(1, 2), st.floats(1, 3), st.floats(0, 1))


@pytest.mark.parametrize(
    ("short", "long", "later", "kept"),
    [
        (0, 0, 0, "5m"), (1000, 0, 0, "5m"), (1000, 5, 0, "1h"), (0, 100, 1, "1h"), (0, 0, 3, "5m"), (0, 0, 100, None),
        (1000, 0, 5, "5m"), (0, 10, 100, None),
    ],
)  # fmt: skip
def test_documents_are_kept_for_as_long_as_pays(short: int, long: int, later: int, kept: str | None) -> None:
    assert keeping(short, long, later, UNPRICED) == kept


def test_a_dearer_hour_is_taken_later() -> None:
    assert keeping(0, 10, 10, UNPRICED) == "1h"
    assert keeping(0, 10, 10, CacheCost(written_5m=1.1, written_1h=3.0, read=0.1)) == "5m"


@given(short=COUNTS, long=COUNTS, later=COUNTS, cost=COSTS)
def test_no_other_choice_would_have_cost_less_on_what_is_known(
    short: int, long: int, later: int, cost: CacheCost
) -> None:
    near = short + EXPECTED
    costs = {
        "5m": cost.read * near + cost.written_5m * (long + later),
        "1h": cost.read * (near + long) + cost.written_1h * later,
        None: float(near + long + later),
    }
    assert costs[keeping(short, long, later, cost)] <= min(costs.values()) * (1 + 1e-9) + 1e-6


def test_what_the_cache_costs_is_the_models_own_price() -> None:
    own = {"input_usd_per_mtok": 2, "output_usd_per_mtok": 9, "cached_usd_per_mtok": 1,
           "cache_write_usd_per_mtok": 3, "cache_write_1h_usd_per_mtok": 5}  # fmt: skip
    providers = {"anthropic": {"kind": "anthropic"}, "mine": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}
    settings = config.Settings.model_validate({"prices": {"mine/m": own}, "providers": providers})
    price = PriceList(settings)
    assert cache_cost(price, "mine/m") == CacheCost(1.5, 2.5, 0.5)
    assert cache_cost(price, "anthropic/claude-sonnet-4-5") == UNPRICED, "the list price of most of its models"
    assert cache_cost(price, "mine/unknown") == UNPRICED
