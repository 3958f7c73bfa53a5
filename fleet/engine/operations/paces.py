"""How fast pools finish tasks and use up the budgets of their limits, by what they counted in the last minutes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast

import redis

from fleet.config import Settings
from fleet.limiter import LimitSnapshot
from fleet.signals.ahead.outlook import budget_ends_at, told_budget
from fleet.signals.limit_view import BreakerState, LimitView, LongLimitView
from fleet.signals.series import rate_now, series_of
from fleet.store import keys

#: Minutes that a pool's rate is taken over, and those of what a budget is used by: a day's is not lost in minutes.
DRAIN_MINUTES, BUDGET_MINUTES = 5, 15


class LimitPace(NamedTuple):
    """What is used under a limit a second; None: nobody knows apart from others, so the day so far tells."""

    usd: float | None = None
    requests: float | None = None


def finished_a_second(series: array[float], now_s: float) -> float:
    """Return the tasks that a pool finishes a second."""
    return rate_now(series, "completions", minutes=DRAIN_MINUTES, now_s=now_s)


def read_series(state: redis.Redis, pools: Iterable[str]) -> dict[str, array[float]]:
    """Return the minutes and hours of pools. One round trip, O(pools)."""
    names = list(pools)
    raw = cast("list[bytes | None]", state.mget([keys.series(pool) for pool in names])) if names else []
    return {pool: series_of(one or b"") for pool, one in zip(names, raw, strict=True)}


def paces_of(
    limits: Iterable[LimitSnapshot], series: Mapping[str, array[float]], settings: Settings, now_s: float
) -> dict[str, LimitPace]:
    """Return how fast limits that have a budget are used by the pools whose calls go under them. O(pools).

    Where one of them may call under another limit too, its counters do not say under which it did.

    Args:
        limits: How they stand.
        series: Minutes of the pools.
        settings: Pools.
        now_s: Unix time.
    """
    found = {one.limit: LimitPace(0.0, 0.0) for one in limits if one.usd_micros_per_day or one.requests_per_day}
    for pool in settings.pools if found else ():
        names = {name for call in settings.calls_of(pool) for name in settings.limit_names(*call, pool)}
        for name in names & found.keys():
            found[name] = _with(found[name], series[pool], now_s) if len(names) == 1 else LimitPace()
    return found


def _with(pace: LimitPace, series: array[float], now_s: float) -> LimitPace:
    """Return a pace and that of one more pool; what nobody knows stays so."""
    if pace.usd is None or pace.requests is None:
        return pace
    micros, calls = (
        rate_now(series, field, minutes=BUDGET_MINUTES, now_s=now_s) for field in ("cost_usd_micros", "calls")
    )
    return LimitPace(pace.usd + micros / 1e6, pace.requests + calls)


def told_budgets(limit: LimitSnapshot, pace: LimitPace, now_s: float) -> Iterator[str]:
    """Yield each budget of a limit's day in words."""
    for used, allowed, per_s, unit in _budgets(limit, pace):
        yield told_budget(used, allowed, now_s=now_s, per_s=per_s, unit=unit)


def ends_of(limit: LimitSnapshot, pace: LimitPace, now_s: float) -> tuple[float | None, ...]:
    """Return the Unix time at which each budget of a limit ends at this pace; None: it lasts the day."""
    return tuple(
        budget_ends_at(used, allowed, now_s=now_s, per_s=per_s) for used, allowed, per_s, _ in _budgets(limit, pace)
    )


def first_end(limit: LimitSnapshot, pace: LimitPace, now_s: float) -> float | None:
    """Return the Unix time at which the first of them does; None: all of them last the day."""
    return min((end for end in ends_of(limit, pace, now_s) if end is not None), default=None)


class LimitBudgets(NamedTuple):
    """The budgets of a limit's day in words, and when the first of them ends at this pace; None: they last the day."""

    limit: str
    lines: tuple[str, ...]
    ends_at: float | None


def read_limit_budgets(
    state: redis.Redis, settings: Settings, limits: Iterable[LimitSnapshot], now_s: float
) -> list[LimitBudgets]:
    """Return the budgets of limits. One round trip, O(pools)."""
    asked = list(limits)
    paces = paces_of(asked, read_series(state, settings.pools), settings, now_s)
    return [
        LimitBudgets(one.limit, tuple(told_budgets(one, pace, now_s)), first_end(one, pace, now_s))
        for one in asked
        for pace in (paces.get(one.limit, LimitPace()),)
    ]


def _budgets(limit: LimitSnapshot, pace: LimitPace) -> Iterator[tuple[float, float, float | None, str]]:
    """Yield what is used and allowed of each budget, what is used a second, and in what."""
    if limit.usd_micros_per_day:
        yield limit.used_usd_micros / 1e6, limit.usd_micros_per_day / 1e6, pace.usd, "$"
    if limit.requests_per_day:
        yield limit.used_requests, limit.requests_per_day, pace.requests, "requests"


def limit_view(limit: LimitSnapshot, breaker: BreakerState, pace: LimitPace, now_s: float) -> LimitView:
    """Return a limit as all who watch the fleet see it."""
    return LimitView(
        limit=limit.limit,
        rpm=limit.rpm,
        used_rpm=round(limit.used_rpm, 1),
        tpm=limit.tpm,
        used_tpm=round(limit.used_tpm, 1),
        in_flight=limit.in_flight,
        waiting=limit.waiting,
        next_grant_s=round(limit.queue_s, 3),
        held_s=0.0 if limit.held_until is None else round(max(0.0, limit.held_until - now_s), 3),
        refused=limit.refused,
        refused_at=limit.refused_at,
        is_changed=limit.is_changed,
        held_by=limit.held_by,
        usd_per_day=None if limit.usd_micros_per_day is None else limit.usd_micros_per_day / 1e6,
        used_usd=limit.used_usd_micros / 1e6,
        requests_per_day=limit.requests_per_day,
        used_requests=limit.used_requests,
        most_in_flight=limit.most_in_flight,
        in_flight_is_learnt=limit.in_flight_is_learnt,
        long=tuple(LongLimitView(label=long.label, used=long.used, limit=long.limit) for long in limit.long),
        others_rpm=round(limit.others_rpm, 1),
        paced_rpm=limit.paced_rpm,
        breaker=breaker,
        budgets=tuple(told_budgets(limit, pace, now_s)),
        budget_ends=ends_of(limit, pace, now_s),
    )
