"""What waits in Redis until a time, held by nobody: a sorted set beside each queue, ordered by opening time.

ETA and countdown tasks wait here, published by us or taken from a list into which a plain client pushed them.
`take.lua` opens what is due by the clock of Redis. Why a message waits is a word in its entry (`REASON_TIME`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from fleet.engine.messages.envelope import is_usable
from fleet.engine.messages.eta import eta_s
from fleet.engine.messages.fair.flows import ENTER
from fleet.engine.messages.queues import PRIORITY_SEPARATOR, queue_of
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import at_each, first

PARK = Script.beside(__file__, "park.lua", keys="parked openings order", argv="queue id at entry mark_prefix")
OPEN = Script.beside(
    __file__,
    "open_parked.lua",
    keys="parked openings bell epochs",
    argv="now most order_prefix waiting_prefix separator mark_prefix priorities fair list_prefix",
    using=[ENTER],
)
PUBLISH_LATER = Script.beside(
    __file__,
    "publish_later.lua",
    keys="parked openings order list waiting bell epochs",
    argv="queue id at reason mark_prefix message separator fair",
    using=[PARK, ENTER],
)
PARK_HELD = Script.beside(
    __file__,
    "park_held.lua",
    keys="unacked index parked openings",
    argv="order_prefix separator list_prefix reason mark_prefix messages*",
    using=[PARK],
)
PURGE = Script.beside(__file__, "purge_parked.lua", keys="parked openings order", argv="queue most")

#: Why a message waits: for the time that its producer gave.
REASON_TIME = "time"
#: Messages thrown away in one step (count): bounds the time that the script holds Redis.
PURGE_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Parked:
    """A message that waits until `opens_at` (Unix time in seconds), because of `reason`."""

    queue: str
    priority: int
    opens_at: float
    reason: str
    message: bytes


@dataclass(frozen=True, slots=True)
class ParkedCount:
    """How much is parked beside a queue, and when the first of it opens (Unix time in seconds; None: nothing is)."""

    count: int
    next_at: float | None


def publish_later_call(
    queue: str, list_key: str, step: int, message: bytes | str, *, task_id: str, at: float
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `publish_later.lua` for a message whose time is `at` (Unix time in seconds)."""
    return PUBLISH_LATER.call(
        parked=keys.parked(), openings=keys.openings(), order=keys.parked_order(queue), list=list_key,
        waiting=keys.waiting(step), bell=keys.bell(), epochs=keys.epochs(), queue=queue, id=task_id, at=repr(at),
        reason=REASON_TIME, mark_prefix=keys.submitted(""), message=message, separator=PRIORITY_SEPARATOR,
        fair=flow_keys.stem(),
    )  # fmt: skip


def time_of(message: Any) -> tuple[str, float] | None:
    """Return task id and ETA of a message as kombu has it; None: it does not wait, or says no time that is one."""
    headers = message.get("headers") if isinstance(message, dict) else None
    if not isinstance(headers, dict) or headers.get("eta") is None:  # nearly all
        return None
    try:
        at = eta_s(headers)
    except ValueError:
        return None  # it goes on as it is: who takes it refuses it in words
    task_id = headers.get("id")
    return (task_id, at) if at is not None and isinstance(task_id, str) and is_usable(task_id) else None


def park_held(client: redis.Redis, waits: Mapping[str, tuple[str, float]]) -> set[str]:
    """Park messages that this process holds, by tag: those whose time has not come, by the clock of Redis.

    Returns:
        The tags that this process does not hold any more.
    """
    parts = [part for tag, (task_id, at) in waits.items() for part in (tag, task_id, repr(at))]
    call = PARK_HELD.call(
        unacked=keys.unacked(), index=keys.unacked_index(), parked=keys.parked(), openings=keys.openings(),
        order_prefix=keys.parked_order(""), separator=PRIORITY_SEPARATOR, list_prefix=keys.lists(""),
        reason=REASON_TIME, mark_prefix=keys.submitted(""), messages=parts,
    )  # fmt: skip
    return {tag.decode() for tag in run_script(client, PARK_HELD, *call)}


def purge_parked(client: redis.Redis, queue: str) -> int:
    """Throw away all that is parked beside a queue, and return how much it was."""
    thrown, last = 0, PURGE_AT_ONCE
    while last == PURGE_AT_ONCE:
        call = PURGE.call(
            parked=keys.parked(), openings=keys.openings(), order=keys.parked_order(queue), queue=queue,
            most=PURGE_AT_ONCE,
        )  # fmt: skip
        last = int(run_script(client, PURGE, *call))
        thrown += last
    return thrown


@at_each(first)
def find_parked(client: redis.Redis, task_id: str) -> Parked | None:
    """Return what is parked of a task. O(1)."""
    entry = cast("bytes | None", client.hget(keys.parked(), task_id))
    if entry is None:
        return None
    found = _parked_of(entry)
    at = client.zscore(keys.parked_order(found[0]), task_id)
    return None if at is None else Parked(found[0], found[1], at, found[2], found[3])


def next_parked(client: redis.Redis, queue: str, most: int) -> list[Parked]:
    """Return what opens next beside a queue, at most so many. O(most)."""
    rows = cast("list[tuple[bytes, float]]", client.zrange(keys.parked_order(queue), 0, most - 1, withscores=True))
    if not rows:
        return []
    entries = cast("list[bytes | None]", client.hmget(keys.parked(), [task_id for task_id, _ in rows]))
    found = ((at, _parked_of(entry)) for (_, at), entry in zip(rows, entries, strict=True) if entry)
    return [Parked(queue, priority, at, reason, message) for at, (_, priority, reason, message) in found]


def read_parked(client: redis.Redis, names: Iterable[str]) -> list[ParkedCount]:
    """Return what is parked beside queues. One round trip, O(queues)."""
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zcard(keys.parked_order(name))
            pipe.zrange(keys.parked_order(name), 0, 0, withscores=True)
        replies = pipe.execute()
    return [
        ParkedCount(int(count), float(first[0][1]) if first else None)
        for count, first in zip(replies[::2], replies[1::2], strict=True)
    ]


def _parked_of(entry: bytes) -> tuple[str, int, str, bytes]:
    """Return queue, priority, reason and message of an entry."""
    place, reason, message = entry.split(b"\n", 2)
    return *queue_of(place.decode()), reason.decode(), message
