"""Counting and deleting what waits in one queue, wherever plain clients' priority steps have put it."""

from __future__ import annotations

import redis

from fleet.engine.messages.queues import PRIORITY_STEPS, list_key, lists_of
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script

PURGE = Script.beside(__file__, "purge.lua", keys="epochs lists*", argv="own binding list_prefix is_meant fair")


def purge(client: redis.Redis, queue: str, *, is_meant: bool) -> int:
    """Delete what waits in a queue, or (not meant) only count it; return the number of messages."""
    own = [list_key(queue, step) for step in PRIORITY_STEPS]
    foreign = [key for key, _ in lists_of(queue) if key not in own]
    call = PURGE.call(
        epochs=keys.epochs(), lists=(*own, *foreign), own=len(own), binding=keys.binding(""),
        list_prefix=keys.lists(""), is_meant=int(is_meant), fair=flow_keys.stem(),
    )  # fmt: skip
    return int(run_script(client, PURGE, *call))
