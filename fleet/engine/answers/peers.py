"""How processes know of each other's validators: one hash of the state Redis, written in bulk, read only in trouble.

What is made of it: `workers/bot/validator.py`. On a task's road nothing here is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from fleet.engine.transport import leases
from fleet.engine.transport.waker import wake_loop
from fleet.errors import FleetError
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks at what is to be told. Doubt is told with the first.
LOOK_EVERY_S = 0.5
#: Seconds between two tellings of verdicts.
TELL_EVERY_S = 2.0
#: Seconds for which a reading is good.
READ_EVERY_S = 1.0
#: Seconds after which a verdict tells nothing any more: its process is gone, or idle.
OLD_S = 3600.0


class ValidatorPeers:
    """What this process's validators tell those of others, and hear of them. Lives on the process's loop.

    Args:
        store: State Redis.
        lift: Ends the hold of a pool that this process has put.
        living: Returns the ids of the processes that live; None: unknown.
    """

    def __init__(
        self,
        store: Store,
        lift: Callable[[str], None],
        living: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self._store = store
        self.lift = lift
        self._living = living
        self._is_closed = False
        self._told: Mapping[str, float] = {}
        self._told_at_s = self._read_at_s = -TELL_EVERY_S
        self._read: dict[str, float] = {}

    def of(self, pool: str) -> PoolPeers:
        """Return what the validator of one pool asks."""
        return PoolPeers(self, pool)

    async def keep(self, given: Callable[[], Mapping[str, float]]) -> None:
        """Tell others of the verdicts that are given here, for ever. In health one command every two seconds.

        Args:
            given: Returns when validators that are in no doubt gave their last verdicts, by their pools.
        """
        while True:
            with suppress(FleetError):  # said again
                await self._tell({} if self._is_closed else given())
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Take back what was told: this process gives no more verdicts."""
        self._is_closed = True
        with suppress(FleetError):
            await self._tell({})

    async def _tell(self, given: Mapping[str, float]) -> None:
        now_s = time.monotonic()
        if gone := [_field(pool) for pool in self._told if pool not in given]:
            await self._store.command("HDEL", keys.verdicts(), *gone)
            self._told = {pool: at for pool, at in self._told.items() if pool in given}
        if now_s - self._told_at_s < TELL_EVERY_S or given == self._told:
            return
        pairs = [part for pool, at in given.items() for part in (_field(pool), at)]
        await self._store.command("HSET", keys.verdicts(), *pairs)
        if not self._told:
            await self._store.command("EXPIRE", keys.verdicts(), keys.STATE_TTL_S)
            await self._clean()
        self._told, self._told_at_s = given, now_s

    async def _clean(self) -> None:
        """Strike off what processes that are gone have left: where this one begins to tell."""
        flat = await self._store.command("HGETALL", keys.verdicts())
        if old := [field for field, at in zip(flat[::2], flat[1::2], strict=True) if float(at) < CLOCK.now_s() - OLD_S]:
            await self._store.command("HDEL", keys.verdicts(), *old)

    async def read(self, pool: str) -> float | None:
        """Return when another process gave its last verdict on an answer of the pool, Unix time (s); None: unknown."""
        if time.monotonic() - self._read_at_s >= READ_EVERY_S:
            try:
                flat = await self._store.command("HGETALL", keys.verdicts())
            except FleetError as error:
                logger.warning("verdicts of others not read error=%s", type(error).__name__)
                return None
            self._read = {field.decode(): float(at) for field, at in zip(flat[::2], flat[1::2], strict=True)}
            self._read_at_s = time.monotonic()
        mine, oldest = _field(pool), CLOCK.now_s() - OLD_S
        living = self._living()
        others = {field: at for field, at in self._read.items() if field != mine and _is_of(field, pool, living)}
        return max((at for at in others.values() if at >= oldest), default=None)


class PoolPeers:
    """`fleet.workers.bot.peers.Peers` of one pool."""

    def __init__(self, all_pools: ValidatorPeers, pool: str) -> None:
        self._all = all_pools
        self._pool = pool

    async def gave_verdict_at(self) -> float | None:
        """As the Protocol says."""
        return await self._all.read(self._pool)

    def leave(self, seconds: float) -> None:
        """As the Protocol says."""
        leases.leave(keys.queue(self._pool), seconds)

    def make_room(self, tasks: int) -> None:
        """As the Protocol says."""
        if leases.make_room(keys.queue(self._pool), tasks):
            wake_loop()  # it sleeps without a look while no slot is free

    def lift(self) -> None:
        """As the Protocol says."""
        self._all.lift(self._pool)


def _is_of(field: str, pool: str, living: Collection[str] | None) -> bool:
    """Return whether a field is of that pool, and its process may live."""
    of_pool, _, process = field.rpartition("|")
    return of_pool == pool and (living is None or process in living)


def _field(pool: str) -> str:
    return f"{pool}|{leases.process_id()}"
