"""At which times a schedule is due. Pure: times are Unix seconds, and the clock is the caller's.

A time is a function of the rule alone, never of when a process began. So two beats, or one that was restarted, agree on
each of them, and a task that is named after its time is submitted once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

from fleet.config import ScheduleSettings

#: Missed times that are looked at or submitted, at most: the last ones (count).
MOST_MISSED = 1000
#: Seconds by which a time may be late and still be in time: a beat that restarts misses nothing.
GRACE_S = 60.0
#: Times of cron that are passed over in search of the last ones: 70 days of a rule that is due each minute (count).
MOST_PASSED = 100_000


@dataclass(frozen=True, slots=True)
class ClockRule:
    """When: five fields of cron in a time zone, or seconds between two times."""

    cron: str | None
    every_s: int | None
    timezone: str

    @property
    def digest(self) -> str:
        """The rule in 16 hex digits: a schedule whose rule was edited begins anew."""
        return hashlib.blake2b(repr((self.cron, self.every_s, self.timezone)).encode(), digest_size=8).hexdigest()

    @property
    def told(self) -> str:
        """The rule for people."""
        return f"{self.cron} ({self.timezone})" if self.cron else f"every {self.every_s} s"

    def after(self, at: float) -> Iterator[float]:
        """Yield the times after `at`, in order; none if it is never due again, as on the 30th of February."""
        if self.every_s is not None:
            number = math.floor(at / self.every_s) + 1
            while True:
                yield float(number * self.every_s)
                number += 1
        from cronsim import CronSim  # loaded with the first schedule

        begin = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(self.timezone))
        for one in CronSim(self.cron or "", begin):
            yield one.timestamp()


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be submitted now: its times, how many are left out, and up to when all is then dealt with."""

    times: tuple[float, ...]
    skipped: int
    done_at: float


def rule_of(settings: ScheduleSettings) -> ClockRule:
    """Return when a schedule of fleet.toml is due."""
    return ClockRule(settings.cron, settings.every_s, settings.timezone)


def next_times(rule: ClockRule, now_s: float, count: int) -> list[float]:
    """Return its next times after `now_s`, at most `count`."""
    return list(islice(rule.after(now_s), count))


def due(rule: ClockRule, missed: str, done_at: float, now_s: float) -> Due | None:
    """Return what is due between two times; None: nothing.

    Args:
        rule: When.
        missed: `once`, `all` or `skip`: what is done about times that are over by more than `GRACE_S`.
        done_at: Up to when all is dealt with.
        now_s: The time.
    """
    count, last = _between(rule, done_at, now_s)
    if not count:
        return None
    in_time = [at for at in last if at >= now_s - GRACE_S]
    chosen = {"all": last, "once": in_time[-1:] or last[-1:], "skip": in_time[-1:]}[missed]
    return Due(tuple(chosen), count - len(chosen), last[-1])


def _between(rule: ClockRule, done_at: float, now_s: float) -> tuple[int, list[float]]:
    """Return how many times lie after `done_at` and not after `now_s`, and the last `MOST_MISSED` of them."""
    if rule.every_s is not None:
        first, final = math.floor(done_at / rule.every_s) + 1, math.floor(now_s / rule.every_s)
        begin = max(first, final - MOST_MISSED + 1)
        return max(0, final - first + 1), [float(number * rule.every_s) for number in range(begin, final + 1)]
    times = []
    for at in islice(rule.after(done_at), MOST_PASSED):
        if at > now_s:
            break
        times.append(at)
    return len(times), times[-MOST_MISSED:]
