"""Queueing the members of a job, batch by batch, so that a producer that dies goes on where it was.

A member's id is made of its job and its place, and an id is queued once. First a batch is queued, then it is noted how
far the job is; who dies in between queues that batch again, which queues nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from fleet import config
from fleet.engine.messages.broker import broker, enqueue
from fleet.engine.messages.delegated import warrant_of
from fleet.engine.messages.pool_choice import Dispatcher
from fleet.engine.messages.producer import PIECE, chosen, parts_of_message
from fleet.errors import InvalidTask
from fleet.jobs import MOST_MEMBERS, member_id
from fleet.store.client import store_errors


def queue_members(job_id: str, tasks: Iterable[Any], *, after: int) -> Iterator[int]:
    """Queue a job's members, and yield after each batch how many of all are queued. Lazy: consume it to submit.

    Args:
        job_id: Of the job.
        tasks: Those behind the first `after`: prompts, dicts or `BotTask`s; read batch by batch.
        after: Members before them (count).

    Raises:
        InvalidTask: Naming the position of the first invalid task; earlier batches are queued, its own is not.
        StoreUnavailable: When the broker did not confirm a batch. The same call can be repeated safely.
    """
    settings = config.current()
    client, url = broker().client, broker().url
    dispatcher = Dispatcher(client, settings)
    offered = enumerate(tasks, start=after)
    while batch := list(islice(offered, PIECE)):
        with store_errors(url):
            dispatcher.refresh()
            queued_at, parts = time.time(), list[Any]()
            for position, task in batch:
                parts += _parts_of(job_id, position, task, dispatcher, queued_at)
            enqueue(client, parts, settings)
        after = batch[-1][0] + 1
        yield after


def _parts_of(job_id: str, position: int, task: Any, dispatcher: Dispatcher, queued_at: float) -> list[Any]:
    parsed, pool, key = chosen(position, task, None, dispatcher)
    if key is not None:
        raise InvalidTask(
            f"task {position}: expected no idempotency_key: a job's own key keeps its members from doubles"
        )
    if position >= MOST_MEMBERS:
        raise InvalidTask(f"expected a job of at most {MOST_MEMBERS:,} tasks, got more; make several jobs of them")
    task_id = member_id(job_id, position)
    signed = warrant_of(task_id, parsed, pool, config.current())
    return parts_of_message(task_id, parsed, pool, queued_at, signed=signed, is_marked=True)
