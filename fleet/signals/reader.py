"""The three signals as one frozen snapshot: completions, errors, resources. Reads Redis, decides nothing.

For people and pages, not for the hot path: O(bots) per read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import redis
from pydantic import Field

from fleet.config import Settings, models_among
from fleet.frozen import Frozen
from fleet.models import bot_name
from fleet.money import micros_of
from fleet.signals import catalogue, windows
from fleet.signals.catalogue import NOBODY, ErrorField
from fleet.signals.counted.sums import added, counting, totals_of
from fleet.signals.crew import Trouble, troubles_of
from fleet.signals.recorder import WorkerReport, speaking_of, split_reports
from fleet.signals.spread import Spread, Verdict, spread_of, verdict_of
from fleet.store import keys

#: Rows of the error matrix in a snapshot, the worst first; an outage of 10,000 bots has as many rows.
ERROR_ROWS = 100


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One limit and how much of it is in use now; read by the limiter and handed in, for departments do not meet.

    `held_until` is the Unix time until which the fleet sends nothing under this limit because of a 429.
    """

    limit: str
    rpm: int | None
    tpm: int | None
    used_rpm: float | None
    used_tpm: float | None
    held_until: float | None = None


class PoolCompletions(Frozen):
    """Completions of one pool and their spread over its configured bots."""

    pool: str
    total: int
    spread: Spread


class Completions(Frozen):
    """Signal 1: what was finished, and by whom."""

    total: int
    ok: int
    degraded: int
    failed: int
    duplicates: int
    simulated: int
    fallbacks: int = Field(0, description="Of a rung of their pool's fallback ladder.")
    without_bot: int = Field(description="Results of tasks that failed before a bot was checked out.")
    pools: tuple[PoolCompletions, ...]
    spread: Spread = Field(description="Over the bots of all pools.")


class ErrorRow(Frozen):
    """One cell of the matrix bot x API, by error type."""

    pool: str
    bot: str
    api: str
    type: str
    failures: int = Field(description="Tasks that ended with this error.")
    calls: int = Field(description="Provider calls that failed with it, retried or not.")


class TypeCount(Frozen):
    """An error type over all bots and APIs."""

    type: str
    failures: int
    calls: int


class Errors(Frozen):
    """Signal 2: what went wrong, by bot and by API."""

    failures: int
    calls: int = Field(description="Calls that a provider did not answer, 429s among them: `catalogue.calls_failed`.")
    types: tuple[TypeCount, ...]
    rows: tuple[ErrorRow, ...] = Field(description=f"The {ERROR_ROWS} worst.")
    rows_left_out: int
    verdict: Verdict


class Resources(Frozen):
    """Signal 3: what the fleet uses."""

    workers: tuple[WorkerReport, ...]
    troubles: tuple[Trouble, ...] = Field((), description="What is wrong with the workers as a crew.")
    slots: int
    busy: int
    cpu_percent: float
    rss_mb: float
    budgets: tuple[BudgetRow, ...]
    input_tokens: int
    output_tokens: int
    cached_tokens: int = Field(0, description="Of the input: read from the provider's cache.")
    reasoning_tokens: int = Field(0, description="Of the output: thinking.")
    cost_usd_micros: int
    attempts: int
    calls: int
    rate_limited: int


class Snapshot(Frozen):
    """The three signals at one time."""

    at: float = Field(description="Unix time in seconds.")
    simulated: bool = Field(description="True when at least one pool is answered by the simulator.")
    completions: Completions
    errors: Errors
    resources: Resources


