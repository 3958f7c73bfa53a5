"""When a pool's backlog will be gone, and when a day's budget ends, at the pace of now. Pure; no Redis, no clock."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen
from fleet.quoting import duration, moment
from fleet.waits import TRIED, Cause

#: Causes behind which tasks still go on, one by one, or that are one task's own: the rate tells how fast.
FLOWING: frozenset[Cause] = frozenset({"time", "retry", "limit", "warming", "twin"})
#: Share of the backlog that must wait for a reason before that decides when it is gone.
MOST_OF_IT = 0.5
#: Seconds after which nobody asks for the minute any more (30 days): it stands still.
FOR_EVER_S = 30 * 86_400.0
#: Seconds of a day of UTC, which is what a budget is for.
DAY_S = 86_400.0
#: Seconds of a young day within which its own average says nothing.
YOUNG_S = 60.0


class Drain(Frozen):
    """When the tasks that wait in a pool will be gone."""

    tasks: int = Field(description="That wait, those that are parked for a reason among them.")
    per_s: float = Field(
        description="Tasks that the pool has finished a second, in the last minutes; 0: nothing waits."
    )
    left_s: float | None = Field(None, description="Seconds until they are gone at that rate; None: nobody knows.")
    short: str = Field(
        "", description="In a few characters: `12 min`, `opens 14:30`, `stands still`; empty: nothing waits."
    )
    line: str = Field("", description="All of it in words; empty: nothing waits.")


def drain_of(
    tasks: int,
    per_s: float,
    *,
    now_s: float,
    stopped: int = 0,
    cause: Cause | None = None,
    opens_at: float | None = None,
) -> Drain:
    """Return when a backlog will be gone.

    Args:
        tasks: That wait.
        per_s: Tasks finished a second now.
        now_s: Unix time.
        stopped: How many of them wait for `cause`, the first thing that must go.
        cause: Why most of them wait; None: only for their turn.
        opens_at: Unix time at which that goes; None: nobody knows.
    """
    if not tasks:
        return Drain(tasks=0, per_s=per_s)
    work_s = tasks / per_s if per_s > 0 else None
    if cause is None or cause in FLOWING or stopped < MOST_OF_IT * tasks:
        gone = None if work_s is None or work_s > FOR_EVER_S else work_s
        short = "unknown" if gone is None else length(gone)
        line = "nothing was finished in the last minutes" if gone is None else f"{short} at {_rate(per_s)}"
        return Drain(tasks=tasks, per_s=per_s, left_s=gone, short=short, line=line)
    if opens_at is None or opens_at <= now_s or cause in TRIED:
        return Drain(tasks=tasks, per_s=per_s, short="stands still", line=f"stands still: {cause}")
    left = None if work_s is None else opens_at - now_s + work_s
    then = "" if work_s is None else f", then {length(work_s)}"
    opens = f"opens {clock(opens_at, now_s)}"
    return Drain(tasks=tasks, per_s=per_s, left_s=left, short=opens, line=f"{opens}{then}")


def clock(at_s: float, now_s: float) -> str:
    """Return a time of UTC as people say it: `14:30 UTC`, with its day when that is not today."""
    at, today = moment(at_s), moment(now_s).date()
    return f"{at:%H:%M} UTC" if at.date() == today else f"{at:%Y-%m-%d %H:%M} UTC"


def length(seconds: float) -> str:
    """Return how long a backlog takes: parts of a second only flicker."""
    return duration(max(1, round(seconds)))


def _rate(per_s: float) -> str:
    return f"{per_s:,.1f} a second" if per_s >= 1 else f"{per_s * 60:,.1f} a minute"


def budget_ends_at(used: float, allowed: float, *, now_s: float, per_s: float | None = None) -> float | None:
    """Return the Unix time at which a day's budget will be used up at this pace; None: it lasts until midnight UTC.

    Args:
        used: What calls of today cost, or have reserved.
        allowed: What the day allows.
        now_s: Unix time.
        per_s: What is used a second just now; None: the average of the day so far.
    """
    if used >= allowed:
        return now_s
    began = now_s // DAY_S * DAY_S
    pace = used / max(YOUNG_S, now_s - began) if per_s is None else per_s
    ends_at = now_s + (allowed - used) / pace if pace > 0 else None
    return ends_at if ends_at is not None and ends_at < began + DAY_S else None


def told_budget(used: float, allowed: float, *, now_s: float, per_s: float | None = None, unit: str = "$") -> str:
    """Return a budget in one line: `$1.27 of $2.00, at this pace ends 19:40 UTC`.

    Args:
        used: As of `budget_ends_at`, like the others.
        allowed: Likewise.
        now_s: Likewise.
        per_s: Likewise.
        unit: What is counted: US dollars, or a noun in the plural.
    """
    head = f"{usd(used)} of {usd(allowed)}" if unit == "$" else f"{used:,.0f} of {allowed:,.0f} {unit}"
    if used >= allowed:
        return f"{head}, used up until {clock((now_s // DAY_S + 1) * DAY_S, now_s)}"
    ends_at = budget_ends_at(used, allowed, now_s=now_s, per_s=per_s)
    pace = "lasts the day at this pace" if ends_at is None else f"at this pace ends {clock(ends_at, now_s)}"
    return f"{head}, {pace}"


def usd(dollars: float) -> str:
    """Return US dollars: cents, and more of them where cents say nothing."""
    if 0 < dollars < 0.00005:
        return "<$0.0001"
    return f"${dollars:,.4f}" if 0 < dollars < 0.1 else f"${dollars:,.2f}"
