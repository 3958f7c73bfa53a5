"""What one process knows of one breaker, and what it has not told the fleet yet. No Redis here.

Times are seconds of a monotonic clock, which the caller passes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from dataclasses import dataclass, field

from fleet.resilience.layouts import OPEN, PROBE, BreakerReply, Successes
from fleet.resilience.pace import Pace
from fleet.resilience.rules import (
    BELIEVED_S,
    BUDGET_S,
    QUIET_REPORT_S,
    RAMP_US,
    REPORT_S,
    ROW_IN_COMMON,
    TROUBLED_S,
    WINDOW_S,
)
from fleet.waits import CAUSES, Cause, Wait


@dataclass(slots=True)
class Unsaid:
    """The successes of one limit that this process has not reported yet.

    Attributes:
        count: How many; those of long ago count less, as the fleet's budget forgets them.
        place: Of the latest grant among them.
        by: The task that did well last.
        at: When it did.
        other_at: When another task than that one did; -1: none yet.
        began_at: When the call among them that was sent last was sent.
    """

    count: float = 0.0
    place: int = 0
    by: str = ""
    at: float = -math.inf
    other_at: float = -math.inf
    began_at: float = -math.inf

    def add(self, who: str, *, now: float, seconds: float, place: int) -> None:
        """Note one success."""
        self.count = self.count * math.exp(min(0.0, self.at - now) / BUDGET_S) + 1 if self.count else 1.0
        if who != self.by:
            self.by, self.other_at = who, self.at
        self.at, self.place, self.began_at = now, max(self.place, place), max(self.began_at, now - seconds)

    def take(self, now: float, *, is_probe: bool = False) -> Successes:
        """Return what is to be reported, and begin anew; who did well last is remembered."""
        if not self.count:
            return Successes(is_probe=is_probe)
        said = Successes(
            calls=self.count,
            place=self.place,
            age_us=_age_us(self.at, now),
            other_age_us=_age_us(self.other_at, now),
            began_age_us=_age_us(self.began_at, now),
            is_probe=is_probe,
        )
        self.count, self.place, self.began_at = 0.0, 0, -math.inf
        return said


@dataclass(slots=True)
class Known:
    """What this process knows of one breaker.

    Attributes:
        limit: `provider/model/key`.
        wait: Why it is open, as heard last; None: it is closed.
        believed_until: Until then that is not asked again.
        ramps_until: Until then each call asks when it may go: it was closed just now.
        troubled_until: Until then successes are reported often: somebody has failed.
        late_until: Until then a slow call counts as failed: somebody had no answer in time.
        report_at: The next success from then on is reported.
        unsaid: Successes that are not reported yet.
        pace: How fast its model answers.
        asking: Held by who asks.
        answered_at: When a call was answered last, here or as others have told.
        answered: The latest place of a call that was answered here.
        look_at: From then on it is asked whether others were.
        trouble_told_at: When it was last told that failures are usual.
    """

    limit: str
    wait: Wait | None = None
    believed_until: float = -math.inf
    ramps_until: float = -math.inf
    troubled_until: float = -math.inf
    late_until: float = -math.inf
    report_at: float = -math.inf
    unsaid: Unsaid = field(default_factory=Unsaid)
    pace: Pace = field(default_factory=Pace)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    answered_at: float = -math.inf
    answered: int = 0
    look_at: float = -math.inf
    trouble_told_at: float = -math.inf

    def standing(self, now: float) -> Wait | None:
        """Return why calls wait, while that is believed."""
        return self.wait if now < self.believed_until else None

    def hear(self, heard: BreakerReply, now: float) -> None:
        """Learn from what a script answered."""
        since_failed_s = (heard.now - heard.failed_at) / 1e6
        if heard.failed_at and since_failed_s < TROUBLED_S:
            self.troubled_until = now + TROUBLED_S - since_failed_s
        self.late_until = now + WINDOW_S if heard.late else -math.inf
        if heard.code in (OPEN, PROBE):
            self.wait = wait_of(self.limit, heard)
            opens_in_s = max(0, heard.opens_at - heard.now) / 1e6
            self.believed_until = now + min(BELIEVED_S, opens_in_s)
        elif self.wait is not None:
            self.wait, self.believed_until, self.ramps_until = None, -math.inf, now + RAMP_US / 1e6
        is_calm = self.wait is None and now >= self.troubled_until
        is_due = self.wait is not None or heard.row >= ROW_IN_COMMON  # an answer ends what others may build upon
        self.report_at = now + (QUIET_REPORT_S if is_calm else 0.0 if is_due else REPORT_S)


def wait_of(limit: str, heard: BreakerReply) -> Wait:
    """Return what is told of an open breaker."""
    return Wait(
        cause=cause_of(heard.cause),
        opens_at=heard.opens_at / 1e6,
        about=limit,
        told=heard.told.decode("utf-8", "replace"),
        probe_every_s=heard.every_us / 1e6,
    )


def cause_of(text: bytes) -> Cause:
    """Return a cause as it stands in Redis; one that a later release may know is an outage."""
    return next((cause for cause in CAUSES if cause.encode() == text), "outage")


def digest(who: str) -> str:
    """Return a task's id, or any other name, as breakers keep it."""
    return hashlib.blake2s(who.encode(), digest_size=6).hexdigest()


def _age_us(at: float, now: float) -> float:
    return -1.0 if at == -math.inf else max(0.0, now - at) * 1e6
