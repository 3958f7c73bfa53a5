"""What a diagnosis is made of: a view, and what the view does not show. Handed in, for departments do not meet."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from fleet.config import tool_of
from fleet.signals.recorder import WorkerReport
from fleet.signals.series import last_minutes
from fleet.signals.unusual.alarms import Alarm
from fleet.signals.view import FleetView
from fleet.signals.windows import Failure, Period
from fleet.waits import Cause

#: Minutes that a finding is about, unless it is about an outage (count); and those before, which say what is usual.
RECENT_MIN, USUAL_MIN = 5, 60
#: Seconds that a breaker counts its calls over; the share of these that must fail for an API to fail still; failures to
#: be expected among them if it did, from which it tells that none has (count); seconds since a minute with one.
OUTAGE_WINDOW_S, STILL_SHARE, FEW_STILL, STILL_S = 30.0, 0.1, 3, 120.0


@dataclass(frozen=True, slots=True)
class BreakerFacts:
    """A breaker that is not just closed and quiet. Calls are those of the last 30 s.

    Args:
        is_open: Calls wait.
        since: When it opened; None: it is closed.
        cause: Why; None: it is closed.
        told: What the provider said.
        failed: Calls that failed for a reason that others would meet as well.
        well: Calls that were answered.
        timed_out: Those of the failed that got no answer in time.
        calls: Calls of the last minutes by what became of them: `well`, `outage`, `late`, `key`, `credit`,
            `configuration`, `other`; 429s are not among them.
        failed_at: Start of the last minute in which one failed; None: none has since it was closed last.
        is_silent: It is open because nothing was answered for far longer than usual.
    """

    is_open: bool
    since: float | None = None
    cause: Cause | None = None
    told: str = ""
    failed: int = 0
    well: int = 0
    timed_out: int = 0
    calls: Mapping[str, int] = field(default_factory=dict)
    failed_at: float | None = None
    is_silent: bool = False

    def still_fails(self, failed: int, now_s: float) -> bool:
        """True while what failed so often in the last minutes may still do: what is over is told no more.

        The last 30 s decide; where they have seen too few calls to tell, so does the last minute with a failure.
        """
        now = self.failed + self.well
        if self.is_open or self.failed:
            return self.is_open or self.failed >= STILL_SHARE * now
        is_rare = failed * now < FEW_STILL * max(failed, sum(self.calls.values()))
        return is_rare and self.failed_at is not None and self.failed_at > now_s - STILL_S


@dataclass(frozen=True, slots=True)
class OpenCalls:
    """Calls of living workers that have no answer yet.

    Args:
        calls: How many there are.
        ages_s: Seconds since each of a random few of them left.
    """

    calls: int
    ages_s: tuple[float, ...]

    def older_than(self, seconds: float) -> int:
        """Return how many of all are older; an estimate unless all were looked at."""
        if not self.ages_s:
            return 0
        return round(self.calls * sum(age > seconds for age in self.ages_s) / len(self.ages_s))


class LastTask(NamedTuple):
    """A task that ended well: when (Unix seconds), of which pool, and how long it ran."""

    at: float
    pool: str
    ran_ms: int


@dataclass(frozen=True, slots=True)
class CacheReads:
    """Calls with a document, under one limit.

    Args:
        hit: They have read it from the provider's cache.
        missed: They have not, although it was asked for shortly before.
        cold: They went first, for it had lain idle for longer than it is kept, or was new.
    """

    hit: int = 0
    missed: int = 0
    cold: int = 0

    @property
    def calls(self) -> int:
        return self.hit + self.missed + self.cold

    @property
    def share(self) -> float:
        """Share of the calls that have read it."""
        return self.hit / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class OutBot:
    """A bot in quarantine. Times are Unix seconds; `until` None: until somebody releases it."""

    name: str
    since: float | None
    until: float | None
    reason: str
    by: str


@dataclass(frozen=True)
class Symptoms:
    """Beside the view, at the same time.

    Args:
        breakers: By `provider/model/key`.
        series: Minutes and hours of each pool.
        silent: The last reports of workers that have said nothing for a while, and did not take leave.
        failures: The last failed tasks.
        out: Bots in quarantine, by pool.
        backlogs: Of each pool, (minute since 1970, waiting tasks), the oldest first.
        redis_most_bytes: Memory that Redis may use; 0: not limited.
        ended: By `provider/model`, the last tasks that ended well, as far as pools remember them, the newest first.
        known_from: By `provider/model`: what is not among them was answered before that, or never.
        under_way: By `provider/model/key`, calls without an answer.
        unusual: Keys and bots that are asked for far more than usual.
        reads: By document and `provider/model/key`: what calls have read from caches in the last 10 to 20 minutes, and
            in the hour before.
        schedules: What keeps tasks from being submitted by the clock, in one sentence; empty: nothing.
    """

    breakers: Mapping[str, BreakerFacts] = field(default_factory=dict)
    series: Mapping[str, array[float]] = field(default_factory=dict)
    silent: tuple[WorkerReport, ...] = ()
    failures: Sequence[Failure] = ()
    out: Mapping[str, tuple[OutBot, ...]] = field(default_factory=dict)
    backlogs: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    redis_most_bytes: int = 0
    ended: Mapping[str, Sequence[LastTask]] = field(default_factory=dict)
    known_from: Mapping[str, float] = field(default_factory=dict)
    under_way: Mapping[str, OpenCalls] = field(default_factory=dict)
    unusual: tuple[Alarm, ...] = ()
    reads: Mapping[tuple[str, str], tuple[CacheReads, CacheReads]] = field(default_factory=dict)
    schedules: str = ""

    @cached_property
    def answered_at(self) -> dict[str, float]:
        """When a task was answered last, by `provider/model`."""
        return {api: tasks[0].at for api, tasks in self.ended.items() if tasks}


@dataclass(frozen=True)
class Case:
    """A view and its symptoms, and what rules ask of both. Each answer is worked out once: there may be 1,000 pools."""

    view: FleetView
    symptoms: Symptoms
    _sums: dict[tuple[str, float, int], Period] = field(default_factory=dict, repr=False)

    @property
    def now_s(self) -> float:
        """Unix time of the view."""
        return self.view.at

    def recent(self, pool: str, minutes: int = RECENT_MIN) -> Period:
        """Return the sums of a pool's last minutes, the one that runs among them."""
        return self._sum(pool, self.now_s, minutes)

    def usual(self, pool: str, minutes: int = RECENT_MIN) -> Period:
        """Return the sums of the hour before those."""
        return self._sum(pool, self.now_s - 60 * minutes, USUAL_MIN - minutes)

    def _sum(self, pool: str, now_s: float, minutes: int) -> Period:
        key = pool, now_s, minutes
        if key not in self._sums:
            series = self.symptoms.series.get(pool, array("d"))
            self._sums[key] = last_minutes(series, now_s=now_s, count=minutes)
        return self._sums[key]

    def waiting(self, *causes: Cause, about: str | None = None, pool: str | None = None) -> int:
        """Return how many tasks wait for one of these causes: of one thing, or of one pool."""
        return sum(self._waiting[cause, about, pool] for cause in causes)

    def pools_on(self, api: str) -> tuple[str, ...]:
        """Return the pools whose own API this is."""
        return tuple(self._pools_by_api.get(api, ()))

    def calls_on(self, api: str) -> int:
        """Return the calls of the last minutes of the pools whose own API this is, as far as their tasks have ended."""
        return round(sum(self.recent(pool).calls for pool in self.pools_on(api)))

    @cached_property
    def in_use(self) -> frozenset[str]:
        """The limits under which something was sent in the last minutes, as far as is known."""
        return frozenset(limit.limit for limit in self.view.limits if self._is_used(limit.limit))

    @cached_property
    def models_in_use(self) -> frozenset[str]:
        """Those of them that are models': a fleet whose models are all down has no way left, whatever its tools do."""
        return frozenset(limit for limit in self.in_use if not tool_of(limit))

    def _is_used(self, limit: str) -> bool:
        facts = self.symptoms.breakers.get(limit)
        if facts is not None and (facts.is_open or facts.calls):
            return True
        return any(self.recent(pool).calls for pool in self.pools_on(api_of(limit)))

    @cached_property
    def _waiting(self) -> Counter[tuple[Cause, str | None, str | None]]:
        counts: Counter[tuple[Cause, str | None, str | None]] = Counter()
        for line in self.view.waits:
            for key in ((None, None), (line.about, None), (None, line.pool)):
                counts[line.cause, *key] += line.tasks + line.in_slots
        return counts

    @cached_property
    def _pools_by_api(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pool in self.view.pools:
            found.setdefault(pool.api, []).append(pool.pool)
        return found


def called(api: str) -> str:
    """Return what a sentence that begins with an API calls it: tools are not models."""
    tool = tool_of(api)
    return f"The tool {tool}" if tool else api


def api_of(limit: str) -> str:
    """Return `provider/model` of a limit's name."""
    return limit.rpartition("/")[0]
