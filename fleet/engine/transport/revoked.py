"""The marks of revoked tasks. They lie in Redis, so they hold with no worker alive, after any death and on any worker.

`take.lua` names those among the messages that it hands out; Celery then ends them as it ends any revoked task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import redis
from celery.worker import state as worker_state

from fleet.engine.messages.envelope import is_usable
from fleet.engine.messages.fair.flows import ENTER
from fleet.engine.messages.queues import PRIORITY_SEPARATOR
from fleet.store import flow_keys, keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import at_each, joined

REVOKE = Script.beside(
    __file__,
    "revoke.lua",
    keys="revoked parked openings bell ends epochs",
    argv="life_s order_prefix waiting_prefix separator list_prefix mark_prefix fair ids*",
    using=[ENTER],
)

#: Life of a mark whose task nobody has met, in seconds (a year): behind a closed gate a task may wait for long.
MARK_LIFE_S = 365 * 24 * 3600
#: Tasks marked in one step (count): bounds the time that the script holds Redis.
AT_ONCE = 500


@at_each(joined)
def mark_revoked(broker: redis.Redis, task_ids: Iterable[str]) -> list[str]:
    """Keep tasks from starting, and return those that were parked: nobody works on them."""
    parked: list[str] = []
    rest = iter(task_ids)
    while batch := list(islice(rest, AT_ONCE)):
        call = REVOKE.call(
            revoked=keys.revoked(), parked=keys.parked(), openings=keys.openings(), bell=keys.bell(),
            ends=keys.ends(), epochs=keys.epochs(), life_s=MARK_LIFE_S, order_prefix=keys.parked_order(""),
            waiting_prefix=keys.waiting(""), separator=PRIORITY_SEPARATOR, list_prefix=keys.lists(""),
            mark_prefix=keys.submitted(""), fair=flow_keys.stem(), ids=batch,
        )  # fmt: skip
        flags = run_script(broker, REVOKE, *call)
        parked += [task_id for task_id, flag in zip(batch, flags, strict=True) if flag]
    return parked


@at_each(any)
def is_revoked(broker: redis.Redis, task_id: str) -> bool:
    """True while the task must not start."""
    return broker.zscore(keys.revoked(), task_id) is not None


def tell_celery(broker: redis.Redis, taken: Mapping[str, Any], flagged: Sequence[str]) -> None:
    """Have Celery know which of the tasks that were just taken are revoked: exactly those whose mark lies in Redis.

    What a worker remembers of an earlier `revoke` must not end a task that was submitted again since.

    Args:
        broker: Client of the broker.
        taken: Delivery tag -> message as kombu has it, of all that were taken.
        flagged: Tags that `take.lua` named, by a look at their text.
    """
    ids = {tag: task_id for tag, message in taken.items() if (task_id := _id_of(message)) is not None}
    suspects = [ids[tag] for tag in flagged if tag in ids]
    scores = cast("list[Any]", broker.zmscore(keys.revoked(), suspects)) if suspects else []
    marked = {task_id for task_id, score in zip(suspects, scores, strict=True) if score is not None}
    for task_id in ids.values():
        if task_id in marked:
            worker_state.revoked.add(task_id)
        elif task_id.isascii() and '"' not in task_id and "\\" not in task_id:  # else the look at its text misses it
            worker_state.revoked.discard(task_id)


def _id_of(message: Any) -> str | None:
    headers = message.get("headers") if isinstance(message, dict) else None
    task_id = headers.get("id") if isinstance(headers, dict) else None
    return task_id if isinstance(task_id, str) and is_usable(task_id) else None
