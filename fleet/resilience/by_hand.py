"""A breaker that an operator closes."""

from __future__ import annotations

import redis

from fleet.resilience.layouts import WAS_CLOSED, BreakerReply
from fleet.resilience.scripts import CLOSE, LIFTED
from fleet.store import keys
from fleet.store.client import run_script


def close_breaker(client: redis.Redis, limit: str) -> tuple[bool, int]:
    """Close a breaker for the whole fleet; workers that believe it open ask again within a second.

    Args:
        client: Redis of the fleet's state.
        limit: `provider/model/key`.

    Returns:
        Whether it was open, and the number to say with `gates_are_open` once its pools' gates are.
    """
    reply = BreakerReply._make(run_script(client, CLOSE, *CLOSE.call(breaker=keys.breaker(limit))))
    return reply.turned == WAS_CLOSED, reply.lift_at


def gates_are_open(client: redis.Redis, limit: str, lift_at: int) -> None:
    """Say that the gates of a limit's pools are open: no worker need open them."""
    run_script(client, LIFTED, *LIFTED.call(breaker=keys.breaker(limit), lift_at=lift_at))
