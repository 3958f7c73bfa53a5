"""What `fleet doctor` says of deterministic kinds: whether they can be, and whether it is of any use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import redis

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.engine.operations.money.cached import deterministic, read_counts
from fleet.errors import FleetError
from fleet.signals.money.cached import CacheRow
from fleet.store.client import connect
from fleet.store.private.embedded import state_url

#: Tasks of a kind after which it has equal ones, or never will.
MANY = 200


def cache_counts(settings: Settings) -> tuple[CacheRow, ...]:
    """Return what kept answers have done; nothing when Redis does not answer."""
    if not deterministic(settings):
        return ()
    try:
        with connect(state_url(settings), timeout_s=settings.redis.socket_timeout_s) as client:
            return read_counts(client, settings)
    except (FleetError, redis.RedisError, OSError):
        return ()


def cache_checks(settings: Settings, counts: Iterable[CacheRow]) -> Iterator[Check]:
    """Yield what to know of each deterministic kind."""
    known = {row.kind: row for row in counts}
    for kind in deterministic(settings):
        warm = [
            name
            for name, pool in settings.pools.items()
            if (not pool.kinds or kind in pool.kinds) and not pool.own_bot and any(pool.persona.temperatures)
        ]
        name = f"kinds.{kind}: deterministic"
        if warm:
            yield warn(
                name,
                f"bots of {', '.join(warm)} answer it with a temperature above 0: equal tasks would have other answers",
                f"Set pools.{warm[0]}.persona.temperatures = [0.0], give the kind a pool of its own, or know that the "
                "first answer stands for all.",
            )
        else:
            yield ok(name, "no bot that answers it has a temperature above 0")
        row = known.get(kind)
        if row is not None and row.misses >= MANY and not row.hits:
            by_persona = settings.kinds[kind].by_persona and "; by_persona = false lets one bot's answer serve for all"
            yield warn(
                f"kinds.{kind}: kept answers",
                f"{row.misses:,} tasks, and none got the answer of an equal one: each pays two round trips for nothing",
                f"Take deterministic out if no tasks are equal{by_persona or ''}.",
            )
