"""What a diagnosis goes by beside the view, read where departments meet. What is made of it: `signals/diagnosis`."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import redis

from fleet import config
from fleet.economy.bill.notes import lives, read_note
from fleet.economy.contexts.reads import STEPS, counts_in, step_of
from fleet.engine.operations.schedules.view import read_schedules
from fleet.resilience import BreakerView
from fleet.roster import PoolBots, Quarantine
from fleet.signals.counted.answered import KnownTasks
from fleet.signals.diagnosis.symptoms import BreakerFacts, CacheReads, LastTask, OpenCalls, OutBot, Symptoms
from fleet.signals.recorder import SILENT_S, WorkerReport, split_reports
from fleet.signals.unusual.alarms import alarms_of
from fleet.signals.windows import STATUSES, Failure, RecentEntry, names_by_checksum
from fleet.store import context_keys, keys, vault_keys

#: Calls under way of each limit whose age is looked at, at most; and tasks at work from which they are (count).
OPEN_CALLS, FEWEST_CALLS = 50, 5
#: Steps of ten minutes that are now, of those in which it is looked what was read from caches (count).
NEWEST_STEPS = 2
FAILED_STATUS = STATUSES.index("failed")


def read_symptoms(
    state: redis.Redis,
    *,
    now_s: float,
    breakers: Mapping[str, BreakerView],
    series: Mapping[str, array[float]],
    failures: Sequence[Failure],
    workers: Mapping[bytes, bytes],
    bots: Mapping[str, PoolBots],
    reasons: Mapping[str, Quarantine],
    redis_most_bytes: int,
    answered: KnownTasks,
    in_hand: Mapping[str, int],
) -> Symptoms:
    """Return what a view does not show. One round trip, and two where fleet.toml has schedules.

    Args:
        state: Plain client of the state Redis.
        now_s: Unix time of Redis.
        breakers: By `provider/model/key`.
        series: Minutes and hours of each pool.
        failures: The last failed tasks.
        workers: Rows of the workers' reports.
        bots: Who is out, by pool.
        reasons: Why, by bot.
        redis_most_bytes: Memory that Redis may use; 0: not limited.
        answered: The last completions, as far as each API's are known.
        in_hand: Tasks at work by the limit of their pool's own API; where there are a few, their calls are looked at.
    """
    busy = [limit for limit, tasks in in_hand.items() if tasks >= FEWEST_CALLS]
    with state.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.backlogs())
        pipe.hgetall(vault_keys.unusual())
        for limit in busy:
            pipe.hrandfield(keys.limit_keys(limit).open, OPEN_CALLS, withvalues=True)
        for step in range(STEPS):
            pipe.hgetall(context_keys.reads(step_of(now_s) - step))
        backlogs, unusual, *rest = pipe.execute()
    samples, steps = rest[: len(busy)], rest[len(busy) :]
    return Symptoms(
        breakers={limit: _breaker(view) for limit, view in breakers.items()},
        series=series,
        failures=failures,
        silent=_silent(workers, now_s),
        out=_out(bots, reasons),
        backlogs=_backlogs(backlogs),
        redis_most_bytes=redis_most_bytes,
        ended=_ended(answered.entries, breakers, series),
        known_from=answered.known_from,
        unusual=alarms_of(unusual.values()),
        reads=_reads(steps),
        schedules=read_schedules(state, config.current(), now_s).trouble,
        under_way=_under_way(dict(zip(busy, samples, strict=True)), in_hand, workers, now_s),
    )


def _reads(steps: Sequence[Mapping[bytes, bytes]]) -> dict[tuple[str, str], tuple[CacheReads, CacheReads]]:
    """Return what calls have read from caches by document and limit: in the newest steps, and in those before."""
    counts: dict[tuple[str, str], tuple[Counter[str], Counter[str]]] = {}
    for number, rows in enumerate(steps):
        for key, what, calls in counts_in(rows):
            counts.setdefault(key, (Counter(), Counter()))[number >= NEWEST_STEPS][what] += calls
    return {key: (CacheReads(**now), CacheReads(**before)) for key, (now, before) in counts.items()}


def _ended(recent: Sequence[RecentEntry], limits: Iterable[str], pools: Iterable[str]) -> dict[str, list[LastTask]]:
    """Return the tasks of each API that ended well, by `provider/model`, the newest first."""
    api_of = names_by_checksum(limit.rpartition("/")[0] for limit in limits)
    pool_of = names_by_checksum(pools)
    found: dict[str, list[LastTask]] = {}
    for entry in sorted(recent, key=lambda one: one.at, reverse=True):
        if entry.status != FAILED_STATUS:
            found.setdefault(api_of[entry.api], []).append(LastTask(entry.at, pool_of[entry.pool], entry.ran_ms))
    return found


def _breaker(view: BreakerView) -> BreakerFacts:
    wait = view.wait
    counts = view.failed, view.well, view.timed_out, view.calls, view.failed_at
    if wait is None:
        return BreakerFacts(False, None, None, "", *counts)
    return BreakerFacts(True, view.since, wait.cause, wait.told, *counts, view.is_silent)


def _silent(rows: Mapping[bytes, bytes], now_s: float) -> tuple[WorkerReport, ...]:
    everyone, _ = split_reports(dict(rows), now_s=0.0)  # at 0 none is stale
    return tuple(report for report in everyone if report.at < now_s - SILENT_S)


def _out(bots: Mapping[str, PoolBots], reasons: Mapping[str, Quarantine]) -> dict[str, tuple[OutBot, ...]]:
    """Return the bots that are out, by pool; why is known of those that were asked for."""
    return {
        pool: tuple(_out_bot(bot, until, reasons.get(bot)) for bot, until in one.out.items())
        for pool, one in bots.items() if one.out
    }  # fmt: skip


def _out_bot(bot: str, until: float | None, why: Quarantine | None) -> OutBot:
    if why is None:
        return OutBot(bot, None, until, "", "")
    return OutBot(bot, why.since or None, until, why.reason, why.by)


def _under_way(
    samples: Mapping[str, Sequence[bytes]], in_hand: Mapping[str, int], workers: Mapping[bytes, bytes], now_s: float
) -> dict[str, OpenCalls]:
    """Return calls without an answer by their limit; those of processes that are gone will have none."""
    everyone, _ = split_reports(dict(workers), now_s=0.0)
    living = {report.process for report in everyone if report.at >= now_s - SILENT_S}
    found = {}
    for limit, sample in samples.items():
        noted = [note for text in sample[1::2] if (note := read_note(text)) is not None]
        ages = tuple(
            now_s - sent_us / 1e6
            for note, sent_us, _ in noted
            if note.came is None and (not note.process or lives(note.process, living))
        )
        if ages:
            found[limit] = OpenCalls(len(ages) if len(noted) < OPEN_CALLS else max(len(ages), in_hand[limit]), ages)
    return found


def _backlogs(rows: Mapping[bytes, bytes]) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return how many tasks waited minute by minute, the oldest first; a pool that a minute does not name had none."""
    minutes = {int(minute): json.loads(row) for minute, row in sorted(rows.items()) if row}
    pools = {pool for waiting in minutes.values() for pool in waiting}
    return {pool: tuple((at, waiting.get(pool, 0)) for at, waiting in minutes.items()) for pool in pools}
