"""The fleet's counters as a test reads them: whatever pools have counted, added up."""

from __future__ import annotations

from typing import Any

import redis

from fleet.signals.counted.sums import added


def all_counted(client: redis.Redis) -> dict[str, int]:
    """Return every counter and its sum over all pools."""
    names: Any = list(client.scan_iter("*{fleet*}:signals:totals", _type="HASH"))
    hashes: Any = [client.hgetall(name) for name in names]
    return {name.decode(): number for name, number in added(hashes).items()}


def counted(client: redis.Redis, counter: str) -> int:
    """Return the sum of one counter over all pools."""
    return all_counted(client).get(counter, 0)
