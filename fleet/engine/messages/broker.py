"""This process's plain client of the broker, and the one script that queues messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, cast

import redis

from fleet import config
from fleet.config import Settings
from fleet.engine.messages import marks, queues
from fleet.engine.messages.fair.flows import BEGIN
from fleet.errors import StoreUnavailable
from fleet.quoting import counted
from fleet.store import flow_keys, keys
from fleet.store.client import Script, connect, run_script, store_errors
from fleet.store.private.branches import broker_clients
from fleet.store.private.embedded import broker_url
from fleet.store.running.brokers import MAIN, AnyStore, Anywhere, Brokers, each, named

ENQUEUE = Script.beside(
    __file__,
    "enqueue.lua",
    keys="bell epochs unacked parked revoked ends",
    argv="marker_life_s separator list_prefix waiting_prefix mark_prefix result_prefix fair messages*",
    using=[marks.ORPHAN, BEGIN],
)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where messages are queued. Finding Redis and building a client cost more than a submit: see `broker`."""

    settings: Settings
    url: str
    client: Anywhere


_found: Broker | None = None


def _forget() -> None:
    """Let a forked process connect anew."""
    global _found
    _found = None


os.register_at_fork(after_in_child=_forget)


def broker() -> Broker:
    """Return the broker of the settings in force, looked for once.

    Raises:
        ConfigurationError: When a configured Redis does not answer, or an embedded one cannot be started.
    """
    global _found
    settings = config.current()
    if _found is None or _found.settings is not settings:
        url = broker_url(settings)
        main = connect(url, timeout_s=settings.redis.socket_timeout_s)
        _found = Broker(settings, url, broker_clients(settings, main))
    return _found


def enqueue_call(
    parts: list[Any], settings: Settings, *, marker_life_s: int | None = None, has_results: bool = True
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `enqueue.lua` for the marker key (or ''), place (`flows.routed`) and message of each.

    Args:
        parts: Those, message by message.
        settings: Where results are.
        marker_life_s: Life of the markers, s; None: they are marks of idempotency keys.
        has_results: This broker may have the results: it is the main one.
    """
    return ENQUEUE.call(
        bell=keys.bell(),
        epochs=keys.epochs(),
        unacked=keys.unacked(),
        parked=keys.parked(),
        revoked=keys.revoked(),
        ends=keys.ends(),
        marker_life_s="" if marker_life_s is None else marker_life_s,
        separator=queues.PRIORITY_SEPARATOR,
        list_prefix=keys.lists(""),
        waiting_prefix=keys.waiting(""),
        mark_prefix=keys.submitted(""),
        result_prefix=marks.result_prefix(settings) if has_results else "",
        fair=flow_keys.stem(),
        messages=parts,
    )


def enqueue(where: Anywhere, parts: list[Any], settings: Settings) -> int:
    """Queue what is new among messages and ring the bell, in one script; return how many were new.

    Of several brokers each gets its own. What is marked is not queued if another broker has its task: the pool may have
    been there when it was submitted first.

    Args:
        where: The broker, or all of them.
        parts: Marker key (or ''), place (`flows.routed`) and message of each.
        settings: Where results are, and how many replicas must confirm.

    Raises:
        StoreUnavailable: When too few replicas confirmed; some messages may be queued.
    """
    if not isinstance(where, Brokers):
        return _enqueue(where, parts, settings, has_results=True)
    queued = 0
    for name, some in _by_broker(where, parts).items():
        client, marked = where.of_name(name), _marks_in(some)
        for other in where.clients.values() if marked else ():
            if other is not client:
                nowhere = run_script(other, marks.NOWHERE, *marks.nowhere_among(marked))
                some, marked = _unknown(some, marked, nowhere)
        with store_errors(where.urls.get(name, "")) if name in where.urls else nullcontext():
            queued += _enqueue(client, some, settings, has_results=name == MAIN) if some else 0
    return queued


async def enqueue_each(
    where: AnyStore, parts: list[Any], settings: Settings, *, marker_life_s: int | None = None
) -> None:
    """Do as `enqueue` from asyncio, also with markers that have a life; without waiting for replicas."""
    for name, some in _by_broker(where, parts).items() if isinstance(where, Brokers) else ((MAIN, parts),):
        store, marked = named(where, name), _marks_in(some) if isinstance(where, Brokers) else []
        for other in each(where) if marked else ():
            if other is not store:
                if marker_life_s is None:
                    nowhere = await other.run(marks.NOWHERE, *marks.nowhere_among(marked))
                else:
                    there = await asyncio.gather(*(other.command("EXISTS", mark) for mark in marked))
                    nowhere = [at for at, is_there in enumerate(there) if not is_there]
                some, marked = _unknown(some, marked, nowhere)
        if some:
            call = enqueue_call(some, settings, marker_life_s=marker_life_s, has_results=name == MAIN)
            await store.run(ENQUEUE, *call)


def _by_broker(where: Brokers[Any], parts: list[Any]) -> dict[str, list[Any]]:
    """Return messages with their markers and places, by the name of the broker that they go to."""
    found: dict[str, list[Any]] = {}
    for at in range(0, len(parts), 3):
        queue, _ = queues.queue_of(parts[at + 1].partition("\n")[0])
        found.setdefault(where.homes.get(queue, MAIN), []).extend(parts[at : at + 3])
    return found


def _marks_in(parts: list[Any]) -> list[str]:
    return [mark for mark in parts[::3] if mark]


def _unknown(parts: list[Any], marked: list[str], nowhere: Iterable[int]) -> tuple[list[Any], list[str]]:
    """Return what is not known to another broker of some messages and their marks, by the numbers of those marks."""
    left = {marked[number] for number in nowhere}
    rows = [parts[at : at + 3] for at in range(0, len(parts), 3) if not parts[at] or parts[at] in left]
    return [part for row in rows for part in row], [mark for mark in marked if mark in left]


def _enqueue(client: redis.Redis, parts: list[Any], settings: Settings, *, has_results: bool) -> int:
    call = enqueue_call(parts, settings, has_results=has_results)
    if not settings.redis.replicas:
        return int(run_script(client, ENQUEUE, *call))
    with cast(Any, client).client() as connection:  # WAIT asks for what its own connection has written
        queued = int(run_script(connection, ENQUEUE, *call))
        _confirm(connection, settings)
        return queued


def free_key(task_id: str) -> None:
    """Let the idempotency key that a task was submitted with be submitted anew: its task was revoked, or forgotten.

    While Redis is away nothing happens: once the result is gone, `sweep_marks.lua` does the same.
    """
    if mark := marks.mark_of(task_id):
        with suppress(redis.RedisError):
            for client in each(broker().client):
                client.delete(mark)


def _confirm(connection: redis.Redis, settings: Settings) -> None:
    """Wait until enough replicas have what this connection wrote: then a failover does not lose it."""
    check_confirmed(connection.wait(settings.redis.replicas, confirm_ms(settings)), settings)


def confirm_ms(settings: Settings) -> int:
    """Return how long replicas may take to confirm, in milliseconds."""
    return int(settings.redis.socket_timeout_s * 500)


def check_confirmed(got: int, settings: Settings) -> None:
    """Raise `StoreUnavailable` when fewer replicas have confirmed than `redis.replicas` wants."""
    wanted = settings.redis.replicas
    if got < wanted:
        raise StoreUnavailable(
            f"expected {counted(wanted, 'replica')} of Redis to confirm what was queued (redis.replicas), got {got}; "
            "submit again with the same idempotency keys: what is queued is not queued twice"
        )
