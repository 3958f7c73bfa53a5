"""Letting a tenant's or a run's tasks try again as soon as calls in flight give back what they had reserved.

Those tasks are parked until a time of their own, up to 16 s away. Nothing is done here while none of them waits.
Weakness: it looks at some of what is parked only; what it does not find, or whoever dies before, tries at its own time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain

from fleet.economy.budgets import Freed, about
from fleet.engine.transport.parking.opening import open_some
from fleet.errors import FleetError
from fleet.store import keys
from fleet.store.running.brokers import AnyStore, ask_each

#: Seconds for which ends of calls are collected before tasks are woken for them.
COLLECTED_S = 0.1
#: Queues that are looked at for one scope (count).
MOST_QUEUES = 16

logger = logging.getLogger("fleet.worker")


class Waking:
    """Wakes as many tasks as calls have ended, and one more. One per process, on its loop.

    Args:
        broker: Where tasks wait.
        pools: Whose.
    """

    def __init__(self, broker: AnyStore, pools: Collection[str]) -> None:
        self._broker = broker
        self._queues = {keys.queue(pool).encode() for pool in pools}
        self._freed: Counter[str] = Counter()
        self._job: asyncio.Task[None] | None = None

    def heard(self, freed: Iterable[Freed]) -> None:
        """Hear that calls have ended for whose money tasks wait. Never waits, never raises."""
        for one in freed:
            self._freed[about(one.scope, one.period)] += one.calls
        if self._freed and (self._job is None or self._job.done()):
            self._job = asyncio.get_running_loop().create_task(self._wake())

    async def close(self) -> None:
        """Stop; what waits tries at its own time."""
        if self._job is not None:
            self._job.cancel()
            await asyncio.wait([self._job])

    async def _wake(self) -> None:
        while self._freed:
            await asyncio.sleep(COLLECTED_S)
            freed, self._freed = self._freed, Counter()
            try:
                found = await ask_each(self._broker, lambda store: store.command("ZRANGE", keys.openings(), 0, -1))
                queues = [queue for queue in dict.fromkeys(chain.from_iterable(found)) if queue in self._queues]
                some = random.sample(queues, min(MOST_QUEUES, len(queues)))
                for told, calls in freed.items():
                    await self._wake_some([queue.decode() for queue in some], told, calls + 1)
            except FleetError as error:  # they try at their own times
                logger.debug("tasks not woken error=%s", type(error).__name__)

    async def _wake_some(self, queues: Iterable[str], told: str, most: int) -> None:
        for queue in queues:
            most -= await open_some(self._broker, queue, about=told, causes=("money", "budget"), most=most)
            if most <= 0:
                return
