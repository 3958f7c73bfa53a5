"""How long the calls of a task class usually take, and how likely it is that several are only slow. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

#: From how much longer than the slowest of the last answers, and from how many seconds, silence is told.
TIMES, LEAST_S = 3.0, 8.0
#: What is left of the slowest time with each faster answer.
FADES = 0.995
#: Answers that are kept: what is usual is told by them (count). Three calls that outlast 200 are no accident.
KEPT = 200
#: An answer that ends a doubt and took longer than all but this share of them: such calls take so long now.
RARE = 0.05


class AnswerTimes:
    """What is usual for a task class under a limit.

    Attributes:
        answers: How many there were.
        slowest_s: The slowest of the last answers; it fades.
    """

    __slots__ = ("_in_order", "_sorted", "answers", "slowest_s")

    def __init__(self) -> None:
        self.answers, self.slowest_s = 0, 0.0
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []

    def learn(self, seconds: float, *, in_doubt: bool) -> None:
        """Learn from an answer; a late one that ends a doubt tells that such calls take so long now."""
        if in_doubt and self._longer_than(seconds) <= RARE * len(self._sorted):
            self._in_order.clear()
            self._sorted.clear()
        if len(self._in_order) == KEPT:
            del self._sorted[bisect_left(self._sorted, self._in_order.popleft())]
        self._in_order.append(seconds)
        insort(self._sorted, seconds)
        self.answers += 1
        self.slowest_s = max(FADES * self.slowest_s, seconds)

    def chance(self, seconds: float, nth: int) -> float:
        """Return how likely it is that a call takes so long, if `nth - 1` others were found to take so long or longer.

        If all are of one kind, whatever that is, each place among the answers kept is as likely as any other for the
        next call (Hill's A(n), as in conformal prediction), and what was found of the others counts as an answer. So
        nothing need be known of how times are distributed, and where few answers are, little is unlikely: of ten, not
        even nine calls that outlast them all are one in 100,000.
        """
        return (self._longer_than(seconds) + nth) / (len(self._sorted) + nth)

    def _longer_than(self, seconds: float) -> int:
        return len(self._sorted) - bisect_left(self._sorted, seconds)

    @property
    def bound_s(self) -> float:
        """Seconds from which a call takes far longer than usual."""
        return max(LEAST_S, TIMES * self.slowest_s)
