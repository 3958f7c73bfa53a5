"""Submitting from asyncio, and waiting for results, without a thread and without blocking the loop.

Each loop has a `Desk` of its own, made with its first call and closed with the loop: two or three connections, whatever
the number of tasks. A forked process makes its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from itertools import islice, repeat, starmap
from typing import Any

from celery.states import READY_STATES

from fleet.config import Settings
from fleet.engine.messages.broker import broker, by_broker, confirm, enqueue_at, store_of
from fleet.engine.messages.pool_choice import Dispatcher, ask_patiently
from fleet.engine.messages.producer import chosen, message_of
from fleet.errors import StoreUnavailable
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.patience import patiently
from fleet.store.private.branches import broker_stores
from fleet.store.private.embedded import state_url
from fleet.store.running.brokers import Brokers, ask_each, each
from fleet.store.running.listening import Ear

#: Tasks that are checked and queued before the loop gets its turn again (count): about 2 ms of Python.
SLICE = 64
#: Seconds after which who waits for a result looks by itself: what is published can be lost, unseen.
LOOK_AGAIN_S = 10.0
#: The same while nothing is heard, because Redis is only just back.
DEAF_S = 0.2


class Desk:
    """One loop's connections to the broker and to the results. Made by `desk_here`.

    Args:
        settings: Pools, and how long markers live.
        urls: Of the broker, and of the Redis that keeps results.
    """

    def __init__(self, settings: Settings, urls: tuple[str, str]) -> None:
        self.settings = settings
        timeout_s = settings.redis.socket_timeout_s
        main = Store(urls[0], timeout_s=timeout_s)
        self._broker = broker_stores(settings, main)
        self._state = main if urls[0] == urls[1] else Store(urls[1], timeout_s=timeout_s)
        self._ear = Ear(urls[1], on_message=self._hear, on_deaf=self._look_again, timeout_s=timeout_s)
        #: Those who wait, by the channel of what they wait for.
        self._waiting: dict[str, set[asyncio.Future[bytes | None]]] = {}
        self._life = self._until_the_loop_ends()

    @property
    def state(self) -> Store:
        """The Redis that keeps results."""
        return self._state

    async def open(self) -> None:
        """Live until the loop ends: `asyncio.run` and its kind then close what is left of async generators."""
        await anext(self._life)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _desks.pop(asyncio.get_running_loop(), None)
            for store in {*each(self._broker), self._state, self._ear}:
                await store.close()

    async def choose(self, task: BotTask) -> str:
        """Return the pool for a task, as `Dispatcher.choose`; backlogs are read if it names none."""
        return (await self._dispatcher([task])).choose(task)

    async def submit(self, task: BotTask) -> str:
        """Queue one task and return its id."""
        task_id, parts = message_of(task, await self.choose(task), task.idempotency_key, time.time())
        await self.queue(parts)
        return task_id

    async def submit_many(self, tasks: Sequence[tuple[int, Any, str | None]]) -> list[str]:
        """Check and queue tasks, given with their positions and idempotency keys, and return their ids."""
        dispatcher = await self._dispatcher([task for _, task, _ in tasks])
        checked = [chosen(position, task, key, dispatcher) for position, task, key in tasks]
        queued_at = time.time()
        made = [message_of(*one, queued_at) for one in checked]
        await self.queue([part for _, parts in made for part in parts])
        return [task_id for task_id, _ in made]

    async def queue(self, parts: list[Any]) -> None:
        """Queue messages, as `broker.enqueue`; while Redis is away it waits, at each of several brokers by itself.

        Raises:
            StoreUnavailable: When too few replicas confirmed.
        """
        groups = await patiently(partial(by_broker, self._broker, parts, self.settings))
        if self.settings.redis.replicas and isinstance(self._broker, Brokers) and any(parts[::3]):
            await confirm(self._broker.main, self.settings)  # it has noted which broker has a key
        if len(groups) == 1:
            await self._queue_at(*groups.popitem())
            return
        for failure in await asyncio.gather(*starmap(self._queue_at, groups.items()), return_exceptions=True):
            if failure is not None:
                raise failure

    async def _queue_at(self, name: str, parts: list[Any]) -> None:
        await patiently(partial(enqueue_at, self._broker, name, parts, self.settings))
        if self.settings.redis.replicas:
            await confirm(store_of(self._broker, name), self.settings)

    async def is_parked(self, task_id: str) -> bool:
        """True while a task waits in Redis behind a gate of its own."""
        return any(await ask_each(self._broker, lambda store: store.command("HEXISTS", keys.parked(), task_id)))

    async def result(self, task_id: str) -> dict[str, Any]:
        """Return what Celery stored of a finished task; wait for it, also while Redis is away."""
        channel = keys.result(task_id)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(channel, set())
        try:
            while True:
                waiting.add(answer)
                listens = await self._listen(channel)
                meta = _finished(await patiently(partial(self._state.command, "GET", channel)))
                if meta is None:
                    done, _ = await asyncio.wait([answer], timeout=LOOK_AGAIN_S if listens else DEAF_S)
                    meta = _finished(answer.result()) if done else None
                if meta is not None:
                    return meta
                waiting.discard(answer)
                answer = asyncio.get_running_loop().create_future()
        finally:
            waiting.discard(answer)
            if not waiting and self._waiting.get(channel) is waiting:
                del self._waiting[channel]
                self._ear.leave(channel)

    async def _listen(self, channel: str) -> bool:
        try:
            await self._ear.command("SUBSCRIBE", channel)
        except StoreUnavailable:  # the look that follows waits for Redis
            return False
        return True

    def _hear(self, channel: bytes, payload: bytes) -> None:
        for answer in self._waiting.get(channel.decode(), ()):
            if not answer.done():
                answer.set_result(payload)

    def _look_again(self) -> None:
        for waiting in self._waiting.values():
            for answer in waiting:
                if not answer.done():
                    answer.set_result(None)

    async def _dispatcher(self, tasks: Sequence[Any]) -> Dispatcher:
        """Return what chooses their pools; it knows the backlogs if any task may need them."""
        dispatcher = Dispatcher(None, self.settings, tasks=len(tasks))
        await ask_patiently(self._broker, dispatcher.questions(tasks))
        return dispatcher


def _finished(raw: bytes | None) -> dict[str, Any] | None:
    """Return a stored result if its task has ended."""
    meta = json.loads(raw) if raw else None
    return meta if isinstance(meta, dict) and meta.get("status") in READY_STATES else None


#: Desks of this process, by loop.
_desks: dict[asyncio.AbstractEventLoop, asyncio.Future[Desk]] = {}
#: Desks of a parent: kept, not closed, because both processes share their selectors.
_inherited: list[object] = []


def _forget() -> None:
    _inherited.append(dict(_desks))
    _desks.clear()


os.register_at_fork(after_in_child=_forget)


async def desk_here() -> Desk:
    """Return the desk of the running loop.

    Raises:
        ConfigurationError: When a configured Redis does not answer, or an embedded one cannot be started.
    """
    loop = asyncio.get_running_loop()
    opening = _desks.get(loop)
    if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
        for other in [other for other in _desks if other.is_closed()]:
            del _desks[other]
        opening = _desks[loop] = loop.create_task(_open())
    return await asyncio.shield(opening)


async def _open() -> Desk:
    desk = Desk(*await asyncio.to_thread(_find_redis))  # the one thing that blocks, once a loop: it may start a Redis
    await desk.open()
    return desk


def _find_redis() -> tuple[Settings, tuple[str, str]]:
    found = broker()
    return found.settings, (found.url, state_url(found.settings))


async def asubmit_many(
    tasks: Iterable[BotTask | dict[str, Any] | str], *, idempotency_keys: Iterable[str] | None = None
) -> list[str]:
    """Queue many tasks from asyncio and return their ids in order. The loop gets its turn every few milliseconds.

    While Redis is away it waits; bound that with `asyncio.timeout`. What was queued before the end of a wait stays.

    Args:
        tasks: Prompts, dicts or `BotTask`s; read bit by bit.
        idempotency_keys: As `submit_many`.

    Raises:
        InvalidTask: Naming the position of the first invalid task; some of those before it are queued.
        StoreUnavailable: When too few replicas confirmed (`redis.replicas`).
    """
    desk = await desk_here()
    offered = enumerate(zip(tasks, repeat(None) if idempotency_keys is None else idempotency_keys, strict=False))
    task_ids: list[str] = []
    while some := [(position, task, key) for position, (task, key) in islice(offered, SLICE)]:
        task_ids += await desk.submit_many(some)
    return task_ids
