"""Submit tasks outside of Celery: many in pipelined batches, or one with an idempotency key in one atomic step.

One script per batch queues what is new and rings the bell; a task with an idempotency key is queued once, however
often it is submitted.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice, repeat
from typing import Any

from fleet import config
from fleet.bounds import MAX_KEY_CHARS
from fleet.engine.messages import marks, queues
from fleet.engine.messages.broker import broker, enqueue
from fleet.engine.messages.delegated import warrant_of
from fleet.engine.messages.envelope import fresh_envelope, task_body
from fleet.engine.messages.expiry import end_of
from fleet.engine.messages.fair.flows import flow_of, routed
from fleet.engine.messages.pool_choice import Dispatcher
from fleet.errors import InvalidTask
from fleet.models import BotTask
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import store_errors

#: Tasks that are queued together, and of these in one script call: 256 x 1 kB keep Redis busy for about 1 ms.
BATCH, PIECE = 512, 256
#: Name space of task ids that are made from idempotency keys.
_KEY_NAMESPACE = uuid.UUID("6f1e7a36-0b0c-4b8e-9d59-5d0f3a7e9c21")


def task_id_of(key: str) -> str:
    """Return the task id that belongs to an idempotency key: a UUID version 5 (RFC 9562), as `uuid.uuid5` makes it."""
    digits = hashlib.sha1(_KEY_NAMESPACE.bytes + key.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def submit_many(
    tasks: Iterable[BotTask | dict[str, Any] | str],
    *,
    idempotency_keys: Iterable[str] | None = None,
    batch: int = BATCH,
) -> Iterator[str]:
    """Queue many tasks, batch by batch, and yield their ids in order. Lazy: consume it to submit.

    Args:
        tasks: Prompts, dicts or `BotTask`s; read batch by batch, so it may be endless.
        idempotency_keys: One per task, instead of the tasks' own `idempotency_key`. The same key always gives the
            same task id, and queues nothing when it was queued before and its result has not expired.
        batch: Tasks that are checked, queued and confirmed together (count).

    Yields:
        Task ids, each batch after Redis has accepted it.

    Raises:
        InvalidTask: Naming the position of the first invalid task; earlier batches are queued, its own is not.
        StoreUnavailable: When the broker did not confirm a batch. It may be queued: with idempotency keys the
            same call can be repeated safely.
    """
    settings = config.current()
    client, url = broker().client, broker().url
    dispatcher = Dispatcher(client, settings, tasks=batch)
    pairs = enumerate(zip(tasks, repeat(None) if idempotency_keys is None else idempotency_keys, strict=False))
    send = partial(enqueue, client, settings=settings)
    with ThreadPoolExecutor(1, thread_name_prefix="fleet-submit") as sender:
        while chunk := list(islice(pairs, batch)):
            with store_errors(url):
                dispatcher.refresh()
                checked = [chosen(position, task, key, dispatcher) for position, (task, key) in chunk]
                task_ids = _send(checked, send, sender)
            yield from task_ids


def submit_once(task: BotTask, pool: str) -> str:
    """Queue a task that has an idempotency key, in one atomic step, and return its id.

    Raises:
        StoreUnavailable: When the broker did not confirm; the same call can be repeated safely.
    """
    task_id, parts = message_of(task, pool, task.idempotency_key, time.time())
    with store_errors(broker().url):
        enqueue(broker().client, parts, config.current())
    return task_id


#: A task that was checked, its pool, and its idempotency key.
Chosen = tuple[BotTask, str, str | None]


def chosen(position: int, task: Any, key: str | None, dispatcher: Dispatcher) -> Chosen:
    try:
        parsed = task if type(task) is BotTask else BotTask.parse(task)
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARS):
            raise InvalidTask(f"idempotency key: expected text of 1 to {MAX_KEY_CHARS} characters, got {quote(key)}")
        return parsed, dispatcher.choose(parsed), key or parsed.idempotency_key
    except InvalidTask as error:
        raise InvalidTask(f"task {position}: {error}") from error


def _send(checked: Sequence[Chosen], send: Callable[[list[Any]], object], sender: Executor) -> list[str]:
    """Queue a batch and return its ids: messages are made while Redis works on those before them."""
    queued_at = time.time()
    task_ids: list[str] = []
    under_way: Future[object] | None = None
    for start in range(0, len(checked), PIECE):
        made = [message_of(*one, queued_at) for one in checked[start : start + PIECE]]
        task_ids += (task_id for task_id, _ in made)
        parts = [part for _, parts in made for part in parts]
        if under_way:
            under_way.result()
        if len(checked) <= PIECE:
            send(parts)
        else:
            under_way = sender.submit(send, parts)
    if under_way:
        under_way.result()
    return task_ids


def message_of(task: BotTask, pool: str, key: str | None, queued_at: float) -> tuple[str, list[Any]]:
    """Return a task's id, and marker key (or ''), place and message as `enqueue.lua` takes them."""
    task_id = fresh_id() if key is None else task_id_of(key)
    signed = warrant_of(task_id, task, pool, config.current())
    return task_id, parts_of_message(task_id, task, pool, queued_at, signed=signed, is_marked=bool(key))


def parts_of_message(
    task_id: str, task: BotTask, pool: str, queued_at: float, *, signed: str | None, is_marked: bool
) -> list[Any]:
    """Return marker key (or ''), place and message of a task whose id is known.

    Args:
        task_id: A UUID.
        task: The task.
        pool: Where it goes.
        queued_at: Unix time in seconds.
        signed: Its header by a delegation; None: none.
        is_marked: It is queued once under its id.
    """
    queue, place = _place(pool, task.priority, keys.lists(""))
    life_s = config.current().pools[pool].expires_s
    flow = flow_of(task.tenant) if task.tenant else ""
    message = fresh_envelope(
        task_id=task_id, queue=queue, priority=task.priority, body=task_body(task, pool), queued_at=queued_at,
        expires_at=end_of(task.expires_at, None, life_s, queued_at) if task.expires_at or life_s else None,
        signed=signed, flow=flow,
    )  # fmt: skip
    place = routed(place, flow)
    if not is_marked:
        return ["", place, message]
    return [keys.submitted(task_id), place, marks.marked(task_id, message)]


@lru_cache(maxsize=1024)
def _place(pool: str, priority: int, prefix: str) -> tuple[str, str]:
    """Return queue and list key; by the prefix in force, which is in the key."""
    queue = keys.queue(pool)
    return queue, queues.list_key(queue, priority)


def fresh_id() -> str:
    """Return a random UUID (version 4, RFC 9562), four times as quickly as `uuid.uuid4`."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
