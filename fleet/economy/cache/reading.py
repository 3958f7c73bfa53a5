"""Kept answers as commands see and drop them, by a plain client; never what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import redis

from fleet.economy.cache.answers import names_of
from fleet.store import cache_keys
from fleet.store.client import Script, run_script

_DROP = Script.beside(__file__, "drop.lua", keys="answers ends bytes", argv="digests*")

#: Answers read, or dropped, in one step (count).
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept answers of a task class.

    Args:
        kind: Which.
        answers: How many.
        bytes: All of them together.
    """

    kind: str
    answers: int
    bytes: int


def kept_of(client: redis.Redis, kinds: Collection[str]) -> tuple[Kept, ...]:
    """Return what is kept of task classes, in one round trip; one that keeps nothing is there, too."""
    with client.pipeline(transaction=False) as pipe:
        for kind in kinds:
            pipe.hlen(cache_keys.kept_answers(kind))
            pipe.get(cache_keys.kept_bytes(kind))
        counts = pipe.execute()
    return tuple(
        Kept(kind, int(number), int(size or 0))
        for kind, number, size in zip(kinds, counts[::2], counts[1::2], strict=True)
    )


def kinds_kept(client: redis.Redis) -> list[str]:
    """Return all task classes of which answers are kept, also those that are deterministic no longer. O(all keys)."""
    before = cache_keys.kept_answers("")
    return sorted(name.decode().removeprefix(before) for name in client.scan_iter(f"{before}*", count=1000))


def kept_in(client: redis.Redis, kind: str) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    """Yield digests and answers of a task class, some at a time; what comes meanwhile may be missed."""
    rows = client.hscan_iter(cache_keys.kept_answers(kind), count=AT_ONCE)
    found = ((cast(bytes, digest), cast(bytes, answer).partition(b"\n")[2]) for digest, answer in rows)
    while some := list(islice(found, AT_ONCE)):
        yield some


def drop(client: redis.Redis, kind: str, digests: Sequence[bytes]) -> int:
    """Drop answers of a task class; return how many were there."""
    if not digests:
        return 0
    return int(run_script(client, _DROP, *_DROP.call(**names_of(kind), digests=digests)))


def drop_all(client: redis.Redis, kind: str) -> int:
    """Drop all answers of a task class in one step; return how many there were."""
    with client.pipeline(transaction=True) as pipe:
        pipe.hlen(cache_keys.kept_answers(kind))
        pipe.unlink(*names_of(kind).values())
        return int(pipe.execute()[0])
