"""Finds the message of a task that a worker holds, and tells by its tag whose it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from fleet.engine.messages.envelope import task_id_in
from fleet.engine.messages.queues import queue_of
from fleet.store import keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import at_each, first, united

FIND_HELD = Script.beside(__file__, "find_held.lua", keys="unacked index", argv="cursor count texts*")

#: Messages looked at in one step (count).
STRETCH = 1000
#: Tasks up to which each is looked for inside Redis, so that no message travels (count).
ONE_BY_ONE = 20


@dataclass(frozen=True, slots=True)
class Tag:
    """What a delivery tag tells of the process that took the message: whoever looks at the unacked ones sees its host.

    Written by `leases.py: Holdings.next_prefix` and `take.lua`: `host.pid.process:take:place`, and `SUSPECT` behind
    that of a suspect; a host name may have dots of its own.
    """

    host: str
    pid: int
    process: str

    @classmethod
    def parse(cls, tag: str) -> Tag | None:
        """Return what a tag tells; None for one that isn't Fleet's."""
        whole, _, process = tag.partition(":")[0].rpartition(".")
        host, _, pid = whole.rpartition(".")
        return cls(host, int(pid), process) if host and pid.isdigit() else None


@dataclass(frozen=True, slots=True)
class Held:
    """A message that a worker holds: under `tag`, its lease last renewed at `renewed_at` (Unix time in seconds)."""

    tag: str
    queue: str
    priority: int
    renewed_at: float | None
    message: bytes


@at_each(first)
def find_held(broker: redis.Redis, task_id: str) -> Held | None:
    """Return the message of a task that a worker holds. O(messages held)."""
    cursor = b"0"
    while True:
        call = FIND_HELD.call(
            unacked=keys.unacked(), index=keys.unacked_index(), cursor=cursor, count=STRETCH, texts=id_texts(task_id)
        )
        cursor, tag, entry, renewed = run_script(broker, FIND_HELD, *call)
        place, _, message = bytes(entry).partition(b"\n")
        if tag and task_id_in(message) == task_id:
            queue, priority = queue_of(place.decode())
            return Held(tag.decode(), queue, priority, float(renewed) if renewed else None, message)
        if cursor == b"0":
            return None


@at_each(united)
def held_of(broker: redis.Redis, task_ids: Sequence[str]) -> set[str]:
    """Return those of the tasks whose message a worker holds. O(messages held), a few tasks one by one."""
    if len(task_ids) <= ONE_BY_ONE:
        return {task_id for task_id in task_ids if find_held(broker, task_id) is not None}
    entries = (entry for _, entry in broker.hscan_iter(keys.unacked(), count=STRETCH))
    return {task_id for entry in entries if (task_id := task_id_in(entry.partition(b"\n")[2]))} & set(task_ids)


def id_texts(task_id: str) -> Sequence[bytes]:
    """Return how the header `id` may be spelled in JSON: with and without a space, escaped or not."""
    spelled = dict.fromkeys(
        json.dumps(task_id, ensure_ascii=escaped).encode("utf-8", "replace") for escaped in (True, False)
    )
    return [b'"id":' + space + text for text in spelled for space in (b" ", b"")]
