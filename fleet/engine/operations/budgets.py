"""Budgets as operators change them, what has waited for them, and when each of them ends at its pace."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from fleet.config import BudgetSettings, Settings, WhenFull
from fleet.config.budgets import AMOUNTS, FLEET, RUN, pools_of, wrong_scope
from fleet.economy.budgets import (
    BudgetReading,
    PeriodReading,
    about_bots,
    abouts,
    change_budget,
    check_amounts,
    drop_budget,
    read_budgets,
    reset_budget,
    scope_in,
)
from fleet.economy.budgets.keeper import LOOK_EVERY_S
from fleet.engine.operations.paces import BUDGET_MINUTES
from fleet.engine.process.breaking import lift_now
from fleet.errors import ConfigurationError
from fleet.signals.ahead.budget_view import AmountView, BudgetScopeView, amount_view
from fleet.signals.series import rate_now
from fleet.signals.view import WaitLine
from fleet.store import keys
from fleet.store.running.brokers import Anywhere

#: Seconds until every worker has heard that a budget was changed.
HEARD_S = LOOK_EVERY_S + 0.2


def run_scope(run_id: str) -> str:
    """Return the scope of a run of a file."""
    return f"{RUN}:{run_id}"


def check_change(scope: str, amounts: Mapping[str, float], settings: Settings) -> None:
    """Refuse what cannot be set, whatever Redis has.

    Raises:
        ConfigurationError: As `check_scope`; or naming an amount.
    """
    check_scope(scope, settings)
    check_amounts(amounts)


def check_spelling(scope: str, settings: Settings) -> None:
    """Refuse a scope that is none.

    Raises:
        ConfigurationError: Saying how it is written.
    """
    if wrong := wrong_scope(scope, settings.pools, live=True):
        raise ConfigurationError(f"SCOPE: {wrong}")


def check_scope(scope: str, settings: Settings) -> None:
    """Refuse a scope that is none, or one that counts a model without a price; a run checks its own pools.

    Raises:
        ConfigurationError: Saying how it is written, or what is missing.
    """
    check_spelling(scope, settings)
    pools = () if scope.startswith(f"{RUN}:") else pools_of(scope, settings.pools)
    if missing := next(iter(unpriced_in(pools, settings, f'budgets."{scope}"').values()), None):
        raise ConfigurationError(missing)


def unpriced_in(pools: Iterable[str], settings: Settings, where: str) -> dict[str, str]:
    """Return the pools that may call a model without a price, and what is to be done about each.

    Args:
        pools: To look at.
        settings: Their models, and prices.
        where: What gives them a budget.
    """
    found: dict[str, str] = {}
    for pool in pools:
        for provider, model in settings.calls_of(pool):
            try:
                settings.check_price(f"{provider}/{model}", where)
            except ValueError as error:
                found.setdefault(pool, str(error))
    return found


def set_budget(
    state: redis.Redis,
    scope: str,
    amounts: Mapping[str, float],
    *,
    settings: Settings,
    when_full: WhenFull | None = None,
) -> BudgetSettings | None:
    """Set amounts of a scope for the whole fleet, at once; return the budget that holds now, None: nothing is limited.

    Args:
        state: State Redis.
        scope: Whose.
        amounts: US dollars by name in `AMOUNTS`; 0: not limited.
        settings: Pools, prices, and what fleet.toml allows.
        when_full: What it does when it is used up; None: as before.

    Raises:
        ConfigurationError: As `check_scope` and `change_budget`.
    """
    check_scope(scope, settings)
    return change_budget(state, scope, amounts, configured=settings.budgets, when_full=when_full)


def let_go(broker: Anywhere, settings: Settings, scope: str) -> None:
    """Open what waits because of a budget that was changed, as soon as no worker believes the old one any more.

    What stands for many opens all that waits for money: what still has none goes back to where it was. A bot opens its
    pool, too, which may have waited for the first of its bots.
    """
    time.sleep(HEARD_S)
    pools = pools_of(scope, settings.pools)
    told = ("",) if scope.endswith(":*") else abouts(scope)
    if scope.startswith("bot:") and told != ("",):
        told = (*told, *map(about_bots, pools))
    for about in told:
        lift_now(broker, [keys.queue(pool) for pool in pools], about=about, causes=("money", "budget"))


def forget_budget(state: redis.Redis, scope: str, *, spent_too: bool) -> tuple[bool, float]:
    """Let fleet.toml hold again; return whether something else did, and the US dollars that are forgotten.

    A run, of which fleet.toml says nothing, is not limited any more.

    Args:
        state: State Redis.
        scope: Whose.
        spent_too: Forget what it has spent, too.
    """
    had = reset_budget(state, scope) / 1e6 if spent_too else 0.0
    if scope.startswith(f"{RUN}:"):
        change_budget(state, scope, dict.fromkeys(AMOUNTS, 0.0), configured={})
        return True, had
    return drop_budget(state, scope), had


def budget_views(
    readings: Iterable[BudgetReading], series: Mapping[str, array[float]], now_s: float
) -> tuple[BudgetScopeView, ...]:
    """Return budgets as all who watch the fleet see them.

    Args:
        readings: How they stand.
        series: Minutes of the pools: what fleet and pools spend is taken from these, of others it is their average.
        now_s: Unix time.
    """
    return tuple(
        BudgetScopeView(
            scope=one.scope,
            when_full=one.settings.when_full,
            is_live=one.is_live,
            reserved_usd=one.reserved_usd,
            amounts=tuple(_amount(one, amount, series, now_s) for amount in one.amounts),
        )
        for one in readings
    )


def _amount(
    reading: BudgetReading, amount: PeriodReading, series: Mapping[str, array[float]], now_s: float
) -> AmountView:
    kind, _, name = reading.scope.partition(":")
    pools = list(series) if kind == FLEET else [name] if kind == "pool" and name in series else []
    pace = None
    if pools:
        micros = (rate_now(series[pool], "cost_usd_micros", minutes=BUDGET_MINUTES, now_s=now_s) for pool in pools)
        pace = sum(micros) / 1e6
    return amount_view(
        amount.period, amount.spent_usd, amount.allowed_usd, began_at=max(amount.began_at, reading.first_at),
        closes_at=amount.ends_at, now_s=now_s, per_s=pace,
    )  # fmt: skip


def read_budget_views(
    state: redis.Redis,
    settings: Settings,
    series: Mapping[str, array[float]],
    now_s: float,
    *,
    scopes: Iterable[str] | None = None,
    waited_for: Iterable[str] = (),
) -> tuple[BudgetScopeView, ...]:
    """Return how all budgets stand, of many of a kind the fullest; or those of `scopes` that have one.

    Args:
        state: State Redis.
        settings: What fleet.toml allows.
        series: Minutes of the pools.
        now_s: Unix time.
        scopes: Only these.
        waited_for: Also these, however many are as full. One more round trip if they are not there yet.
    """
    found = read_budgets(state, settings.budgets, scopes=scopes)
    hidden = set(waited_for) - {one.scope for one in found}
    if hidden:
        found += read_budgets(state, settings.budgets, scopes=sorted(hidden))
    return budget_views(found, series, now_s)


def scopes_of(waits: Iterable[WaitLine]) -> set[str]:
    """Return the scopes of the budgets that tasks wait for, those that stand for many left out."""
    scopes = {scope_in(line.about) for line in waits if line.cause in ("money", "budget")}
    return {scope for scope in scopes if scope and not scope.endswith(":*")}


def differing(readings: Iterable[BudgetReading], settings: Settings) -> list[tuple[str, str, str]]:
    """Return the scopes for which something else holds than fleet.toml says: scope, what it says, what holds."""
    return [
        (one.scope, told_settings(settings.budgets.get(one.scope)), told_settings(one.settings))
        for one in readings
        if one.is_live and not one.scope.startswith(f"{RUN}:") and one.settings != settings.budgets.get(one.scope)
    ]


def told_settings(budget: BudgetSettings | None) -> str:
    """Return what a budget allows, as fleet.toml says it."""
    if budget is None:
        return "nothing"
    allowed: list[Any] = [f"{name} = {usd:g}" for name in AMOUNTS if (usd := getattr(budget, name)) is not None]
    return ", ".join([*allowed, *([f'when_full = "{budget.when_full}"'] if budget.when_full != "wait" else [])])
