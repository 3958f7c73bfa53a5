"""A fleet that is played: views and symptoms made by hand, at a clock that the test sets. No Redis."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from fleet.models import bot_name
from fleet.signals import catalogue
from fleet.signals.bot_table import HealthColumns
from fleet.signals.cost_view import Costs
from fleet.signals.diagnosis.symptoms import LastTask, Symptoms
from fleet.signals.limit_view import LimitView
from fleet.signals.picture import bot_table
from fleet.signals.recorder import WorkerReport
from fleet.signals.series import series_of
from fleet.signals.spread import Verdict
from fleet.signals.view import (
    BotSpread,
    Durations,
    ErrorMatrix,
    FleetView,
    PoolView,
    Quantiles,
    Recent,
    ResourcesView,
    Series,
    WaitLine,
)
from fleet.signals.windows import HOURS, MINUTES, PERIOD, Failure, Period, bot_rows_of

#: 2026-11-29 14:02:00 UTC.
NOW_S = 1_795_960_920.0
#: The pools that are played, with their APIs.
POOLS = {"research": "alpha/m-1", "writing": "beta/m-2"}
BOTS = 10


def wait_line(pool: str, cause: str, tasks: int, **fields: Any) -> WaitLine:
    """Return a reason for which tasks wait."""
    return WaitLine.model_validate({"pool": pool, "cause": cause, "tasks": tasks, "line": "why", **fields})


def report(name: str, *, ago_s: float = 1.0, now_s: float = NOW_S, **fields: Any) -> WorkerReport:
    """Return what a worker reported so many seconds ago."""
    return WorkerReport.model_validate({
        "name": name, "pid": 7, "process": f"p-{name}", "host": "h", "cpu_percent": 10, "rss_mb": 60, "slots": 20,
        "busy": 5, "at": now_s - ago_s, "beat_at": now_s - ago_s, **fields,
    })  # fmt: skip


def minutes_of_pool(rows: Mapping[int, Mapping[str, float]], *, now_s: float = NOW_S) -> array[float]:
    """Return the series of a pool; keys are minutes ago, values sums of `Period` by name."""
    ring = [bytes(PERIOD.size)] * (MINUTES + HOURS)
    for ago, sums in rows.items():
        number = int(now_s // 60) - ago
        ring[number % MINUTES] = PERIOD.pack(*Period(number, **{**dict.fromkeys(Period._fields[1:], 0.0), **sums})[:])
    return series_of(b"".join(ring))


def steady(**sums: float) -> dict[int, dict[str, float]]:
    """Return an hour in which every minute was the same."""
    each = {"completions": 20.0, "ok": 20.0, "calls": 20.0, "ran_ms": 40_000.0, "output_tokens": 4000.0, **sums}
    return {ago: dict(each) for ago in range(60)}


def failures(pool: str, type_name: str, count: int, *, bots: int = 1, ago_s: float = 30.0) -> tuple[Failure, ...]:
    """Return failed tasks, spread over so many bots."""
    return tuple(
        Failure(NOW_S - ago_s, f"t{n}", pool, bot_name(pool, n % bots + 1), POOLS[pool], type_name)
        for n in range(count)
    )


def pool_view(pool: str, **fields: Any) -> PoolView:
    """Return a pool at work, with nothing wrong."""
    nothing = Quantiles(count=0, p50=None, p90=None, p99=None)
    spread = BotSpread(bots=BOTS, silent=0, min=1, p10=1, p50=1, p90=1, max=1, gini=0, jain=1)
    return PoolView.model_validate({
        "pool": pool, "api": POOLS.get(pool, ""),
        "bots": BOTS, "workers": 2, "in_flight": 5, "backlog": {}, "waiting": 0,
        "oldest_s": None, "gate": "open", "is_open": True, "gate_left_s": None, "simulated": False,
        "completions": 1200, "failed": 0, "calls": 1200, "rate_limited": 0, "tokens": 1, "cost_usd_micros": 1,
        "spread": spread, "durations": Durations(queued=nothing, limited=nothing, ran=nothing), **fields,
    })  # fmt: skip


def limit_view(api: str, **fields: Any) -> LimitView:
    """Return a limit that binds nobody."""
    return LimitView.model_validate({
        "limit": f"{api}/default", "rpm": 100, "used_rpm": 20, "tpm": None, "used_tpm": 0, "in_flight": 0,
        "waiting": 0, "next_grant_s": 0, "held_s": 0, "refused": 0, "refused_at": None, "is_changed": False, **fields,
    })  # fmt: skip


def nothing_against(bots: int) -> HealthColumns:
    """Return the columns of bots in good health."""
    return HealthColumns(
        evidence=(0.0,) * bots, test=("",) * bots, bad_percent=(0,) * bots, avoids_percent=(0,) * bots,
        slow_percent=(0,) * bots, reason=("",) * bots, until=(None,) * bots, alike=(False,) * bots,
    )  # fmt: skip


def view_of(
    *, now_s: float = NOW_S, pools: Iterable[PoolView] = (), limits: Iterable[LimitView] = (),
    waits: Iterable[WaitLine] = (), workers: Iterable[WorkerReport] | None = None, **fields: Any,
) -> FleetView:  # fmt: skip
    """Return a healthy fleet of two pools at work; what is given takes the place of what is usual."""
    by_pool = {pool: pool_view(pool) for pool in POOLS} | {one.pool: one for one in pools}
    by_limit = {f"{api}/default": limit_view(api) for api in POOLS.values()} | {one.limit: one for one in limits}
    living = [report("w1@h", now_s=now_s), report("w2@h", now_s=now_s)] if workers is None else list(workers)
    names = {pool: [bot_name(pool, number) for number in range(1, BOTS + 1)] for pool in POOLS}
    rows = {pool: bot_rows_of(b"", BOTS).of_bots(BOTS) for pool in POOLS}
    nothing = Quantiles(count=0, p50=None, p90=None, p99=None)
    return FleetView(
        at=now_s, simulated=False, totals={counter.name: 0 for counter in catalogue.COUNTERS},
        minutes=Series(**dict.fromkeys(Series.model_fields, ())),
        hours=Series(**dict.fromkeys(Series.model_fields, ())),
        recent=Recent(completions=0, failed=0, span_s=1, per_s=0, failed_share=0, bots=0),
        durations=Durations(queued=nothing, limited=nothing, ran=nothing),
        spread=BotSpread(bots=2 * BOTS, silent=0, min=1, p10=1, p50=1, p90=1, max=1, gini=0, jain=1),
        bots=bot_table(names, rows, {}, {}, health=nothing_against(2 * BOTS), now_s=now_s),
        errors=ErrorMatrix(
            failures=0, since=now_s - 3600, apis=(), api_totals=(), rows=(), rows_left_out=0, types={}, last=(),
            verdict=Verdict(verdict="none", reason=""),
        ),
        pools=tuple(by_pool.values()), limits=tuple(by_limit.values()), waits=tuple(waits),
        cost=Costs(
            hour_usd_micros=0, day_usd_micros=0, total_usd_micros=0, budget_usd_micros_per_day=None,
            budget_usd_micros_per_hour=None, pools=(),
        ),
        events=fields.pop("events", ()),
        resources=ResourcesView(
            workers=tuple(living), troubles=fields.pop("troubles", ()), slots=40, busy=fields.pop("busy", 10),
            cpu_percent=20, rss_mb=120, redis_mb=fields.pop("redis_mb", 50),
        ), **fields,
    )  # fmt: skip


def symptoms_of(**fields: Any) -> Symptoms:
    """Return a healthy hour; what is given takes the place of what is usual; `answered_at`: of one task each."""
    series = {pool: minutes_of_pool(steady()) for pool in POOLS} | fields.pop("series", {})
    ended = {api: [LastTask(at, "", 1)] for api, at in fields.pop("answered_at", {}).items()} | fields.pop("ended", {})
    return Symptoms(series=series, ended=ended, **fields)
