"""`worker_autoscaler` of the Celery app: as many slots as the fleet wants of it, between the bounds.

Celery's own sees the requests that it has reserved, and these never exceed its slots here: what waits, waits in Redis.
Fewer slots are fewer takes: what runs in the others ends first, so nothing is cut off, and a worker that is killed then
leaves no more behind than any other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from celery.utils.log import get_logger
from celery.worker.autoscale import Autoscaler

from fleet.engine.process.wiring import PROCESS
from fleet.errors import FleetError
from fleet.scaling.wanted import WantedSlots, alone
from fleet.store.clock import CLOCK

logger = get_logger("fleet.pool")

#: Seconds between two looks at what is wanted.
LOOK_EVERY_S = 2.0
#: Seconds for which a worker that hears no decision must want fewer slots until it has fewer.
HOLD_S = 60.0


class SlotScaler(Autoscaler):
    """Grows and shrinks one worker's pool. All of it in Celery's main thread, but for the reading."""

    def __init__(
        self, pool: Any, max_concurrency: int, min_concurrency: int = 0, worker: Any = None, mutex: Any = None,
        keepalive: float = LOOK_EVERY_S,
    ) -> None:  # fmt: skip
        super().__init__(pool, max_concurrency, max(1, min_concurrency), worker, keepalive, mutex)
        self.max_concurrency: int
        self.min_concurrency: int
        pool.most_slots = max_concurrency
        self._wanted: WantedSlots | None = None
        self._is_reading = False
        self._lately: deque[tuple[float, int]] = deque()

    def maybe_scale(self, req: Any = None) -> None:
        """Look, and resize. Celery calls it with each task as well: what is wanted does not depend on one."""
        if req is None:
            self._read_soon()
            self.resize()

    def resize(self) -> None:
        """Have as many slots as are wanted now."""
        now_s = CLOCK.now_s()
        wanted = self._wanted if self._wanted is not None and self._wanted.is_fresh(now_s) else None
        slots = self._alone(now_s) if wanted is None else wanted.each
        self._set(min(max(slots, self.min_concurrency), self.max_concurrency), wanted)

    def update(self, max: int | None = None, min: int | None = None) -> tuple[int, int]:
        """Change the bounds, and the slots with them."""
        self.max_concurrency = self.max_concurrency if max is None else max
        self.min_concurrency = self.min_concurrency if min is None else min
        self.pool.most_slots = self.max_concurrency
        self.resize()
        return self.max_concurrency, self.min_concurrency

    def _set(self, slots: int, wanted: WantedSlots | None) -> None:
        before = self.pool.slots
        if slots == before:
            return
        (self.pool.grow if slots > before else self.pool.shrink)(abs(slots - before))
        self.worker.consumer._update_prefetch_count(slots - before)
        why = "no decision is heard: by its own tasks" if wanted is None else wanted.decision.reason
        logger.info("slots=%d before=%d busy=%d: %s", slots, before, self.pool.busy, why)

    def _alone(self, now_s: float) -> int:
        self._lately.append((now_s, alone(self.pool.busy)))
        while self._lately[0][0] <= now_s - HOLD_S:
            self._lately.popleft()
        return max(slots for _, slots in self._lately)

    def _read_soon(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            PROCESS.runtime.call_soon(lambda: asyncio.ensure_future(self._read()))

    async def _read(self) -> None:
        try:
            raw = await PROCESS.wanted()
            self._wanted = None if raw is None else WantedSlots.model_validate_json(raw)
        except (FleetError, ValueError) as error:  # what was heard last holds until it is stale
            logger.debug("not heard how many slots are wanted error=%s", type(error).__name__)
        finally:
            self._is_reading = False
