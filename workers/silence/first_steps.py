"""First steps: the tasks of an API that is down turn to the next rung of their ladders, and that may be down as well.

All of them would ask it before the first has failed. So those to a rung that has answered nothing lately go one by one
at first, twice as fast every quarter of a second, and all at once with its first answer. It stops nobody else's calls.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fleet.workers.rungs import Rung

#: So often (s) the pace doubles: of 40 calls the last one leaves after 1.3 s. As the road fills after an outage.
DOUBLING_S = 0.25
#: An API that has answered within so many seconds is up: nobody waits.
ANSWERED_S = 1.0
#: After so many seconds without a call to a rung its next ones go one by one again.
ANEW_S = 5.0


class HeardOf(Protocol):
    """What is known of APIs: `ports.Breakers`."""

    def is_answering(self, limit: str, *, within_s: float) -> bool: ...


@dataclass(slots=True)
class _Turned:
    """The calls that have turned to one rung, whichever of its keys they go under."""

    began_at: float
    asked_at: float = 0.0
    calls: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class FirstSteps:
    """The first calls of a process to its fallback rungs. Belongs to one event loop.

    Weakness: each process takes its own steps, so of a rung that is down each sends one to three calls.

    Args:
        breakers: What is heard of APIs.
    """

    def __init__(self, breakers: HeardOf) -> None:
        self._breakers = breakers
        self._rungs: dict[str, frozenset[str]] = {}
        #: By limit; all keys of a rung lead to one.
        self._crowds: dict[str, _Turned] = {}

    def know(self, ladders: Mapping[str, Sequence[Rung]]) -> None:
        """Learn which limits are those of fallback rungs, by pool."""
        below = {pool: [one.route for one in ladder if not one.is_own] for pool, ladder in ladders.items()}
        limits = {pool: [name for one in routes if one for name in one.limits] for pool, routes in below.items()}
        self._rungs = {pool: frozenset(names) for pool, names in limits.items() if names}

    def are_due(self, pool: str, limits: Sequence[str]) -> bool:
        """True when a call goes to a fallback rung of which no key has answered lately. Never waits."""
        rungs = self._rungs.get(pool)
        if rungs is None or limits[0] not in rungs:
            return False
        return not any(self._breakers.is_answering(limit, within_s=ANSWERED_S) for limit in limits)

    def answered(self, limit: str) -> None:
        """Note an answer: who waits for its turn goes on."""
        if self._crowds and (crowd := self._crowds.get(limit)) is not None:
            self._crowds = {name: other for name, other in self._crowds.items() if other is not crowd}
            crowd.news.set()

    async def turn(self, limits: Sequence[str]) -> None:
        """Wait for the turn of a call that may go under any of a rung's limits."""
        now = asyncio.get_running_loop().time()
        crowds = {limit: self._crowds[limit] for limit in limits if limit in self._crowds}
        known = {limit: crowd for limit, crowd in crowds.items() if now - crowd.asked_at <= ANEW_S}
        crowd = next(iter(known.values()), None) or _Turned(now)
        self._crowds |= dict.fromkeys(limits, crowd) | known
        crowd.calls, crowd.asked_at = crowd.calls + 1, now
        left_s = crowd.began_at + DOUBLING_S * math.log2(crowd.calls) - now
        if left_s > 0:
            try:
                async with asyncio.timeout(left_s):
                    await crowd.news.wait()
            except TimeoutError:
                return
