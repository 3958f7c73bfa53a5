"""What `fleet doctor` says of asks: many that came to no outcome. Nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import redis

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.engine.asking.recent import RecentAsk, read_recent
from fleet.engine.operations.asks.board import LOOKED_AT, failing
from fleet.errors import FleetError
from fleet.store.client import connect
from fleet.store.private.embedded import state_url


def recent_asks(settings: Settings) -> tuple[RecentAsk, ...]:
    """Return the newest asks; none when Redis does not answer."""
    try:
        with connect(state_url(settings), timeout_s=settings.redis.socket_timeout_s) as client:
            return tuple(read_recent(client, LOOKED_AT))
    except (FleetError, redis.RedisError, OSError):
        return ()


def ask_checks(asks: Sequence[RecentAsk]) -> Iterator[Check]:
    """Yield whether too many of the newest asks came to nothing; nothing where nobody asks."""
    if not asks:
        return
    found = failing(asks, time.time())
    if found is None:
        yield ok("asks: outcomes", f"{sum(ask.status != 'failed' for ask in asks)} of the newest {len(asks)} have one")
        return
    failed, all_of_them, mostly = found
    yield warn(
        "asks: outcomes",
        f"{failed} of the newest {all_of_them} of the last day have none; most members without a vote: {mostly}",
        "`fleet asks` lists them; raise n, deadline_s or the pools' bots, or mend what members fail of.",
    )
