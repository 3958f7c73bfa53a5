"""Late binding: a limit's waiting calls hold worker slots, so only as many tasks are let in as keep the limit busy.

When more calls wait under a limit than it answers within a short horizon, each of its pools gets a *room*: so many more
tasks of each priority may be taken (`take.lua`). The others wait in the priority queue, where an urgent one overtakes
them and another pool's tasks find free slots. A room lives for two seconds: unless a worker renews it, all is open.

An operator's gate is a key of its own; of the two the stricter one wins.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from fleet.errors import FleetError, StoreUnavailable
from fleet.limiter import Crowd, Limiter
from fleet.store import keys
from fleet.store.client import Script
from fleet.store.running.brokers import AnyStore, by_home, main_of

NARROW = Script.beside(__file__, "narrow.lua", keys="bell rooms*", argv="life_ms ends room*")

#: Seconds of calls that wait in slots: enough for a few rounds of this loop, so that the limit never runs dry.
HORIZON_S = 2.0
#: Seconds between two rounds, over all workers.
EVERY_S = 0.25
#: Seconds that a room lives without being renewed.
LIFE_S = 2.0
#: Fewest calls that wait in slots, for limits so slow that the horizon holds less than that.
FEWEST = 4
#: Share of the horizon's calls that tasks of one priority may always have waiting, behind whatever is more urgent: the
#: limiter lets no class starve, if only its calls are there.
OWN_SHARE = 0.125
#: Below this share of the horizon's calls the rooms end, unless they are being used up.
END_SHARE = 0.25

logger = logging.getLogger("fleet.worker")


class LateBinding:
    """One worker's part in it. All workers may run it; each limit is looked at by one of them per round.

    Args:
        limiter: Knows who waits.
        broker: Where the queues are.
        pools: Their names.
        limit_of: Returns the limit under which the next call of a pool goes, which its fallback may change.
    """

    def __init__(
        self, limiter: Limiter, broker: AnyStore, pools: Sequence[str], limit_of: Callable[[str], str]
    ) -> None:
        self._limiter = limiter
        self._broker = broker
        self._pools = pools
        self._limit_of = limit_of
        self._narrow: set[str] = set()
        #: What the limiter had last heard of a limit under which nobody waited: no news, no look.
        self._stale: dict[str, float] = {}

    async def run(self) -> None:
        """Keep the rooms of all pools right, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            for limit, names in self._by_limit().items():
                if self._is_due(limit):
                    try:
                        await self._look(limit, names)
                    except FleetError as error:
                        logger.warning("late binding failed limit=%s error=%s", limit, error)

    def _by_limit(self) -> dict[str, list[str]]:
        """Return the queues whose calls go under each limit now."""
        found: dict[str, list[str]] = {}
        for pool in self._pools:
            found.setdefault(self._limit_of(pool), []).append(keys.queue(pool))
        return found

    def _is_due(self, limit: str) -> bool:
        backlog_s = self._limiter.backlog_s(limit)
        return limit in self._narrow or (backlog_s > HORIZON_S / 2 and backlog_s != self._stale.get(limit))

    async def _look(self, limit: str, names: Sequence[str]) -> None:
        mine = await main_of(self._broker).command("SET", keys.turn(names[0]), "1", "NX", "PX", round(EVERY_S * 900))
        if mine is None:
            return
        crowd = await self._limiter.crowd(limit)
        target = target_of(crowd)
        is_known = limit in self._narrow
        self._narrow.discard(limit)
        if not crowd.total:
            self._stale[limit] = self._limiter.backlog_s(limit)
        ends = int(crowd.total <= (target * END_SHARE if is_known else target))
        room = rooms_of(crowd, target, pools=len(names))
        for store, some in by_home(self._broker, names):
            call = NARROW.call(
                bell=keys.bell(), rooms=map(keys.room, some), life_ms=round(LIFE_S * 1000), ends=ends, room=room
            )
            try:
                if await store.run(NARROW, *call):
                    self._narrow.add(limit)
            except StoreUnavailable as error:  # nothing is taken there: the others' rooms are theirs all the same
                logger.warning("late binding failed limit=%s error=%s", limit, error)


def target_of(crowd: Crowd) -> int:
    """Return how many calls of a limit should wait in slots."""
    if crowd.next_s > HORIZON_S or not crowd.interval_s:
        return FEWEST
    return max(FEWEST, math.ceil(HORIZON_S / crowd.interval_s))


def rooms_of(crowd: Crowd, target: int, *, pools: int) -> list[int]:
    """Return how many more tasks of each priority may be taken, the most urgent first.

    A call makes those wait that are less urgent, so only what is at least as urgent counts against a task.
    """
    rooms, before = [], 0
    for own in crowd.waiting:
        before += own
        wanted = max(target - before, math.ceil(target * OWN_SHARE) - own, 0)
        rooms.append(math.ceil(wanted / pools))
    return rooms
