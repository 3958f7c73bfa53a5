"""What may still be spent: of the days of limits and of budgets, as the estimate of a run takes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from fleet.config import BudgetSettings, LimitSettings
from fleet.config.budgets import FLEET, PERIODS
from fleet.economy.budgets.reader import BudgetReading, PeriodReading, bounds
from fleet.economy.habits import Funds
from fleet.limiter import LimitSnapshot
from fleet.limiter.limits import FULL_SHARE, LOWEST_ON_RESERVE
from fleet.money import PICOS, PICOS_PER_MICRO
from fleet.signals.ahead.outlook import usd as told

DAY_S = 86_400.0


def funds_of_limit(
    api: str, settings: LimitSettings, standing: LimitSnapshot | None = None, *, priority: int, now_s: float
) -> Iterator[Funds]:
    """Yield what a limit's day may still cost, in dollars and in requests.

    Args:
        api: `provider/model`.
        settings: As configured.
        standing: As it stands; None: nothing of the day is used.
        priority: Of the tasks: bulk may stop before the rest.
        now_s: Unix time.
    """
    share, opens_in_s = _share(settings.when_full, priority), DAY_S - now_s % DAY_S
    usd, requests = settings.usd_per_day, settings.requests_per_day
    if standing is not None:
        usd = None if standing.usd_micros_per_day is None else standing.usd_micros_per_day / 1e6
        requests = standing.requests_per_day
    if usd:
        used = 0.0 if standing is None else standing.used_usd_micros * PICOS_PER_MICRO
        each = usd * share * PICOS
        yield Funds(f"the day's budget of {api} ({told(usd)})", max(0.0, each - used), each, opens_in_s, DAY_S, api)
    if requests:
        sent, each = 0 if standing is None else standing.used_requests, requests * share
        about = f"the day's requests of {api} ({requests:,})"
        yield Funds(about, max(0.0, each - sent), each, opens_in_s, DAY_S, api, unit="requests")


def funds_of_budgets(
    readings: Iterable[BudgetReading], *, pools: Collection[str], priority: int, now_s: float
) -> Iterator[Funds]:
    """Yield what the budgets of the fleet and of pools may still cost.

    Weakness: those of tenants, bots and other runs are left out.

    Args:
        readings: How budgets stand.
        pools: Those of the tasks.
        priority: Of the tasks.
        now_s: Unix time.
    """
    for one in readings:
        kind, _, name = one.scope.partition(":")
        if one.scope != FLEET and not (kind == "pool" and name in pools):
            continue
        share = _share(one.settings.when_full, priority)
        for amount in one.amounts:
            each = amount.allowed_usd * share * PICOS
            opens_in_s = None if amount.ends_at is None else max(0.0, amount.ends_at - now_s)
            yield Funds(
                about=f"the budget of {one.scope} ({told(amount.allowed_usd)} {_of(amount.period)})",
                left=max(0.0, each - amount.spent_picos),
                each=0.0 if amount.ends_at is None else each,
                opens_in_s=opens_in_s,
                period_s=0.0 if amount.ends_at is None else amount.ends_at - amount.began_at,
                pools=frozenset({name}) if name else frozenset(),
            )


def unused(budgets: Mapping[str, BudgetSettings], now_s: float) -> Iterator[BudgetReading]:
    """Yield budgets of which nothing is spent, for who has no Redis."""
    for scope, settings in budgets.items():
        amounts = tuple(
            PeriodReading(period, allowed, 0, *bounds(period, now_s))
            for period, allowed in zip(PERIODS, settings.allowed, strict=True)
            if allowed is not None
        )
        yield BudgetReading(scope, settings, False, amounts, 0.0)


def _share(when_full: str, priority: int) -> float:
    return FULL_SHARE if when_full == "stop bulk" and priority > LOWEST_ON_RESERVE else 1.0


def _of(period: str) -> str:
    return period if period == "in all" else f"{'an' if period == 'hour' else 'a'} {period}"