class Signals:
    """Reads the signals.

    Args:
        client: Plain client of the state Redis (replies are bytes).
        settings: Pools, their bots and APIs.
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings

    def read(self, *, budgets: Sequence[BudgetRow] = (), now_s: float | None = None) -> Snapshot:
        """Return the signals now. Two round trips.

        Args:
            budgets: The limiter's rows, shown as they come.
            now_s: Unix time in seconds; None: the clock of Redis.
        """
        pools = (*self._settings.pools, NOBODY)
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.smembers(keys.counted_pools())
            pipe.hgetall(keys.workers())
            for name in map(keys.errors, pools):
                pipe.hgetall(name)
            for name in map(keys.bot_rows, pools):
                pipe.get(name)
            (seconds, micros), known, workers, *rest = pipe.execute()
            for name in totals_of(counting(known, pools)):
                pipe.hgetall(name)
            totals = added(pipe.execute())
        now_s = seconds + micros / 1e6 if now_s is None else now_s
        living, _ = split_reports(workers, now_s=now_s)
        counts = {name.decode(): number for name, number in totals.items()}
        return Snapshot(
            at=now_s,
            simulated=self._settings.simulated,
            completions=self._completions(counts, dict(zip(pools, rest[len(pools) :], strict=True))),
            errors=self._errors(dict(zip(pools, map(_numbers, rest), strict=False)), catalogue.calls_failed(counts)),
            resources=_resources(counts, living, self._settings, budgets, now_s),
        )

    def _completions(self, totals: dict[str, int], by_pool: dict[str, bytes | None]) -> Completions:
        pools: list[PoolCompletions] = []
        everyone: dict[str, int] = {}
        without_bot = windows.bot_rows_of(by_pool[NOBODY] or b"", 0).completions[0]
        for pool, settings in self._settings.pools.items():
            nobody, *rows = windows.bot_rows_of(by_pool[pool] or b"", settings.bots).completions
            without_bot += nobody
            bots = {bot_name(pool, index): done for index, done in enumerate(rows[: settings.bots], start=1)}
            everyone |= bots
            total = nobody + sum(rows)  # of bots that left, too
            pools.append(PoolCompletions(pool=pool, total=total, spread=spread_of(bots)))
        return Completions(
            total=totals.get(catalogue.COMPLETIONS.name, 0),
            ok=totals.get(catalogue.OK.name, 0),
            degraded=totals.get(catalogue.DEGRADED.name, 0),
            failed=totals.get(catalogue.FAILED.name, 0),
            duplicates=totals.get(catalogue.DUPLICATES.name, 0),
            simulated=totals.get(catalogue.SIMULATED.name, 0),
            fallbacks=totals.get(catalogue.FALLBACKS.name, 0),
            without_bot=without_bot,
            pools=tuple(pools),
            spread=spread_of(everyone),
        )

    def _errors(self, by_pool: dict[str, dict[str, int]], calls_failed: int) -> Errors:
        cells = [
            (pool, ErrorField.parse(name), number) for pool, names in by_pool.items() for name, number in names.items()
        ]
        rows = _matrix(cells)
        failures = Counter({field: n for _, field, n in cells if field.of == "task"})
        apis = models_among(self._settings.limits_in_use)
        return Errors(
            failures=sum(row.failures for row in rows),
            calls=calls_failed,
            types=_types(rows),
            rows=tuple(rows[:ERROR_ROWS]),
            rows_left_out=max(0, len(rows) - ERROR_ROWS),
            verdict=verdict_of(failures, bots=self._settings.bots, apis=len(apis)),
        )


def _numbers(row: dict[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(number) for name, number in row.items()}


def _matrix(cells: Iterable[tuple[str, ErrorField, int]]) -> list[ErrorRow]:
    """Join task failures and call failures of the same bot, API and type into rows, the worst first."""
    sums: dict[tuple[str, str, str, str], Counter[str]] = {}
    for pool, field, number in cells:
        sums.setdefault((pool, field.bot, field.api, field.type), Counter())[field.of] += number
    rows = [
        ErrorRow(pool=pool, bot=bot, api=api, type=kind, failures=n["task"], calls=n["call"])
        for (pool, bot, api, kind), n in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row.failures, -row.calls, row.bot, row.api, row.type))


def _types(rows: Iterable[ErrorRow]) -> tuple[TypeCount, ...]:
    failures: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for row in rows:
        failures[row.type] += row.failures
        calls[row.type] += row.calls
    worst = sorted(failures, key=lambda kind: (-failures[kind], -calls[kind], kind))
    return tuple(TypeCount(type=kind, failures=failures[kind], calls=calls[kind]) for kind in worst)


def _resources(
    totals: dict[str, int],
    workers: Sequence[WorkerReport],
    settings: Settings,
    budgets: Sequence[BudgetRow],
    now_s: float,
) -> Resources:
    speaking = speaking_of(workers, now_s=now_s)
    return Resources(
        workers=tuple(workers),
        troubles=troubles_of(speaking, settings, now_s=now_s),
        slots=sum(worker.slots for worker in speaking),
        busy=sum(worker.busy for worker in speaking),
        cpu_percent=round(sum(worker.cpu_percent for worker in speaking), 1),
        rss_mb=round(sum(worker.rss_mb for worker in speaking), 1),
        budgets=tuple(budgets),
        input_tokens=totals.get(catalogue.INPUT_TOKENS.name, 0),
        output_tokens=totals.get(catalogue.OUTPUT_TOKENS.name, 0),
        cached_tokens=totals.get(catalogue.CACHED_TOKENS.name, 0),
        reasoning_tokens=totals.get(catalogue.REASONING_TOKENS.name, 0),
        cost_usd_micros=micros_of(catalogue.spent_picos(totals)),
        attempts=totals.get(catalogue.ATTEMPTS.name, 0),
        calls=totals.get(catalogue.CALLS.name, 0),
        rate_limited=totals.get(catalogue.RATE_LIMITED.name, 0),
    )
