"""What waits long for its turn though nothing is wrong: the second half of `all well`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.quoting import counted
from fleet.signals.ahead.outlook import Drain, length
from fleet.signals.diagnosis.symptoms import api_of
from fleet.signals.limit_view import LimitView
from fleet.signals.view import FleetView

#: Seconds from which a wait is long.
LONG_WAIT_S = 900.0
#: Share of the time at the pace of now that a limit alone accounts for, from which the limit is what is told.
AT_LIMIT = 0.8


@dataclass(frozen=True, slots=True)
class LongWait:
    """What waits for an API: how many tasks, how many seconds they take, and at which pace, in words."""

    api: str
    tasks: int
    takes_s: float
    pace: str

    def __str__(self) -> str:
        verb, who = ("waits", "it takes") if self.tasks == 1 else ("wait", "they take")
        return f"{counted(self.tasks, 'task')} {verb} for {self.api}: at {self.pace} {who} {length(self.takes_s)}"


def outlook(view: FleetView) -> str:
    """Return in one sentence what waits longest for its turn, and how long that takes; empty: nothing waits long."""
    found = [one for limit in view.limits if (one := long_wait(view, limit)).takes_s >= LONG_WAIT_S]
    return str(max(found, key=lambda one: one.takes_s)) if found else ""


def long_wait(view: FleetView, limit: LimitView) -> LongWait:
    """Return how long what waits for an API takes: what stands still for another reason is not counted.

    It goes by the limit's rpm from the first second, and by the pace of the last minutes where that is slower.
    Weakness: a pool's tasks count for its own API, also while fallbacks serve some of them.
    """
    api = api_of(limit.limit)
    pools = [pool for pool in view.pools if pool.api == api and pool.is_open and not pool.is_held]
    drains = [drain for pool in pools if (drain := pool.drain) is not None and _moves(drain)]
    tasks, per_s = sum(drain.tasks for drain in drains), sum(drain.per_s for drain in drains)
    done, calls = sum(pool.completions for pool in pools), sum(pool.calls for pool in pools)
    calls_each = max(1.0, calls / done) if done else 1.0
    at_limit_s = 60 * tasks * calls_each / limit.rpm if limit.rpm else 0.0
    at_pace_s = tasks / per_s if per_s else 0.0
    is_limit = at_limit_s >= AT_LIMIT * at_pace_s
    pace = f"its rpm = {limit.rpm:,}" if is_limit and limit.rpm else "the pace of the last minutes"
    return LongWait(api, tasks, max(at_limit_s, at_pace_s), pace)


def _moves(drain: Drain) -> bool:
    """True where what waits goes on one by one; else only who ends the reason says when."""
    return drain.tasks > 0 and not drain.short.startswith(("stands still", "opens "))
