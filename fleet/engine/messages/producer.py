"""Producers: choose a task's pool, and queue many tasks in pipelined batches.

One script per batch queues what is new and rings the bell; a task with an idempotency key is queued once, however
often it is submitted.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice, repeat
from typing import Any, cast

import redis

from fleet import config
from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import fresh_envelope, task_body
from fleet.engine.transport.leases import run_script
from fleet.errors import InvalidTask, StoreUnavailable
from fleet.models import BotTask
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import Script, connect, store_errors
from fleet.store.embedded import broker_url

ENQUEUE = Script.beside(__file__, "enqueue.lua")

#: Tasks that are queued together, and of these in one script call: 256 x 1 kB keep Redis busy for about 1 ms.
BATCH, PIECE = 512, 256
#: Less than one task per bot: puts pools with equal backlogs into an order.
TIE = 1e-6
#: Name space of task ids that are made from idempotency keys.
_KEY_NAMESPACE = uuid.UUID("6f1e7a36-0b0c-4b8e-9d59-5d0f3a7e9c21")

now = time.time


def candidates(task: BotTask, settings: Settings) -> list[str]:
    """Return the pools a task may go to: the one it names, else all that take its kind.

    Raises:
        InvalidTask: When the named pool does not exist, or no pool takes the task's kind.
    """
    if task.pool is not None:
        if task.pool not in settings.pools:
            raise InvalidTask(f"pool: expected one of {', '.join(settings.pools)}, got {quote(task.pool)}")
        return [task.pool]
    taking = [name for name, pool in settings.pools.items() if not pool.kinds or task.kind in pool.kinds]
    if not taking:
        raise InvalidTask(f"kind: expected one that a pool takes, got {quote(task.kind)}; name a pool, or add the kind")
    return taking


def backlog_keys(pools: Iterable[str]) -> list[tuple[str, str]]:
    """Return (pool, list key) of every list whose length makes up the pools' backlogs."""
    return [(p, queues.list_key(keys.queue(p), step)) for p in pools for step in queues.PRIORITY_STEPS]


def least_loaded(taking: list[str], backlog: Mapping[str, int], settings: Settings) -> str:
    """Return the pool with the fewest waiting tasks per bot; equals are drawn by lot."""
    return min(taking, key=lambda name: (backlog.get(name, 0) / settings.pools[name].bots, random.random()))


class Dispatcher:
    """Chooses pools for a producer. Reads the backlogs once and counts along until `refresh` is called."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._taking: dict[tuple[str | None, str], list[str]] = {}
        self._share = {name: 1 / pool.bots for name, pool in settings.pools.items()}
        self._load: dict[str, float] = {}

    def refresh(self) -> None:
        """Read the backlogs again, if any were needed so far."""
        if self._load:
            self._read()

    def choose(self, task: BotTask) -> str:
        """Return the pool for one task; raises like `candidates`."""
        taking = self._taking.get((task.pool, task.kind))
        if taking is None:
            taking = self._taking[(task.pool, task.kind)] = candidates(task, self._settings)
        if len(taking) == 1:
            return taking[0]
        if not self._load:
            self._read()
        pool = min(taking, key=self._load.__getitem__)
        self._load[pool] += self._share[pool]
        return pool

    def _read(self) -> None:
        """Work out each pool's waiting tasks per bot; equals are put in an order by lot."""
        places = backlog_keys(self._settings.pools)
        with self._client.pipeline(transaction=False) as pipe:
            for _, key in places:
                pipe.llen(key)
            lengths = pipe.execute()
        self._load = {name: random.random() * TIE for name in self._settings.pools}
        for (pool, _), length in zip(places, lengths, strict=True):
            self._load[pool] += length * self._share[pool]


