"""How a worker puts a message back that it has taken and that must wait: the script, and the header that goes along.

Whether a pool waits altogether is told by its hold (`fleet/engine/admission/holds.py`), not here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fleet.engine.messages import weight
from fleet.engine.messages.envelope import BEFORE
from fleet.engine.messages.fair.flows import ENTER
from fleet.engine.messages.queues import PRIORITY_SEPARATOR, queue_of
from fleet.engine.transport import leases
from fleet.engine.transport.parking.parked import PARK
from fleet.engine.transport.several import sharing
from fleet.outcome import Before
from fleet.store import flow_keys, keys
from fleet.store.client import Script
from fleet.store.patience import patiently
from fleet.store.running.brokers import AnyStore
from fleet.waits import Wait

PUT_BACK = Script.beside(
    __file__,
    "put_back.lua",
    keys="unacked index parked openings order suspects epochs waiting bell revoked ends gate hold",
    argv="tag queue step id at reason message mark mark_prefix life_s separator fair",
    using=[PARK, ENTER],
)

#: How the reason of an entry ends whose message opens to the head of its list: its task has only waited.
TO_HEAD = ', "to": "head"}'


@dataclass(frozen=True, slots=True)
class PutBack:
    """A message that goes back.

    Args:
        tag: Under which this process holds it.
        task_id: Its task.
        wait: Why it waits.
        at: Unix time in seconds until which it is parked, away from its list; None: to the head of its list.
        sent: True when it opens to the end of its list, behind those that were not tried yet; else to its head.
        before: What its task has had so far; None: its message stays as it is.
    """

    tag: str
    task_id: str
    wait: Wait
    at: float | None = None
    sent: bool = False
    before: Before | None = None


async def put_back(broker: AnyStore, gone: PutBack) -> bool:
    """Put a message back, and forget that this process held it. Safe to repeat.

    Returns:
        False when this process did not hold it any more: somebody else may have it.

    Raises:
        StoreError: When Redis refuses it.
    """
    store = await patiently(lambda: sharing.store_of(broker, gone.tag))
    entry: bytes | None = await patiently(lambda: store.command("HGET", keys.unacked(), gone.tag))
    place, _, message = (entry or b"").partition(b"\n")
    if not place:
        leases.let_go(gone.tag)
        return False
    queue, step = queue_of(place.decode())
    call = PUT_BACK.call(
        unacked=keys.unacked(), index=keys.unacked_index(), parked=keys.parked(), openings=keys.openings(),
        order=keys.parked_order(queue), suspects=keys.suspects(), epochs=keys.epochs(), waiting=keys.waiting(step),
        bell=keys.bell(), revoked=keys.revoked(), ends=keys.ends(), gate=keys.gate(queue), hold=keys.hold(queue),
        tag=gone.tag, queue=queue, step=step, id=gone.task_id, at="" if gone.at is None else repr(gone.at),
        reason=reason_of(gone), message=b"" if gone.before is None else with_before(message, gone.before),
        mark=leases.SUSPECT, mark_prefix=keys.submitted(""), life_s=keys.STATE_TTL_S, separator=PRIORITY_SEPARATOR,
        fair=flow_keys.stem(),
    )  # fmt: skip
    is_put: int = await patiently(lambda: store.run(PUT_BACK, *call))
    leases.let_go(gone.tag)
    return bool(is_put)


def reason_of(gone: PutBack) -> str:
    """Return why a message is parked, as its entry has it: JSON of a `Wait`, and whether it opens to the head."""
    told = gone.wait.to_json()
    return told if gone.sent else f"{told[:-1]}{TO_HEAD}"


def with_before(message: bytes, before: Before) -> bytes:
    """Return a message as it lies in a queue, with what its task has had in its header; all else is as it was.

    One that cannot be read, or would become longer than any may be, stays as it is: its task forgets what it has had.
    """
    try:
        content: dict[str, Any] = json.loads(message)
        content["headers"][BEFORE] = before.model_dump(mode="json", exclude_defaults=True)
        changed = json.dumps(content, separators=(",", ":")).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return message
    return changed if len(changed) <= weight.MAX_MESSAGE_BYTES else message
