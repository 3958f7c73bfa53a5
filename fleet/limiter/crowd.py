"""Who waits under a limit, by urgency: what the engine goes by when it decides how many tasks to take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fleet.config import LimitSettings
from fleet.limiter.limits import CLASS, Terms
from fleet.limiter.snapshot import interval_us, read_standing, snapshot_of, terms_in_force
from fleet.models import Priority
from fleet.store import keys
from fleet.store.client import Store


@dataclass(frozen=True, slots=True)
class Crowd:
    """Waiting calls of one limit.

    Args:
        waiting: Tickets by priority, the most urgent first.
        interval_s: Seconds from one call to the next at their mean size; 0: nothing limits them.
        next_s: Seconds until the next slot is free.
    """

    waiting: tuple[int, ...]
    interval_s: float
    next_s: float

    @property
    def total(self) -> int:
        """All tickets."""
        return sum(self.waiting)


async def read_crowd(store: Store, limit: str, settings: LimitSettings) -> Crowd:
    """Read who waits, in one write. Raises `StoreUnavailable`."""
    queue = keys.limit_keys(limit).queue
    counts = [store.command("ZCOUNT", queue, priority * CLASS, f"({(priority + 1) * CLASS}") for priority in Priority]
    standing, *waiting = await asyncio.gather(read_standing(store, limit), *counts)
    between_us = interval_us(terms_in_force(Terms.of(settings), standing), standing.state)
    next_s = snapshot_of(limit, standing, settings).queue_s
    return Crowd(tuple(waiting), between_us / 1e6, next_s)
