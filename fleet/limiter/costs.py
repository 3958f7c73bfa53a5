"""What calls really cost of the most that they may, as `settle.lua` has learnt for the whole fleet. Reads only."""

from __future__ import annotations

import time
from collections.abc import Callable

from fleet.limiter.limits import MOST_KINDS
from fleet.store import keys
from fleet.store.client import Store

#: Deviations above the mean that are taken for the cost of a call.
DEVIATIONS = 3.0
#: Seconds for which what was read is believed; and where a call has no money by that.
FRESH_S, NEWEST_S = 1.0, 0.05


class LearntCosts:
    """Implements `fleet.workers.ports.CostShares`: one HGET a second and kind, and up to 20 while calls have no money.

    Args:
        store: Redis of the fleet's state.
        clock: Seconds that only grow.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._read: dict[tuple[str, str], tuple[float, float]] = {}

    async def share(self, limit: str, kind: str, *, newest: bool = False) -> float:
        """Return what a call is taken to cost, as a share of the most; 1 before anything is learnt.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        now, known = self._clock(), self._read.get((limit, kind))
        if known is not None and now - known[0] < (NEWEST_S if newest else FRESH_S):
            return known[1]
        found = await self._store.command("HGET", keys.limit_keys(limit).facts, f"q:{kind}")
        if len(self._read) >= MOST_KINDS:
            self._read.clear()
        share = _share(found)
        self._read[limit, kind] = now, share
        return share


def _share(learnt: bytes | None) -> float:
    """Return what the field of a kind of calls says; see `settle.lua`: of money are its last two of six words."""
    words = (learnt or b"").split()
    return 1.0 if len(words) < 6 else min(1.0, float(words[4]) + DEVIATIONS * float(words[5]))
