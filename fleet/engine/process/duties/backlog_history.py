"""A worker's duty that remembers how many tasks waited: once a minute one worker of the fleet writes it down.

A backlog that has grown for ten minutes cannot be told from one reading, nor by whoever reads: all must say the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random

from fleet.config import Settings
from fleet.engine.admission.gates import BACKLOG, waiting_calls, waiting_in
from fleet.errors import FleetError
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import MAIN, AnyStore, Brokers, ask_by_name

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks whether the minute is written.
LOOK_EVERY_S = 15.0
#: Minutes of which it is kept how many tasks waited (count).
BACKLOG_MINUTES = 16


class BacklogHistory:
    """Writes down how many tasks wait in each pool.

    Args:
        settings: Pools.
        state: State Redis, where that is kept.
        broker: Where tasks wait.
    """

    def __init__(self, settings: Settings, state: Store, broker: AnyStore) -> None:
        self._pools = tuple(settings.pools)
        self._state = state
        self._broker = broker

    async def attend(self) -> None:
        """Write each minute down, for ever. It costs the fleet a reading of its queues a minute, a worker one command.

        A minute whose writer dies, or in which Redis does not answer, is missing.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.5, 1.5))
            try:
                await self.note(int(CLOCK.now_s() // 60))
            except FleetError as error:
                logger.warning("backlogs not noted error=%s", type(error).__name__)

    async def note(self, minute: int) -> bool:
        """Write a minute (since 1970) down, unless another worker does.

        Raises:
            FleetError: When Redis does not answer.
        """
        if not await self._state.command("HSETNX", keys.backlogs(), minute, ""):
            return False
        await self._state.command("EXPIRE", keys.backlogs(), keys.STATE_TTL_S)
        waiting = await self._waiting(minute)
        row = json.dumps({pool: count for pool, count in waiting.items() if count})
        await self._state.command("HSET", keys.backlogs(), minute, row)
        known = await self._state.command("HKEYS", keys.backlogs())
        if old := [field for field in known if int(field) <= minute - BACKLOG_MINUTES]:
            await self._state.command("HDEL", keys.backlogs(), *old)
        return True

    async def _waiting(self, minute: int) -> dict[str, int]:
        """Return how many tasks wait in each pool; of one whose broker is away as many as the minute before."""
        found = await ask_by_name(self._broker, self._waiting_at)
        waiting = dict(zip(self._pools, map(sum, zip(*found.values(), strict=True)), strict=True))
        homes = self._broker.homes if isinstance(self._broker, Brokers) else {}
        away = [pool for pool in self._pools if homes.get(keys.queue(pool), MAIN) not in found]
        if away:
            logger.warning("backlogs noted as before pools=%d: their broker does not answer", len(away))
            row = await self._state.command("HGET", keys.backlogs(), minute - 1)
            before = json.loads(row) if row else {}
            waiting |= {pool: before.get(pool, 0) for pool in away}
        return waiting

    async def _waiting_at(self, store: Store) -> list[int]:
        calls = waiting_calls(map(keys.queue, self._pools))
        return [found.total for found in waiting_in([await store.run(BACKLOG, *call) for call in calls])]
