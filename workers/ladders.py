"""The fallback ladders of a worker process: which rung is open as far as it knows, and which have served lately."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fleet.waits import Cause, Wait
from fleet.workers.rungs import Route, Rung, beginning_with, choose, together

#: Seconds without a fallback after which an answer of the pool's own API says that all is well again.
BACK_AFTER_S = 5.0
#: Share of the newest call in the seconds that calls of a rung take.
NEWEST_SHARE = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """A pool has gone down its ladder, or is back.

    Args:
        pool: Its name.
        rung: That serves now.
        cause: Why its own API does not; empty when it does again.
    """

    pool: str
    rung: Rung
    cause: Cause | Literal["deadline", ""]


class Ladders:
    """The ladder of each pool. For one event loop.

    Args:
        ladders: By pool, rung 0 first.
        standing: Returns why calls under a limit would wait, as this process knows; None: they would not.
        on_turn: Hears once when a pool goes down its ladder, and when it is back.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        ladders: Mapping[str, tuple[Rung, ...]],
        *,
        standing: Callable[[str], Wait | None],
        on_turn: Callable[[Turn], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ladders = ladders
        self._of_models: dict[tuple[str, str], tuple[Rung, ...]] = {}
        self._standing = standing
        self._on_turn = on_turn
        self._clock = clock
        timed = (ladder for ladder in ladders.values() if any("deadline" in rung.when for rung in ladder))
        #: Seconds that calls under a limit take, where that decides.
        self._seconds: dict[str, float] = {rung.route.limit: 0.0 for ladder in timed for rung in ladder if rung.route}
        self._fell_at: dict[str, float] = {}

    def of(self, pool: str, model: str | None = None) -> tuple[Rung, ...]:
        """Return the ladder of a pool, its own rung first, or that of a persona's model."""
        if model is None:
            return self._ladders[pool]
        if (pool, model) not in self._of_models:
            self._of_models[pool, model] = beginning_with(self._ladders[pool], model)
        return self._of_models[pool, model]

    def choose(
        self,
        pool: str,
        missed: Mapping[int, Wait] | None = None,
        *,
        left_s: float = math.inf,
        priority: int = 0,
        may_tell: bool = True,
        model: str | None = None,
    ) -> Rung | Wait:
        """Return the rung that takes the next call of a task, as far as is known here; or why it waits.

        Args:
            pool: Of the task.
            missed: Why rungs wait for this task, by number; it wins.
            left_s: Seconds until its deadline.
            priority: Its own: some waits are those of less urgent tasks.
            may_tell: False: a rung that is a text is none.
            model: Of the persona that works on it.
        """
        whole = ladder = self.of(pool, model)
        if not may_tell and ladder[-1].route is None:
            ladder = whole[:-1]
        waits = dict(missed or {})
        late = set()
        for rung in ladder:
            if rung.route is None:
                continue
            wait = None if rung.number in waits else self.standing(rung)
            if wait is not None and wait.lowest < priority:
                waits[rung.number] = wait
            elif self._seconds.get(rung.route.limit, 0.0) > left_s:
                late.add(rung.number)
        found = choose(ladder, waits, frozenset(late))
        if isinstance(found, Wait) and ladder is not whole and isinstance(choose(whole, waits, frozenset(late)), Rung):
            return replace(found, is_everyones=False)  # the text is good for others
        return found

    def standing(self, rung: Rung) -> Wait | None:
        """Return why calls to a rung would wait, as far as is known here; None: they would not."""
        if rung.route is None or rung.shut is not None:
            return rung.shut
        if not rung.route.keys:
            return self._standing(rung.route.limit)
        waits = [wait for limit in rung.route.limits if (wait := self._standing(limit)) is not None]
        return together(waits) if len(waits) == len(rung.route.keys) else None

    def closed(self, pool: str) -> Wait | None:
        """Return why a task of the pool that is taken now would wait, as far as is known here; None: it would not."""
        ladder = self._ladders[pool]
        if len(ladder) > 1:
            found = self.choose(pool)
            return found if isinstance(found, Wait) else None
        wait = self.standing(ladder[0])  # each task asks, and most pools have no other
        return None if wait is None or wait.lowest >= 0 else wait

    def limit_of(self, pool: str) -> str:
        """Return the limit under which the next call of a pool goes; the own one's while all wait."""
        ladder = self._ladders[pool]
        found = self.choose(pool, may_tell=False) if len(ladder) > 1 else ladder[0]
        route = found.route if isinstance(found, Rung) else ladder[0].route
        assert route is not None
        return route.limit

    def limits_of(self, pool: str) -> tuple[str, ...]:
        """Return the limits under which the next calls of a pool go: several where its personas have several
        models, or its provider several keys."""
        ladder = self._ladders[pool]
        own = [rung for rung in ladder if rung.is_own and not rung.is_candidate and rung.route and rung.shut is None]
        names = [limit for rung in own if rung.route for limit in rung.route.limits]
        open_ones = [name for name in names if self._standing(name) is None] if len(names) > 1 else ()
        return tuple(open_ones) or (self.limit_of(pool),)

    def took(self, limit: str, seconds: float) -> None:
        """Learn how long an answered call took."""
        if (known := self._seconds.get(limit)) is not None:
            self._seconds[limit] = known + (seconds - known) * NEWEST_SHARE if known else seconds

    def served(self, pool: str, rung: Rung, wait: Wait | None) -> None:
        """Note that a rung has answered a task; a change is said once.

        Args:
            pool: Of the task.
            rung: That served.
            wait: Why rung 0 did not; None for rung 0 itself, or when it was too slow for a deadline.
        """
        now, fell_at = self._clock(), self._fell_at.get(pool)
        cause: Cause | Literal["deadline", ""] = ""
        if not rung.is_own:
            self._fell_at[pool] = now
            if fell_at is None:
                cause = "deadline" if wait is None else wait.cause
                logger.warning("fallback_taken pool=%s rung=%d api=%s cause=%s", pool, rung.number, rung.api, cause)
        elif fell_at is None or now - fell_at < BACK_AFTER_S:
            return
        else:
            del self._fell_at[pool]
            logger.warning("fallback_over pool=%s api=%s", pool, rung.api)
        if self._on_turn is not None and (fell_at is None or rung.is_own):
            self._on_turn(Turn(pool, rung, cause))


def plain(routes: Mapping[str, Route]) -> dict[str, tuple[Rung, ...]]:
    """Return ladders of pools that have no fallback."""
    return {pool: (Rung(0, route),) for pool, route in routes.items()}
