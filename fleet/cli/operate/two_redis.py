"""The clients of commands that read both Redis servers, by the name that the commands know them by."""

from __future__ import annotations

from fleet.store.private.two_redis import TwoRedis, state_client, two_redis

__all__ = ["TwoRedis", "state_client", "two_redis"]
