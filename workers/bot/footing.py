"""Where one task stands on its pool's fallback ladder: which rung its next call goes to, and why not to those above."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fleet.errors import NotSoon, ProviderUnavailable, Waits
from fleet.waits import Wait
from fleet.workers.ladders import Ladders
from fleet.workers.rungs import Route, Rung

#: Longest time for which a task does not try again a rung under whose limit it had no turn, in seconds.
MISSED_S = 10.0
#: Failed calls of a task in a row (count) after which another rung takes it: a lone task opens no breaker.
FAILURES_A_RUNG = 2


class Moved(Exception):
    """The next call goes to another rung: what is asked of its model is to be put together anew."""


class Instead(Exception):
    """A text stands in for the answer: the last rung of the ladder.

    Args:
        rung: That says it.
    """

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.rung = rung


class Footing:
    """The rung on which one task stands.

    Attributes:
        rung: Where its next call goes, or its last one went.
        has_others: True when the pool has a fallback, or its personas have several models.

    Args:
        ladders: All pools'.
        pool: Of the task.
        model: Of the persona that works on it; None: the pool's.
        priority: Its own: some waits are those of less urgent tasks.
        may_be_told: True of a text that may stand for the task's answer.
        now_s: The clock, Unix time in seconds.
    """

    def __init__(
        self,
        ladders: Ladders,
        pool: str,
        *,
        model: str | None = None,
        priority: int,
        may_be_told: Callable[[str], bool],
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._ladders = ladders
        self._pool = pool
        self._priority = priority
        self._now_s = now_s
        self._model = model
        self._ladder = ladders.of(pool, model)
        last = self._ladder[-1]
        self._may_tell = last.route is None and may_be_told(last.answer)
        self._missed: dict[int, Wait] = {}
        self._until: dict[int, float] = {}
        self.rung = self._ladder[0]
        self.has_others = len(self._ladder) > 1

    @property
    def route(self) -> Route:
        """Where calls to the rung go."""
        assert self.rung.route is not None
        return self.rung.route

    def find(self, left_s: float) -> bool:
        """Find the rung for the next call; True when it is another one than before.

        Args:
            left_s: Seconds until the task's deadline.

        Raises:
            NotSoon: All of them wait.
            Instead: A text is the answer.
        """
        if not self.has_others:
            return False
        self._forget()
        found = self._choose(left_s)
        if isinstance(found, Wait):
            raise NotSoon(found)
        if found.route is None:
            self._ladders.served(self._pool, found, self._why())
            raise Instead(found)
        is_other, self.rung = found is not self.rung, found
        return is_other

    def missed(self, wait: Wait, left_s: float) -> Wait | None:
        """Note why the rung's call could not leave; return why the task waits, None when another rung takes it.

        Args:
            wait: Why.
            left_s: Seconds until the task's deadline.
        """
        if not self.has_others:
            return wait
        latest = self._now_s() + MISSED_S
        self._missed[self.rung.number] = wait
        self._until[self.rung.number] = latest if wait.opens_at is None else min(wait.opens_at, latest)
        found = self._choose(left_s)
        return found if isinstance(found, Wait) else None

    def leaves(self, error: Waits, pause: Wait, *, failures: int, left_s: float) -> bool:
        """True when another rung takes the next call: those to this one keep failing, if only for this task.

        Args:
            error: How the last call ended.
            pause: What it would wait for.
            failures: Its failed calls in a row (count).
            left_s: Seconds until the task's deadline.
        """
        if not self.has_others or failures < FAILURES_A_RUNG or not isinstance(error, ProviderUnavailable):
            return False
        wait = replace(pause, cause=error.cause, opens_at=None)  # it goes on there, however short the pause
        if self.missed(wait, left_s) is None:
            return True
        del self._missed[self.rung.number], self._until[self.rung.number]
        return False

    def _choose(self, left_s: float) -> Rung | Wait:
        return self._ladders.choose(
            self._pool, self._missed, left_s=left_s, priority=self._priority, may_tell=self._may_tell,
            model=self._model,
        )  # fmt: skip

    def served(self, seconds: float, came_by: str = "") -> None:
        """Note that the rung has answered; or the one that has asked in a batch, which tells nothing of it now.

        Args:
            seconds: That the call took.
            came_by: `provider/model/key` by which the answer has come in a batch; empty: it came at once.
        """
        if came_by:
            mine = (rung for rung in self._ladder if rung.route is not None and came_by in rung.route.limits)
            self.rung = next(mine, self.rung)
        elif self.has_others:
            self._ladders.took(self.route.limit, seconds)
            self._ladders.served(self._pool, self.rung, self._why())

    def _why(self) -> Wait | None:
        """Return why the first rung waits."""
        return self._missed.get(self._ladder[0].number) or self._ladders.standing(self._ladder[0])

    def _forget(self) -> None:
        """Try again what should be open by now, or may be."""
        now_s = self._now_s()
        for number, until in list(self._until.items()):
            if until <= now_s:
                del self._until[number], self._missed[number]
