"""Restraint: while it is in doubt whether an API answers, its calls wait in their slots, and one tries now and then.

A breaker opens by silence only after 12 s: it speaks for the whole fleet, which tells its answers every ten seconds.
Here each process goes by its own calls, so what it doubts stops nobody else, and ends with the first answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from fleet.errors import NotSoon
from fleet.quoting import duration
from fleet.waits import Wait
from fleet.workers.ports import Breakers
from fleet.workers.silence.under_way import UnderWay

#: Doubts that last so long (s) are told: shorter ones are hiccups.
TOLD_S = 1.0
#: Calls that began to wait together lose their patience together, and the next ones may be slow to come: the first of
#: them stays until the next try is due, if that is within so many seconds.
STAYS_S = 2.0

logger = logging.getLogger("fleet.worker")


class _Doubters:
    """Calls that wait for an answer of one API."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.ask_at = 0.0
        self.is_asking = self.is_told = self.is_watched = False

    def tell(self) -> None:
        """Let all of them look again."""
        self.news.set()
        self.news = asyncio.Event()


class Restraint:
    """The calls of a process that wait because nothing is answered. Belongs to one event loop.

    Weakness: an API that suddenly takes longer for all of its answers gets one call per 1.7 s, over the whole fleet,
    until the first of them has come; then it is known as slow.

    Args:
        under_way: The calls that are under way.
        breakers: Which ration the tries over the fleet.
        clock: Unix time in seconds, as Redis has it.
    """

    def __init__(self, under_way: UnderWay, breakers: Breakers, clock: Callable[[], float]) -> None:
        self._under_way = under_way
        self._breakers = breakers
        self._clock = clock
        self._crowds: dict[str, _Doubters] = {}
        #: Calls that wait, by limit and pool.
        self._waiting = Counter[tuple[str, str]]()

    def doubts(self, limit: str) -> bool:
        """True while it is in doubt whether the API of a limit answers. Never waits; in health it is a look-up."""
        return self._under_way.doubted_s(limit, asyncio.get_running_loop().time()) > 0

    def trusted(self, limits: Sequence[str]) -> Sequence[str]:
        """Return those of the limits whose API answers."""
        if len(limits) == 1:
            return () if self.doubts(limits[0]) else limits
        return [limit for limit in limits if not self.doubts(limit)]

    def answered(self, limit: str) -> None:
        """Note an answer: who waits for one goes on."""
        crowd = self._crowds.get(limit)
        if crowd is not None and not self.doubts(limit):
            del self._crowds[limit]
            crowd.tell()

    def waiting(self) -> dict[str, dict[str, int]]:
        """Return the calls that have waited for a first answer for a second or more, by pool and limit."""
        now, found = asyncio.get_running_loop().time(), dict[str, dict[str, int]]()
        for (limit, pool), calls in self._waiting.items():
            if self._under_way.doubted_s(limit, now) >= TOLD_S:
                found.setdefault(pool, {})[limit] = calls
        return found

    async def wait(self, limit: str, *, pool: str, patience_s: float) -> bool:
        """Wait until the API answers, or until it is known better; return whether the call is one that tries.

        Args:
            limit: Which.
            pool: Whose call it is.
            patience_s: How long.

        Raises:
            NotSoon: Nothing was answered for so long.
            StoreUnavailable: Redis does not answer.
        """
        self._waiting[limit, pool] += 1
        try:
            return await self._wait(limit, patience_s)
        finally:
            self._waiting[limit, pool] -= 1
            if not self._waiting[limit, pool]:
                del self._waiting[limit, pool]

    async def _wait(self, limit: str, patience_s: float) -> bool:
        now, stays = asyncio.get_running_loop().time, patience_s >= STAYS_S
        end = now() + patience_s
        while (doubted_s := self._under_way.doubted_s(limit, now())) > 0:
            if self._breakers.standing(limit) is not None:
                return False
            crowd = self._crowds.setdefault(limit, _Doubters())
            if doubted_s >= TOLD_S and not crowd.is_told:
                crowd.is_told = True
                logger.warning("calls_doubted limit=%s silent_s=%.1f: new ones wait for an answer", limit, doubted_s)
            if now() >= crowd.ask_at and not crowd.is_asking:
                if await self._may_try(limit, crowd):
                    return True
                continue
            if now() >= end:
                if not stays or crowd.is_watched or crowd.ask_at - now() > STAYS_S:
                    raise NotSoon(self._why(limit, doubted_s, crowd.ask_at - now()))
                return await self._watch(limit, crowd)
            wake_at = end if crowd.is_asking else min(end, crowd.ask_at)
            await _heard(crowd.news, max(0.0, wake_at - now()))
        return False

    async def _watch(self, limit: str, crowd: _Doubters) -> bool:
        """Stay until the next try is due, or somebody else asks for it or is answered, and no longer."""
        crowd.is_watched = True
        try:
            await _heard(crowd.news, max(0.0, crowd.ask_at - asyncio.get_running_loop().time()))
            return await self._wait(limit, 0.0)
        finally:
            crowd.is_watched = False

    async def _may_try(self, limit: str, crowd: _Doubters) -> bool:
        crowd.is_asking = True
        try:
            left_s = asyncio.get_running_loop().time() - self._under_way.left_at(limit)
            turn_s = await self._breakers.turn_in_silence(limit, left_s=left_s)
        finally:
            crowd.is_asking = False
            crowd.tell()
        now = asyncio.get_running_loop().time()
        if turn_s is None:
            self._under_way.believe(limit, now)
            self.answered(limit)
            return False
        crowd.ask_at = now + turn_s
        return turn_s == 0

    def _why(self, limit: str, doubted_s: float, turn_s: float) -> Wait:
        told = f"its calls have had no answer for {duration(doubted_s)}, longer than nearly all of the last took"
        return Wait("outage", self._clock() + max(1.0, turn_s), limit, told, is_everyones=False)


async def _heard(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
