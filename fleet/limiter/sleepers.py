"""Waiting calls of one process: each sleeps until it asks again, unless a reply says that slots go unused."""

from __future__ import annotations

import asyncio
import heapq

#: Seconds to which ask-again times are rounded, so that calls of one process ask in one round trip.
GRID_S = 0.05


class Sleepers:
    """Calls of this process that wait under one limit, by their order."""

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep: dict[tuple[int, int], asyncio.Future[None]] = {}

    async def sleep(self, seconds: float, order: int, number: int) -> None:
        """Sleep for about `seconds`, at most; `wake` ends it earlier."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if seconds > 2 * GRID_S:
            due = round(due / GRID_S) * GRID_S
        woken = self._asleep[order, number] = loop.create_future()
        timer = loop.call_at(due, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()
            del self._asleep[order, number]

    def wake(self, count: int) -> None:
        """Wake those whose turn is next."""
        if self._asleep:
            for key in heapq.nsmallest(count, self._asleep):
                _wake(self._asleep[key])


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
