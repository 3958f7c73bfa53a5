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
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice, repeat
from typing import Any

import redis

from fleet import config
from fleet.config import Settings
from fleet.engine import queues
from fleet.engine.envelope import fresh_envelope, task_body
from fleet.errors import InvalidTask, quote
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.client import Script, connect, store_errors
from fleet.store.embedded import broker_url

ENQUEUE = Script.beside(__file__, "enqueue.lua")

#: Tasks per script call: 500 x 1 kB keep Redis busy for about 2 ms.
BATCH = 500
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
    """Queue many tasks, a batch per round trip, and yield their ids in order. Lazy: consume it to submit.

    Args:
        tasks: Prompts, dicts or `BotTask`s; read batch by batch, so it may be endless.
        idempotency_keys: One per task, instead of the tasks' own `idempotency_key`. The same key always gives the
            same task id, and queues nothing when it was queued before and its result has not expired.
        batch: Tasks per round trip (count).

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
    while chunk := list(islice(pairs, batch)):
        queued_at = now()
        with store_errors(url):
            dispatcher.refresh()
        prepared = [_prepared(position, task, key, dispatcher, queued_at) for position, (task, key) in chunk]
        with store_errors(url):
            _enqueue(client, [part for _, parts in prepared for part in parts], settings)
        yield from (task_id for task_id, _ in prepared)


def submit_once(task: BotTask, pool: str) -> str:
    """Queue a task that has an idempotency key, in one atomic step, and return its id.

    Raises:
        StoreUnavailable: When the broker did not confirm; the same call can be repeated safely.
    """
    task_id, parts = _message(task, pool, task.idempotency_key, now())
    with store_errors(broker().url):
        _enqueue(broker().client, parts, config.current())
    return task_id


def _prepared(
    position: int, task: Any, key: str | None, dispatcher: Dispatcher, queued_at: float
) -> tuple[str, list[Any]]:
    """Return a task's id and what the script needs to queue it."""
    try:
        parsed = task if type(task) is BotTask else BotTask.parse(task)
        pool = dispatcher.choose(parsed)
    except InvalidTask as error:
        raise InvalidTask(f"task {position}: {error}") from error
    return _message(parsed, pool, key or parsed.idempotency_key, queued_at)


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


def _enqueue(client: redis.Redis, parts: list[Any], settings: Settings) -> None:
    arguments = [settings.results.expires_s, *parts]
    try:
        client.evalsha(ENQUEUE.sha, 1, queues.BELL, *arguments)
    except redis.exceptions.NoScriptError:
        client.eval(ENQUEUE.text, 1, queues.BELL, *arguments)


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
