"""A worker's duty for APIs that hang: they accept calls and answer none. Their breakers open long before time-outs.

What hangs is told by the data plane, which knows what is usual (`workers/silence/under_way.py`). No call is ended for
it: an honest answer may still come, and it closes the breaker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from fleet.errors import FleetError
from fleet.quoting import counted, duration
from fleet.resilience import Breakers
from fleet.resilience.rules import SILENT_CALLS, SILENT_US
from fleet.waits import Wait

#: Seconds between two looks. In health a look costs no command.
EVERY_S = 1.0
#: Looks after the closing of a breaker until calls of before that still hang count no more among those under way: an
#: API that stood still may answer all of them at once, in any order.
LOOKS_AFTER = 5

logger = logging.getLogger("fleet.worker")


class SilenceWatch:
    """One worker's part in it.

    Args:
        breakers: Of this process.
        silent: Returns limits under which nothing is answered for so many seconds: calls, seconds, and those that the
            slowest of the last answers took. Never waits.
        slots: How many tasks may come to run at once here. Not how many may just now, where that follows what is
            wanted: with one slot for the moment, one slow call would open the breaker of the whole fleet.
        places: How many calls may be under way at once under a limit, over the whole fleet; None: any number.
        pools: All of them.
        closed: Why the calls of a pool would wait, as far as this process knows; None: they need not.
        hold: Lets all tasks of a pool wait.
        let_go: Counts calls of a limit no more among those under way that hang though the API answers again.
    """

    def __init__(
        self,
        breakers: Breakers,
        silent: Callable[..., Mapping[str, tuple[int, float, float]]],
        *,
        slots: Callable[[], int],
        places: Callable[[str], int | None] = lambda limit: None,
        pools: Collection[str],
        closed: Callable[[str], Wait | None],
        hold: Callable[[str, Wait], Awaitable[None]],
        let_go: Callable[[str], None] = lambda limit: None,
    ) -> None:
        self._breakers = breakers
        self._silent = silent
        self._slots = slots
        self._places = places
        self._pools = pools
        self._closed = closed
        self._hold = hold
        self._let_go = let_go
        #: Limits whose breaker was open while calls hung here: looks since it was closed.
        self._were_open: dict[str, int] = {}

    async def attend(self) -> None:
        """Open the breakers of APIs that hang, for ever.

        After this process stood still answers may wait to be read: it does not look.
        """
        clock = asyncio.get_running_loop().time
        while True:
            slept_at = clock()
            await asyncio.sleep(EVERY_S)
            if clock() - slept_at > 2 * EVERY_S:
                continue
            try:
                await self.look()
            except FleetError as error:
                logger.warning("silence not told error=%s", type(error).__name__)

    async def look(self) -> None:
        """Do so, once.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        for limit, (calls, silent_s, slowest_s) in self._silent(at_least_s=SILENT_US / 1e6).items():
            if self._breakers.is_open(limit):
                self._were_open[limit] = 0
                continue
            told = (
                f"{counted(calls, 'call')} of a worker had no answer for {duration(silent_s)}; the slowest "
                f"answer before took {duration(slowest_s)}"
            )
            enough = self._enough(limit)
            wait = await self._breakers.hangs(limit, told, for_s=silent_s, calls=calls, enough=enough)
            if wait is not None:
                self._were_open[limit] = 0
                await self._hold_pools(wait)
        self._look_back()

    def _look_back(self) -> None:
        """Let calls go that hang though the breaker is closed: another worker's probe was answered, perhaps."""
        for limit, looks in list(self._were_open.items()):
            self._were_open[limit] = 0 if self._breakers.is_open(limit) else looks + 1
            if looks >= LOOKS_AFTER:
                del self._were_open[limit]
                self._let_go(limit)

    def _enough(self, limit: str) -> int:
        """Return how many calls of the fleet make a silence: half of those that may be under way at once are enough."""
        places = self._places(limit)
        most = SILENT_CALLS if places is None else min(SILENT_CALLS, (places + 1) // 2)
        return min(most, self._slots())

    async def _hold_pools(self, wait: Wait) -> None:
        """Hold the pools that have no other way: else the first task of each would have to find out, in a slot."""
        for pool in self._pools:
            closed = self._closed(pool)
            if closed is not None and closed.cause == wait.cause:  # with several keys it is told about another of them
                await self._hold(pool, closed)
