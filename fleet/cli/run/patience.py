"""How long `fleet run` and `fleet submit` wait for tasks that wait themselves: what they say of it, and when they end.

Looks at the fleet now and then; a look costs a few round trips. Why tasks wait is the engine's to tell
(`fleet/engine/operations/waits.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleet.engine.operations.obstacles import headline, told_line
from fleet.engine.operations.waits import Standings
from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.quoting import counted
from fleet.signals.view import WaitLine

#: Seconds between two looks: the first while no result comes, the second while some do.
LOOK_S = (1.0, 5.0)
#: Seconds without a result after which a job counts as waiting.
IDLE_S = 1.5
#: Seconds between two lines about what a job waits for.
SAY_EVERY_S = 5.0
#: Seconds without a result after which a job ends that only somebody's deed can help.
END_S = 3.0
#: The same while bots of its pools are at work, or when workers were there and are gone: they may be started anew.
LONG_END_S = 45.0
#: What a job waits for in the ordinary course of things: said only when nothing comes at all.
ORDINARY = frozenset({"limit", "retry", "time", "warming", "batch", "twin"})


@dataclass
class Patience:
    """Watches what one job waits for.

    Args:
        look: Looks at the pools that have tasks of the job; their names are its argument, None: any pool may have.
        say: Tells people; True: it is a warning.
        endless: Wait on, whatever for.
    """

    look: Callable[[Iterable[str] | None], Standings]
    say: Callable[[str, bool], None]
    endless: bool = False

    def __post_init__(self) -> None:
        now_s = time.monotonic()
        self._moved_at_s = now_s
        self._looked_at_s, self._said_at_s = now_s, now_s - SAY_EVERY_S
        self._said: object = None
        self._was_served = False
        #: What the job waits for, as last seen; empty: only for its turn.
        self.reason = ""
        #: Why it was given up; empty: it was not.
        self.lines: tuple[WaitLine, ...] = ()

    def moved(self) -> None:
        """Note that a task of the job has come to its end."""
        self._moved_at_s = time.monotonic()

    def is_over(self, pools: Callable[[], Iterable[str] | None], in_flight: int) -> bool:
        """Look, if it is time to, and say what has changed; True when only somebody's deed can help.

        Args:
            pools: Returns those that have tasks of the job; None: any may have.
            in_flight: Tasks of the job that have no result.
        """
        now_s = time.monotonic()
        idle_s = now_s - self._moved_at_s
        if not in_flight or now_s - self._looked_at_s < LOOK_S[idle_s < IDLE_S]:
            return False
        self._looked_at_s = now_s
        try:
            seen = self.look(pools())
        except StoreUnavailable:
            return False  # who fetches results says that Redis is away
        except ConfigurationError as error:  # this user of Redis may not look
            if idle_s >= IDLE_S and self._said is None:
                self._said = error
                self.say(f"{counted(in_flight, 'task')} in flight; what they wait for cannot be seen: {error}", True)
            return False
        self._was_served = self._was_served or any(pool.workers for pool in seen.standings)
        lines = (_with_those_in_slots(line, seen) for line in seen.lines)
        waits = [line for line in lines if line.tasks and line.cause != "time"]
        self.reason = headline(waits, seen.now_s)
        is_stuck = self._is_stuck(seen, waits, in_flight)
        self._tell(waits if idle_s >= IDLE_S else [w for w in waits if w.cause not in ORDINARY], seen.now_s, is_stuck)
        if self.endless or not is_stuck or idle_s < self._end_s(seen, waits):
            return False
        self.lines = tuple(waits)
        return True

    def _is_stuck(self, seen: Standings, waits: list[WaitLine], in_flight: int) -> bool:
        """True when all that waits in these pools does so for what somebody must change; a pause was their wish."""
        if not all(line.is_lasting and line.cause != "operator" for line in waits):
            return False
        in_lists = sum(pool.backlog.total for pool in seen.standings)
        accounted = sum(line.tasks - line.parked for line in waits)
        return in_lists <= accounted and sum(line.tasks for line in waits) >= in_flight

    def _end_s(self, seen: Standings, waits: list[WaitLine]) -> float:
        is_worked = any(pool.running for pool in seen.standings)
        is_away = self._was_served and any(line.cause == "worker" for line in waits)
        return LONG_END_S if is_worked or is_away else END_S

    def _tell(self, waits: list[WaitLine], seen_at_s: float, is_stuck: bool) -> None:
        found = frozenset((line.pool, line.cause, line.about, line.told) for line in waits)
        now_s = time.monotonic()
        if found == self._said or (not found and self._said is None) or now_s - self._said_at_s < SAY_EVERY_S:
            return
        if waits:
            self._said, self._said_at_s = found, now_s
            self.say(headline(waits, seen_at_s), is_stuck)
        else:
            self._said = None


def _with_those_in_slots(line: WaitLine, seen: Standings) -> WaitLine:
    """Return a reason with the tasks that wait for it in their slots, told as parked ones.

    Of a pool that is held for what somebody must change, those are the ones at work: what else still runs there ends
    soon, and is waited for (`LONG_END_S`).
    """
    for pool in seen.standings if line.is_lasting else ():
        if pool.pool == line.pool and pool.gate.hold is not None and pool.gate.hold.cause == line.cause:
            more = {"tasks": line.tasks + pool.running, "parked": line.parked + pool.running}
            return line.model_copy(update=more)
    return line


def ending_lines(lines: Iterable[WaitLine], now_s: float) -> list[str]:
    """Return what to say of the reasons for which a job was given up, each once, with what to do."""
    return list(dict.fromkeys(told_line(line, now_s, with_advice=True) for line in lines))
