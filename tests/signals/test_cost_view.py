"""Budgets: each limit's own spending against its own budget."""

from __future__ import annotations

import pytest

from fleet.signals.cost_view import PoolCost, costs_of
from fleet.signals.limit_view import LimitView

NOON = 86_400 * 20_000 + 43_200


def limit(name: str, used: float, allowed: float | None) -> LimitView:
    return LimitView(
        limit=name, rpm=None, used_rpm=0, tpm=None, used_tpm=0, in_flight=0, waiting=0, next_grant_s=0, held_s=0,
        refused=0, refused_at=None, is_changed=False, usd_per_day=allowed, used_usd=used,
    )  # fmt: skip


def test_a_used_up_budget_is_not_hidden_by_another_ones_room_nor_by_what_unlimited_pools_spend() -> None:
    pools = [PoolCost(pool=name, hour_usd_micros=1, day_usd_micros=9_000_000) for name in "abc"]
    limits = [limit("x/1/k", 1.0, 10.0), limit("x/2/k", 2.0, 2.0), limit("x/3/k", 24.0, None)]
    costs = costs_of(pools, limits, total_usd_micros=27_000_000, now_s=NOON)
    assert [(budget.limit, budget.share) for budget in costs.budgets] == [("x/2/k", 1.0), ("x/1/k", 0.1)]
    assert costs.day_usd_micros == 27_000_000
    assert costs.budget_usd_micros_per_hour is None


def test_an_even_hour_is_what_all_budgets_have_left_over_the_hours_that_are_left() -> None:
    costs = costs_of([], [limit("x/1/k", 4.0, 10.0), limit("x/2/k", 3.0, 2.0)], total_usd_micros=0, now_s=NOON)
    assert costs.budget_usd_micros_per_hour == pytest.approx(6_000_000 / 12)
    assert costs.budget_usd_micros_per_day == 12_000_000
