"""What may still be spent: of the days of limits and of budgets, as the estimate of a run takes it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from fleet.config import BudgetSettings, LimitSettings, Settings
from fleet.config.budgets import FLEET, PERIODS
from fleet.economy.budgets.live import in_force
from fleet.economy.budgets.reader import BudgetReading, PeriodReading, bounds
from fleet.economy.habits import Funds
from fleet.limiter import LimitSnapshot
from fleet.limiter.limits import FULL_SHARE, LOWEST_ON_RESERVE
from fleet.models import bot_name
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


def scopes_of(settings: Settings, pools: Iterable[str], tenants: Iterable[str]) -> list[str]:
    """Return the scopes whose budgets may count tasks of these pools and tenants; those of runs are their own."""
    bots = (bot_name(pool, number) for pool in pools for number in range(1, settings.pools[pool].bots + 1))
    named = (("pool", pools), ("tenant", tenants), ("bot", bots))
    return [FLEET, *(f"{kind}:{name}" for kind, names in named for name in names)]


def funds_of_budgets(
    readings: Iterable[BudgetReading], *, bots: Mapping[str, int], priority: int, now_s: float
) -> Iterator[Funds]:
    """Yield what budgets may still cost; those of a pool's bots together, where each of them has one.

    Args:
        readings: How those of `scopes_of` stand.
        bots: How many each pool of the tasks has.
        priority: Of the tasks.
        now_s: Unix time.
    """
    of_bots: defaultdict[tuple[str, str], list[Funds]] = defaultdict(list)
    for one in readings:
        kind, _, name = one.scope.partition(":")
        share = _share(one.settings.when_full, priority)
        for amount in one.amounts:
            each = amount.allowed_usd * share * PICOS
            opens_in_s = None if amount.ends_at is None else max(0.0, amount.ends_at - now_s)
            fund = Funds(
                about=f"the budget of {one.scope} ({told(amount.allowed_usd)} {_of(amount.period)})",
                left=max(0.0, each - amount.spent_picos),
                each=0.0 if amount.ends_at is None else each,
                opens_in_s=opens_in_s,
                period_s=0.0 if amount.ends_at is None else amount.ends_at - amount.began_at,
                pools=frozenset({name.rpartition("-")[0] if kind == "bot" else name}) if name else frozenset(),
                tenant=name if kind == "tenant" else "",
            )
            if kind != "bot":
                yield fund
                continue
            same = of_bots[name.rpartition("-")[0], amount.period]
            same.append(fund)
    for (pool, period), funds in of_bots.items():
        if len(funds) == bots[pool]:  # else others take the tasks of those that have no money left
            left, each = (math.fsum(getattr(fund, what) for fund in funds) for what in ("left", "each"))
            about = f"the budgets of the {len(funds):,} bots of {pool} ({_of(period)})"
            yield replace(funds[0], about=about, left=left, each=each)


def unused(budgets: Mapping[str, BudgetSettings], scopes: Iterable[str], now_s: float) -> Iterator[BudgetReading]:
    """Yield budgets of these scopes of which nothing is spent, for who has no Redis."""
    for scope in scopes:
        held = in_force(scope, budgets, {})
        if held is None:
            continue
        settings, _ = held
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
