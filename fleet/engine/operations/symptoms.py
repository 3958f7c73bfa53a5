"""What a diagnosis goes by beside the view, read where departments meet. What is made of it: `signals/diagnosis`."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import redis

from fleet.diversity.window import read_state
from fleet.models import bot_name
from fleet.resilience import BreakerView
from fleet.roster.quarantine import read_quarantined
from fleet.signals.diagnosis.symptoms import Alarm, BreakerFacts, OutBot, Symptoms
from fleet.signals.recorder import SILENT_S, WorkerReport, split_reports
from fleet.signals.windows import Failure
from fleet.store import keys


def read_symptoms(
    state: redis.Redis,
    *,
    now_s: float,
    breakers: Mapping[str, BreakerView],
    series: Mapping[str, array[float]],
    failures: Sequence[Failure],
    workers: Mapping[bytes, bytes],
    pools_with_bots_out: Iterable[str],
    redis_most_bytes: int,
) -> Symptoms:
    """Return what a view does not show. Two round trips, one while no bot is out.

    Args:
        state: Plain client of the state Redis.
        now_s: Unix time of Redis.
        breakers: By `provider/model/key`.
        series: Minutes and hours of each pool.
        failures: The last failed tasks.
        workers: Rows of the workers' reports.
        pools_with_bots_out: Whose quarantined bots are to be named.
        redis_most_bytes: Memory that Redis may use; 0: not limited.
    """
    return Symptoms(
        breakers={limit: _breaker(view) for limit, view in breakers.items()},
        series=series,
        failures=failures,
        silent=_silent(workers, now_s),
        out=_out(state, pools_with_bots_out),
        alarms=_alarms(state),
        redis_most_bytes=redis_most_bytes,
    )


def _breaker(view: BreakerView) -> BreakerFacts:
    wait = view.wait
    if wait is None:
        return BreakerFacts(is_open=False, failed=view.failed, well=view.well, timed_out=view.timed_out)
    return BreakerFacts(True, view.since, wait.cause, wait.told, view.failed, view.well, view.timed_out)


def _silent(rows: Mapping[bytes, bytes], now_s: float) -> tuple[WorkerReport, ...]:
    everyone, _ = split_reports(dict(rows), now_s=0.0)  # at 0 none is stale
    return tuple(report for report in everyone if report.at < now_s - SILENT_S)


def _out(state: redis.Redis, pools: Iterable[str]) -> dict[str, tuple[OutBot, ...]]:
    found: dict[str, tuple[OutBot, ...]] = {}
    for pool in pools:
        quarantined = read_quarantined(state, [pool])
        found[pool] = tuple(
            OutBot(bot.bot, bot.since or None, bot.until, bot.reason, bot.by) for bot in quarantined.values()
        )
    return found


def _alarms(state: redis.Redis) -> tuple[Alarm, ...]:
    """Return the classes in alarm, as the watch over likeness has found them."""
    found = []
    for field, raw in cast("dict[bytes, bytes]", state.hgetall(keys.diversity_states())).items():
        pool, _, kind = field.decode().partition("|")
        known = read_state(pool, kind, raw)
        if known.alarm:
            reading = next((one for one in known.readings.values() if one.fallen), None)
            found.append(Alarm(
                pool, kind, tuple(bot_name(pool, bot) for bot in known.flagged), None,
                None if reading is None else reading.score, None if reading is None else reading.usual_score,
            ))  # fmt: skip
    return tuple(found)
