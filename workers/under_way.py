"""The calls of a process that are under way: which API has not answered for far longer than usual."""

from __future__ import annotations

from collections.abc import Hashable

#: From how much longer than the slowest of the last answers, and from how many seconds, silence is told.
TIMES, LEAST_S = 3.0, 8.0
#: What is left of the slowest time with each faster answer.
FADES = 0.995


class UnderWay:
    """The calls of a process that are under way: which API has not answered for far longer than usual.

    A breaker learns of a provider that answers nothing when calls time out; operators hear of it from here, long
    before. Belongs to one event loop; times are its clock's seconds.
    """

    def __init__(self) -> None:
        self._sent: dict[str, dict[Hashable, float]] = {}
        self._slowest_s: dict[str, float] = {}
        self._answered_at: dict[str, float] = {}

    def sent(self, limit: str, call: Hashable, now: float) -> None:
        """Note that a call under a limit leaves."""
        self._sent.setdefault(limit, {})[call] = now

    def ended(self, limit: str, call: Hashable, now: float, *, is_answered: bool) -> None:
        """Note its end, once or more; an answer of any kind says that the API lives."""
        started = self._sent.get(limit, {}).pop(call, None)
        if is_answered:
            self._answered_at[limit] = now
            if started is not None:
                self._slowest_s[limit] = max(now - started, FADES * self._slowest_s.get(limit, 0.0))

    def unanswered(self, now: float) -> dict[str, tuple[int, float]]:
        """Return limits under which nothing is answered, and calls take far longer than usual: calls, and seconds.

        The seconds are those since the last answer, or since the oldest call left if that is later. A limit under which
        this process has had no answer yet is not told: nobody knows what is usual there.
        """
        found = {}
        for limit, slowest_s in self._slowest_s.items():
            if calls := self._sent.get(limit):
                silent_s = now - max(next(iter(calls.values())), self._answered_at[limit])
                if silent_s >= max(LEAST_S, TIMES * slowest_s):
                    found[limit] = (len(calls), round(silent_s, 1))
        return found