def choose_pool(task: BotTask) -> str:
    """Return the pool for one task; while Redis is away any that takes it: publishing waits for Redis, not the caller.

    Raises:
        InvalidTask: When no pool takes it.
    """
    settings = config.current()
    try:
        return Dispatcher(broker().client, settings).choose(task)
    except redis.RedisError:
        return least_loaded(candidates(task, settings), {}, settings)


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
        InvalidTask: Naming the position of the first task that is none; earlier batches are queued, its own is not.
        StoreUnavailable: When the broker did not confirm a batch. It may be queued: with idempotency keys the
            same call can be repeated safely.
    """
    settings = config.current()
    client, url = broker().client, broker().url
    dispatcher = Dispatcher(client, settings)
    pairs = enumerate(zip(tasks, repeat(None) if idempotency_keys is None else idempotency_keys, strict=False))
    send = partial(_enqueue, client, settings=settings)
    with ThreadPoolExecutor(1, thread_name_prefix="fleet-submit") as sender:
        while chunk := list(islice(pairs, batch)):
            with store_errors(url):
                dispatcher.refresh()
                chosen = [_chosen(position, task, key, dispatcher) for position, (task, key) in chunk]
                task_ids = _send(chosen, send, sender)
            yield from task_ids


def submit_once(task: BotTask, pool: str) -> str:
    """Queue a task that has an idempotency key, in one atomic step, and return its id.

    Raises:
        StoreUnavailable: When the broker did not confirm; the same call can be repeated safely.
    """
    task_id, parts = _message(task, pool, task.idempotency_key, now())
    with store_errors(broker().url):
        _enqueue(broker().client, parts, config.current())
    return task_id


#: A task that is one, its pool, and its idempotency key.
Chosen = tuple[BotTask, str, str | None]


def _chosen(position: int, task: Any, key: str | None, dispatcher: Dispatcher) -> Chosen:
    try:
        parsed = task if type(task) is BotTask else BotTask.parse(task)
        return parsed, dispatcher.choose(parsed), key or parsed.idempotency_key
    except InvalidTask as error:
        raise InvalidTask(f"task {position}: {error}") from error


def _send(chosen: Sequence[Chosen], send: Callable[[list[Any]], None], sender: Executor) -> list[str]:
    """Queue a batch and return its ids: messages are made while Redis works on those before them."""
    queued_at = now()
    task_ids: list[str] = []
    under_way: Future[None] | None = None
    for start in range(0, len(chosen), PIECE):
        made = [_message(*one, queued_at) for one in chosen[start : start + PIECE]]
        task_ids += (task_id for task_id, _ in made)
        parts = [part for _, parts in made for part in parts]
        if under_way:
            under_way.result()
        if len(chosen) <= PIECE:
            send(parts)
        else:
            under_way = sender.submit(send, parts)
    if under_way:
        under_way.result()
    return task_ids


def _message(task: BotTask, pool: str, key: str | None, queued_at: float) -> tuple[str, list[Any]]:
    """Return a task's id, and marker key (or ''), list key and message as `enqueue.lua` takes them."""
    task_id = fresh_id() if key is None else task_id_of(key)
    queue, place = _place(pool, task.priority)
    message = fresh_envelope(
        task_id=task_id, queue=queue, priority=task.priority, body=task_body(task, pool), queued_at=queued_at
    )
    return task_id, [keys.submitted(task_id) if key else "", place, message]


@lru_cache(maxsize=1024)
def _place(pool: str, priority: int) -> tuple[str, str]:
    queue = keys.queue(pool)
    return queue, queues.list_key(queue, priority)


def fresh_id() -> str:
    """Return a random UUID (version 4, RFC 9562), four times as quickly as `uuid.uuid4`."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def enqueue_options(settings: Settings) -> list[Any]:
    """Return the arguments of `enqueue.lua` before the messages."""
    return [settings.results.expires_s, queues.PRIORITY_SEPARATOR, queues.WAITING]


def _enqueue(client: redis.Redis, parts: list[Any], settings: Settings) -> None:
    arguments = [*enqueue_options(settings), *parts]
    if not settings.redis.replicas:
        run_script(client, ENQUEUE, [queues.BELL], arguments)
        return
    with cast(Any, client).client() as connection:  # WAIT asks for what its own connection has written
        run_script(connection, ENQUEUE, [queues.BELL], arguments)
        _confirm(connection, settings)


def _confirm(connection: redis.Redis, settings: Settings) -> None:
    """Wait until enough replicas have what this connection wrote: then a failover does not lose it."""
    wanted = settings.redis.replicas
    got = connection.wait(wanted, int(settings.redis.socket_timeout_s * 500))
    if got < wanted:
        raise StoreUnavailable(
            f"expected {wanted} replicas of Redis to confirm what was queued (redis.replicas), got {got}; "
            "submit again with the same idempotency keys: what is queued is not queued twice"
        )


class _Broker:
    """This process's plain client of the broker: finding Redis and building a client cost more than a submit."""

    settings: Settings | None = None
    client: redis.Redis
    url: str


def broker() -> type[_Broker]:
    """Return the broker of the settings in force, looked for once.

    Raises:
        ConfigurationError: When a configured Redis does not answer, or an embedded one cannot be started.
    """
    settings = config.current()
    if _Broker.settings is not settings:
        _Broker.url = broker_url(settings)
        _Broker.client = connect(_Broker.url, timeout_s=settings.redis.socket_timeout_s)
        _Broker.settings = settings
    return _Broker
