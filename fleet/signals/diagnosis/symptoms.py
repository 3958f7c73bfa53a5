"""What a diagnosis is made of: a view, and what the view does not show. Handed in, for departments do not meet."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.signals.recorder import WorkerReport
from fleet.signals.series import last_minutes
from fleet.signals.view import FleetView
from fleet.signals.windows import Failure, Period
from fleet.waits import Cause

#: Minutes that a finding is about, unless it is about an outage (count); and those before, which say what is usual.
RECENT_MIN, USUAL_MIN = 5, 60
#: Minutes of which it is kept how many tasks waited (count).
BACKLOG_MINUTES = 16


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
    """

    is_open: bool
    since: float | None = None
    cause: Cause | None = None
    told: str = ""
    failed: int = 0
    well: int = 0
    timed_out: int = 0
    calls: Mapping[str, int] = field(default_factory=dict)


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
    """

    breakers: Mapping[str, BreakerFacts] = field(default_factory=dict)
    series: Mapping[str, array[float]] = field(default_factory=dict)
    silent: tuple[WorkerReport, ...] = ()
    failures: Sequence[Failure] = ()
    out: Mapping[str, tuple[OutBot, ...]] = field(default_factory=dict)
    backlogs: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    redis_most_bytes: int = 0


@dataclass(frozen=True)
class Case:
    """A view and its symptoms, and what rules ask of both."""

    view: FleetView
    symptoms: Symptoms

    @property
    def now_s(self) -> float:
        """Unix time of the view."""
        return self.view.at

    def recent(self, pool: str, minutes: int = RECENT_MIN) -> Period:
        """Return the sums of a pool's last minutes, the one that runs among them."""
        return last_minutes(self.symptoms.series.get(pool, array("d")), now_s=self.now_s, count=minutes)

    def usual(self, pool: str, minutes: int = RECENT_MIN) -> Period:
        """Return the sums of the hour before those."""
        series = self.symptoms.series.get(pool, array("d"))
        return last_minutes(series, now_s=self.now_s - 60 * minutes, count=USUAL_MIN - minutes)

    def waiting(self, *causes: Cause, about: str | None = None, pool: str | None = None) -> int:
        """Return how many tasks wait for one of these causes; None: whatever it is about."""
        return sum(
            line.tasks
            for line in self.view.waits
            if line.cause in causes and about in (None, line.about) and pool in (None, line.pool)
        )

    def pools_on(self, api: str) -> tuple[str, ...]:
        """Return the pools whose own API this is."""
        return tuple(pool.pool for pool in self.view.pools if pool.api == api)


def api_of(limit: str) -> str:
    """Return `provider/model` of a limit's name."""
    return limit.rpartition("/")[0]
