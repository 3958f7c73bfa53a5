"""Kept answers for commands and pages: what they have done, by kind; and dropping those of a tenant."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from fleet.config import Settings
from fleet.economy.cache.reading import drop, kept_in
from fleet.engine.outcomes.stored import read_result
from fleet.signals.counted.sums import read_totals
from fleet.signals.money.cached import CacheRow, rows_of


def deterministic(settings: Settings) -> tuple[str, ...]:
    """Return the kinds of which equal tasks have equal answers."""
    return tuple(name for name, kind in settings.kinds.items() if kind.deterministic)


def counts_in(totals: Mapping[bytes, int], settings: Settings) -> tuple[CacheRow, ...]:
    """Return a row of each kind that is deterministic, or was, from the counters of the fleet."""
    counts = {name.decode(errors="replace"): count for name, count in totals.items() if name.startswith(b"cache_")}
    return rows_of(counts, deterministic(settings))


def read_counts(client: redis.Redis, settings: Settings) -> tuple[CacheRow, ...]:
    """Read the counters, and return `counts_in`."""
    return counts_in(read_totals(client, settings.pools), settings)


def drop_of_tenant(client: redis.Redis, kind: str, tenant: str) -> int:
    """Drop the kept answers of a tenant's tasks; return how many there were."""
    dropped = 0
    for some in kept_in(client, kind):
        results = [(digest, read_result(answer)) for digest, answer in some]
        dropped += drop(client, kind, [digest for digest, one in results if one is not None and one.tenant == tenant])
    return dropped
