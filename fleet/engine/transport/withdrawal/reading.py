"""Reads messages where they wait, for who must look at them in Python, so many at once as their lengths allow.

What waits stays where it is. What is taken back: `withdrawn.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import redis

from fleet.store import keys

#: Messages read in one round trip at first and at most (count), and the bytes that one aims at.
FIRST_READ, READ_AT_ONCE, READ_BYTES = 4, 256, 4_000_000


class Stride:
    """How many messages to read at once: about 4 MB, if the next ones are no longer than the last ones.

    Weakness: where long ones lie behind short ones, up to 256 of them are read once.
    """

    def __init__(self) -> None:
        self.count = FIRST_READ

    def read(self, messages: Sequence[bytes]) -> None:
        """Note what was read last."""
        longest = max(map(len, messages), default=0)
        self.count = max(1, min(READ_AT_ONCE, FIRST_READ * self.count, READ_BYTES // max(1, longest)))


def read_list(client: redis.Redis, place: str) -> Iterator[list[bytes]]:
    """Yield the messages of a list, the next one first, some at a time. It may move meanwhile."""
    skip, stride = 0, Stride()
    while messages := peek(client, place, skip, stride.count):
        yield messages
        stride.read(messages)
        skip += len(messages)


def read_parked(client: redis.Redis, queue: str) -> Iterator[list[bytes]]:
    """Yield what is parked beside a queue, what opens next first, some at a time."""
    skip, stride = 0, Stride()
    while messages := peek_parked(client, queue, skip, stride.count):
        yield messages
        stride.read(messages)
        skip += len(messages)


def peek(client: redis.Redis, place: str, skip: int, count: int) -> list[bytes]:
    """Return messages of bot tasks and others in a list, the next one first; [] at its end."""
    if client.type(place) != b"list":
        return []
    return cast("list[bytes]", client.lrange(place, -skip - count, -skip - 1))[::-1]


def peek_parked(client: redis.Redis, queue: str, skip: int, count: int) -> list[bytes]:
    """Return what is parked beside a queue, what opens next first; [] at the end."""
    ids = cast("list[bytes]", client.zrange(keys.parked_order(queue), skip, skip + count - 1))
    entries = cast("list[bytes | None]", client.hmget(keys.parked(), ids)) if ids else []
    return [(entry or b"").split(b"\n", 2)[-1] for entry in entries]
