"""Which lane a call of this process takes: by prices, and by what the fleet has learnt, read by a duty now and then.

Tasks that do not say by when they need their answers never come here, and cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from fleet.config import Settings
from fleet.economy.lanes.choice import (
    LANES,
    LANES_OF,
    TIER_OF,
    UNLEARNT,
    USUAL,
    Lane,
    LaneFacts,
    Shape,
    Way,
    choose,
    offers,
)
from fleet.economy.lanes.learnt import read_learnt
from fleet.economy.prices import Price
from fleet.errors import FleetError
from fleet.models import Norms
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import state_url

logger = logging.getLogger("fleet.worker")

#: Seconds between two readings of what was learnt, while tasks come that ask for it.
READ_EVERY_S = 60.0
#: Seconds for which a lane is left alone that had no room for a call.
BUSY_S = 30.0
#: 95th percentile of the time to an answer over its median, as log-normal times with a sigma of 0.67 have it.
P95_OF_MEDIAN = 3.0


class LaneChooser:
    """Implements `fleet.workers.ports.Lanes`. One per process, on its loop.

    Args:
        settings: Which kind an API is of.
        price: Cost of one call.
        norms_of: What is usual for a pool and a task class.
        clock: Seconds that only grow.
        share: Fresh random numbers from 0 to 1.
    """

    def __init__(
        self,
        settings: Settings,
        price: Price,
        *,
        norms_of: Callable[[str, str], Norms | None],
        clock: Callable[[], float] = time.monotonic,
        share: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._price, self._norms_of = settings, price, norms_of
        self._clock, self._share = clock, share
        self._learnt: Mapping[Way, LaneFacts] = {}
        self._busy: dict[tuple[str, str], float] = {}
        self._is_asked = asyncio.Event()

    def tier(self, pool: str, api: str, kind: str, *, input_tokens: int, output_tokens: int, by_s: float) -> str | None:
        """Return the service tier that a call takes; None: the usual one. Never waits.

        Args:
            pool: Whose call it is.
            api: `provider/model`.
            kind: Task class.
            input_tokens: By estimate.
            output_tokens: Of the longest answer, where nothing is learnt.
            by_s: Seconds until the answer is needed.
        """
        self._is_asked.set()
        known = {lane: self._learnt.get((api, kind, lane), UNLEARNT) for lane in LANES}
        made = max((one.output_tokens for one in known.values()), default=0) or output_tokens
        norms = self._norms_of(pool, kind)
        within_s = None if norms is None else norms.ran_ms / 1000 * P95_OF_MEDIAN
        found = offers(
            Shape(input_tokens, made, prefix_tokens=input_tokens), by_s,
            lambda usage, tier: self._price(api, usage, tier),
            {lane: one.at_once(within_s) if lane in ("standard", "priority") else one for lane, one in known.items()},
            has=self._lanes_of(api),
        )  # fmt: skip
        return TIER_OF[choose(found).lane]

    def busy(self, api: str, tier: str) -> None:
        """Note that a tier had no room for a call: the next ones leave it alone for a while. Never waits."""
        self._busy[api, tier] = self._clock() + BUSY_S * (0.5 + self._share())

    def _lanes_of(self, api: str) -> set[Lane]:
        kind = self._settings.provider_named(api.partition("/")[0]).kind
        return {lane for lane in LANES_OF.get(kind, USUAL) if not self._is_busy(api, TIER_OF[lane])}

    def _is_busy(self, api: str, tier: str | None) -> bool:
        until = None if tier is None else self._busy.get((api, tier))
        return until is not None and self._clock() < until

    async def keep(self) -> None:
        """Read what was learnt, for ever: while tasks ask for it, once a minute."""
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            try:
                self._learnt = await asyncio.to_thread(self._read)
            except FleetError as error:
                logger.warning("lanes not read error=%s", type(error).__name__)
            await asyncio.sleep(READ_EVERY_S * (0.75 + 0.5 * self._share()))

    def _read(self) -> Mapping[Way, LaneFacts]:
        url = state_url(self._settings)
        with connect(url, timeout_s=self._settings.redis.socket_timeout_s) as state, store_errors(url):
            return read_learnt(state, float(state.time()[0]))
