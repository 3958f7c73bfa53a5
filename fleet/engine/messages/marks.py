"""Marks of idempotency keys: what keeps a task that is submitted twice from being queued, and paid for, twice.

A mark is set without a clock when its task is queued, says where the message is as that moves (`orphan_mark.lua`), and
gets the life of the result in the step that stores it. So it lives as long as its task may run. A mark whose task is
nowhere any more (the queue was purged, the result forgotten) is taken over by whoever submits the key again, and
removed by a walk over the keys. Marks and messages are both on the broker; setting them is `enqueue.lua`. Where there
are several brokers, the main one knows which has a key (`home.lua`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fleet.config import Settings
from fleet.jobs import membership_of
from fleet.store import keys
from fleet.store.client import Script

ORPHAN = Script.beside(__file__, "orphan_mark.lua", keys="mark epochs unacked parked", argv="result")
SWEEP = Script.beside(
    __file__,
    "sweep_marks.lua",
    keys="walk turn epochs unacked parked",
    argv="pause_ms life_s count mark_prefix result_prefix",
    using=[ORPHAN],
)
NOWHERE = Script.beside(__file__, "nowhere.lua", keys="epochs unacked parked", argv="marks*", using=[ORPHAN])
HOME = Script.beside(
    __file__,
    "home.lua",
    keys="epochs unacked parked",
    argv="life_s known mark_prefix result_prefix pairs*",
    using=[ORPHAN],
)
LAPSE = Script.beside(__file__, "lapse.lua", argv="life_s pairs*")
CLOSE = Script.beside(__file__, "close_mark.lua", keys="mark", argv="life_s")

#: Seconds between two steps of the walk, of all workers together.
SWEEP_EVERY_S = 2.5
#: Keys that a step looks at (count): about 0.3 ms of Redis. A million keys are walked in 40 minutes.
SWEEP_COUNT = 1000
#: Life of the walk's place, in seconds: a walk that nobody goes on with starts over.
WALK_LIFE_S = 3600
#: Seconds that a note of a broker lives on whose task was found nowhere: more than it takes to queue what was noted.
NOTE_LIFE_S = 3600
#: What the note of a broker begins with, in place of a mark (home.lua).
NOTE = b"b|"

#: How the message of a task with a mark begins: scripts that move it find the mark without reading JSON.
_HEAD = b'{"mark":"'


def is_from_key(task_id: str) -> bool:
    """True for an id that may have been made from an idempotency key: a UUID version 5."""
    return len(task_id) == 36 and task_id[14] == "5" and task_id.isascii() and task_id.replace("-", "").isalnum()


def mark_of(task_id: str) -> str:
    """Return the key of a task's mark; empty when it cannot have one."""
    return keys.submitted(task_id) if is_from_key(task_id) or membership_of(task_id) else ""


def marked(task_id: str, message: bytes) -> bytes:
    """Return the message of a task with a mark, from which the mark can be found."""
    return b'%b%b",%b' % (_HEAD, task_id.encode(), message[1:])


def result_prefix(settings: Settings) -> str:
    """Return how keys of results on the broker begin; empty when they are on another Redis."""
    return keys.result("") if settings.redis.state_url in (None, settings.redis.url) else ""


def sweep_call(settings: Settings, *, has_results: bool = True) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `sweep_marks.lua`.

    Args:
        settings: Where results are.
        has_results: This broker may have them: it is the main one.
    """
    return SWEEP.call(
        walk=keys.turn("marks:walk"), turn=keys.turn("marks"), epochs=keys.epochs(), unacked=keys.unacked(),
        parked=keys.parked(), pause_ms=round(SWEEP_EVERY_S * 900), life_s=WALK_LIFE_S, count=SWEEP_COUNT,
        mark_prefix=keys.submitted(""), result_prefix=result_prefix(settings) if has_results else "",
    )  # fmt: skip


def nowhere_call(task_ids: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `nowhere.lua` for tasks that have marks."""
    return nowhere_among(list(map(keys.submitted, task_ids)))


def nowhere_among(marks: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `nowhere.lua` for marks."""
    return NOWHERE.call(epochs=keys.epochs(), unacked=keys.unacked(), parked=keys.parked(), marks=marks)


def home_call(
    pairs: Sequence[str], others: Iterable[str], settings: Settings, life_s: int | None
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `home.lua`.

    Args:
        pairs: Marker, and name of the broker that its message is to go to ('': the main one), of each.
        others: Names of the brokers beside the main one.
        settings: Where results are.
        life_s: Life of the markers, s; None: they are marks of idempotency keys.
    """
    return HOME.call(
        epochs=keys.epochs(), unacked=keys.unacked(), parked=keys.parked(), life_s="" if life_s is None else life_s,
        known=f"|{'|'.join(others)}|", mark_prefix=keys.submitted(""), result_prefix=result_prefix(settings),
        pairs=pairs,
    )  # fmt: skip


def close_call(task_id: str, settings: Settings) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `close_mark.lua` for a task that has a mark."""
    return CLOSE.call(mark=keys.submitted(task_id), life_s=settings.results.expires_s)
