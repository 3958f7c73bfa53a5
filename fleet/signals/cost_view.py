"""Money as the Fleet tab, `fleet top` and `fleet stats` show it: spent by pools, and left of each limit's budget."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from fleet.frozen import Frozen
from fleet.signals.limit_view import LimitView


class PoolCost(Frozen):
    """What a pool spends; which budgets that counts against is its limits' to say."""

    pool: str
    hour_usd_micros: int = Field(description="Last 60 minutes.")
    day_usd_micros: int = Field(description="Since midnight UTC.")


class BudgetView(Frozen):
    """The day's budget of one limit, and what calls under that very limit have used of it."""

    limit: str
    used_usd_micros: int = Field(description="What today's calls cost, or have reserved.")
    usd_micros_per_day: int
    share: float = Field(description="Of the budget that is used; 1: no call is sent until midnight UTC.")


class ComputeView(Frozen):
    """What the slots of all workers did, and what that cost at `usd_per_hour` of [worker]."""

    hours: int = Field(description="How long it is about, up to now.")
    busy_slot_hours: float
    idle_slot_hours: float
    usd_micros: int | None = Field(None, description="None: an hour of a worker has no price.")
    idle_usd_micros: int | None = Field(None, description="What of that idle slots cost.")
    line: str = Field(description="All of it in words.")


class Costs(Frozen):
    """Money: spent, and allowed."""

    hour_usd_micros: int
    day_usd_micros: int
    total_usd_micros: int
    budgets: tuple[BudgetView, ...] = Field((), description="Of the limits that have one, the most used first.")
    budget_usd_micros_per_day: int | None = Field(
        description="Sum of the budgets. Tells what a day costs at most when each limit has one, never a share: each "
        "limit stops at its own."
    )
    budget_usd_micros_per_hour: int | None = Field(
        description="What an hour may cost if the day is to keep its budgets; None: a limit has none."
    )
    pools: tuple[PoolCost, ...]
    compute: ComputeView | None = Field(None, description="Of the last 24 hours; None: no worker has reported.")


def budgets_of(limits: Iterable[LimitView]) -> tuple[BudgetView, ...]:
    """Return the budgets of limits, the most used first."""
    found = [
        BudgetView(
            limit=limit.limit,
            used_usd_micros=round(limit.used_usd * 1e6),
            usd_micros_per_day=round(limit.usd_per_day * 1e6),
            share=limit.used_usd / limit.usd_per_day,
        )
        for limit in limits
        if limit.usd_per_day
    ]
    return tuple(sorted(found, key=lambda budget: -budget.share))


def costs_of(pools: Iterable[PoolCost], limits: Iterable[LimitView], *, total_usd_micros: int, now_s: float) -> Costs:
    """Return what was spent and what is left.

    Args:
        pools: What each pool spends.
        limits: All limits in use.
        total_usd_micros: Spent since counting began.
        now_s: Unix time.
    """
    rows, all_limits = tuple(pools), tuple(limits)
    budgets = budgets_of(all_limits)
    left = sum(max(0, budget.usd_micros_per_day - budget.used_usd_micros) for budget in budgets)
    hours_left = 24 - now_s % 86_400 / 3600
    return Costs(
        hour_usd_micros=sum(row.hour_usd_micros for row in rows),
        day_usd_micros=sum(row.day_usd_micros for row in rows),
        total_usd_micros=total_usd_micros,
        budgets=budgets,
        budget_usd_micros_per_day=sum(budget.usd_micros_per_day for budget in budgets) or None,
        budget_usd_micros_per_hour=round(left / hours_left) if budgets and len(budgets) == len(all_limits) else None,
        pools=rows,
    )
