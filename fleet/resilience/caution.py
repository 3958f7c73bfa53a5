"""Doubt about an API, in one process: while the call that ended last has failed, others leave one by one.

Most calls that fail in an outage leave before anybody knows of it. Those that are under way when the first one fails
tell soon whether it was an accident: until then few more need go. It opens no breaker, and asks nobody. Where failures
are usual, one more says nothing: there nobody waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

#: Seconds from one call to the next while a process doubts. An answer ends that at once, so where one of many calls
#: fails it is hardly noticed: the next of them to end does well.
DOUBT_S = 0.5
#: Share of failed calls from which they are usual, and the weight of the newest call in it: the last twenty count.
#: Where 30% of calls fail at random, with a few under way, all of these fail now and then: each time that cost DOUBT_S.
USUAL_SHARE, NEWEST = 0.1, 1 / 20


class Caution:
    """What a process makes of the last call that ended under one limit. Lives on its loop."""

    __slots__ = ("_clock", "_news", "_next_at", "_share", "doubts")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_at = -math.inf
        self._share = 0.0  # of calls that fail
        self._news = asyncio.Event()
        #: The last one has failed.
        self.doubts = False

    def failed(self) -> None:
        """Note a call that failed as others may."""
        if not self.doubts and self._share < USUAL_SHARE:
            self.doubts, self._next_at = True, self._clock() + DOUBT_S
        self._share += (1 - self._share) * NEWEST

    def answered(self) -> None:
        """Note a call that was answered."""
        self._share -= self._share * NEWEST
        self._end()

    def ruled(self) -> None:
        """Doubt no more, for the breaker says what is to be done; the next failure after that is news again."""
        self._share = 0.0
        self._end()

    def _end(self) -> None:
        """Let those that wait go on."""
        if self.doubts:
            self.doubts = False
            self._news.set()
            self._news = asyncio.Event()

    async def turn(self) -> None:
        """Wait for a call's turn, while there is doubt."""
        while self.doubts:
            left_s = self._next_at - self._clock()
            if left_s <= 0:
                self._next_at = self._clock() + DOUBT_S
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left_s)
