"""Queueing the members of a job, batch by batch, so that a producer that dies goes on where it was.

A member's id is made of its job and its place, and an id is queued once. First a batch is queued, then it is noted how
far the job is; who dies in between queues that batch again, which queues nothing. The next one is made while Redis
works on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fleet import config
from fleet.config import Settings
from fleet.engine.messages.broker import broker, enqueue
from fleet.engine.messages.delegated import warrant_of
from fleet.engine.messages.pool_choice import Dispatcher
from fleet.engine.messages.producer import PIECE, chosen, parts_of_message
from fleet.errors import InvalidTask
from fleet.jobs import MOST_MEMBERS, member_id
from fleet.store.client import store_errors


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch that is being queued: its tasks, the members up to its end, and how many are queued, sooner or later."""

    tasks: Sequence[Any]
    end: int
    queued: Future[int]


def queue_members(
    job_id: str, tasks: Iterable[Any], *, after: int, is_whole: bool, stop: threading.Event
) -> Iterator[int]:
    """Queue a job's members, and yield after each batch how many of all are queued. Lazy: consume it to submit.

    Args:
        job_id: Of the job.
        tasks: Those behind the first `after`: prompts, dicts or `BotTask`s; read batch by batch.
        after: Members before them (count).
        is_whole: What another producer has queued in these places are these tasks; else others, and these go behind.
        stop: Once it is set, no further batch is begun; one that is on its way is yielded still.

    Raises:
        InvalidTask: Naming the position of the first invalid task; earlier batches are queued, its own is not.
        StoreUnavailable: When the broker did not confirm a batch. The same call can be repeated safely.
    """
    settings, source, again = config.current(), iter(tasks), list[Any]()
    dispatcher = Dispatcher(broker().client, settings, tasks=PIECE)
    under_way: _Batch | None = None
    failed: Exception | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="fleet-job") as sender:
        while True:
            some = list[Any]()
            try:
                if not stop.is_set() and (again or failed is None):
                    some = again or list(islice(source, PIECE))
                    made = _made(job_id, some, after, dispatcher, settings)
            except Exception as error:  # noqa: BLE001 - of the tasks' own source, too; raised behind what is queued
                failed, some = error, []
            again = []
            if under_way is not None:
                taken = len(under_way.tasks) - under_way.queued.result()
                again = [] if is_whole else list(under_way.tasks[:taken])
                yield under_way.end
                under_way = None
            if some:
                after += len(some)
                under_way = _Batch(some, after, sender.submit(_send, made, settings))
            elif stop.is_set() or not again:
                break
    if failed is not None:
        raise failed


def _made(job_id: str, tasks: Sequence[Any], after: int, dispatcher: Dispatcher, settings: Settings) -> list[Any]:
    with store_errors(broker().url):
        dispatcher.refresh()
        queued_at, parts = time.time(), list[Any]()
        for position, task in enumerate(tasks, start=after):
            parts += _parts_of(job_id, position, task, dispatcher, queued_at, settings)
    return parts


def _send(parts: list[Any], settings: Settings) -> int:
    with store_errors(broker().url):
        return enqueue(broker().client, parts, settings)


def _parts_of(
    job_id: str, position: int, task: Any, dispatcher: Dispatcher, queued_at: float, settings: Settings
) -> list[Any]:
    parsed, pool, key = chosen(position, task, None, dispatcher)
    if key is not None:
        raise InvalidTask(
            f"task {position}: expected no idempotency_key: a job's own key keeps its members from doubles"
        )
    if position >= MOST_MEMBERS:
        raise InvalidTask(f"expected a job of at most {MOST_MEMBERS:,} tasks, got more; make several jobs of them")
    task_id = member_id(job_id, position)
    signed = warrant_of(task_id, parsed, pool, settings)
    return parts_of_message(task_id, parsed, pool, queued_at, signed=signed, is_marked=True)
