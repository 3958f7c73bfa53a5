"""Doubt about an API, in one process: while the call that ended last has failed, others leave one by one.

Most calls that fail in an outage leave before anybody knows of it. Those that are under way when the first one fails
tell soon whether it was an accident: until then few more need go. It opens no breaker, and asks nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress

#: Seconds from one call to the next while a process doubts. An answer ends that at once, so where one of many calls
#: fails it is hardly noticed: the next of them to end does well.
DOUBT_S = 0.25


class Caution:
    """What a process makes of the last call that ended under one limit. Lives on its loop."""

    __slots__ = ("_clock", "_news", "_next_at", "doubts")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_at = -math.inf
        self._news = asyncio.Event()
        #: The last one has failed.
        self.doubts = False

    def failed(self) -> None:
        """Note a call that failed as others may."""
        if not self.doubts:
            self.doubts, self._next_at = True, self._clock() + DOUBT_S

    def clear(self) -> None:
        """Doubt no more: a call was answered, or the breaker says what is to be done. Those that wait go on."""
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
