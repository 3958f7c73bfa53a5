"""The limiter of a worker, telling the fleet's events of a provider that refuses: departments do not meet elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from fleet.config import LimitSettings
from fleet.limiter import Limiter
from fleet.limiter.limits import DAY_US
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store.client import Store

#: Seconds for which one event speaks for all that follow about the same limit, from any worker.
QUIET_S = 60.0


class EventLimiter(Limiter):
    """A `Limiter` that records as an event that a provider refuses calls, and that a day is nearly or fully used.

    Args:
        store: State Redis.
        limits: As `Limiter` takes them.
    """

    def __init__(self, store: Store, limits: Mapping[str, LimitSettings]) -> None:
        super().__init__(store, limits)
        self._events = store

    def penalise(self, limit: str, *, retry_after_s: float, told: str = "") -> None:
        """Hold the whole fleet on `limit`, and say so. Never waits, never raises."""
        super().penalise(limit, retry_after_s=retry_after_s, told=told)
        record_event(
            self._events, catalogue.PROVIDER_LIMITED, quiet_s=QUIET_S, about=limit,
            limit=limit, hold_s=f"{retry_after_s:.1f}",
        )  # fmt: skip

    def day_is_used(self, limit: str, percent: int) -> None:
        """Say that a day is used to that share, once a day. Never waits, never raises."""
        super().day_is_used(limit, percent)
        day_s = DAY_US / 1e6
        record_event(
            self._events, catalogue.BUDGET_WARNING, quiet_s=day_s - time.time() % day_s, about=f"{limit}:{percent}",
            limit=limit, percent=percent,
        )  # fmt: skip

    def narrow(self, limit: str, *, most: int = 0) -> None:
        """Let no more calls go at once than the provider takes, and say so. Never waits, never raises."""
        super().narrow(limit, most=most)
        record_event(self._events, catalogue.PROVIDER_NARROW, quiet_s=QUIET_S, about=limit, limit=limit, most=str(most))
