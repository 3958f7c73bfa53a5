"""This process's plain client of the broker, and the one script that queues messages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
from fleet.store.client import Script, Store, connect, run_script
from fleet.store.private.branches import broker_clients
from fleet.store.private.embedded import broker_url
from fleet.store.running.brokers import MAIN, AnyStore, Anywhere, Brokers, each, main_of

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


def enqueue(where: Anywhere, parts: list[Any], settings: Settings, *, marker_life_s: int | None = None) -> int:
    """Queue what is new among messages and ring the bell, in one script; return how many were new.

    Of several brokers each gets its own; those that get some are asked whether they answer before any has one.

    Args:
        where: The broker, or all of them.
        parts: Marker key (or ''), place (`flows.routed`) and message of each.
        settings: Where results are, and how many replicas must confirm.
        marker_life_s: As of `enqueue_call`; such need no replicas.

    Raises:
        StoreUnavailable: When too few replicas confirmed; some messages may be queued. When one of several brokers
            stopped in between: it says where some are queued.
    """
    if not isinstance(where, Brokers):
        call = enqueue_call(parts, settings, marker_life_s=marker_life_s)
        return int(_written(where, ENQUEUE, call, settings, is_kept=marker_life_s is None))
    homes: Mapping[str, str] = {}
    if pairs := _pairs(where, parts):
        call = marks.home_call(pairs, _others(where), settings, marker_life_s)
        homes = _homes_in(pairs, _written(where.main, marks.HOME, call, settings, is_kept=marker_life_s is None))
    groups = _by_broker(where, parts, homes)
    for name in groups if len(groups) > 1 else ():
        where.of_name(name).ping()
    queued, done = 0, list[str]()
    for name, some in groups.items():
        call = enqueue_call(some, settings, marker_life_s=marker_life_s, has_results=name == MAIN)
        try:
            queued += int(_written(where.of_name(name), ENQUEUE, call, settings, is_kept=marker_life_s is None))
        except (redis.RedisError, StoreUnavailable) as error:
            if not done:
                raise
            raise StoreUnavailable(
                f"expected each broker to take its pools' tasks, got them queued at {', '.join(done)}, and perhaps not "
                f"at {name}: {error}; submit those of the other pools again, or all if they have idempotency keys"
            ) from error
        done.append(name)
    return queued


async def by_broker(
    where: AnyStore, parts: list[Any], settings: Settings, *, marker_life_s: int | None = None
) -> dict[str, list[Any]]:
    """Return messages by the name of the broker that each is to be queued at. Safe to repeat."""
    if not isinstance(where, Brokers):
        return {MAIN: parts}
    homes: Mapping[str, str] = {}
    if pairs := _pairs(where, parts):
        call = marks.home_call(pairs, _others(where), settings, marker_life_s)
        homes = _homes_in(pairs, await where.main.run(marks.HOME, *call))
    return _by_broker(where, parts, homes)


def store_of(where: AnyStore, name: str) -> Store:
    """Return the store of a broker by its name; raises as `Brokers.of_name`."""
    return where.of_name(name) if isinstance(where, Brokers) else where


async def enqueue_at(
    where: AnyStore, name: str, parts: list[Any], settings: Settings, *, marker_life_s: int | None = None
) -> None:
    """Queue at one broker what is new among messages of its own (`by_broker`), without waiting for replicas."""
    call = enqueue_call(parts, settings, marker_life_s=marker_life_s, has_results=name == MAIN)
    await store_of(where, name).run(ENQUEUE, *call)


async def enqueue_each(
    where: AnyStore, parts: list[Any], settings: Settings, *, marker_life_s: int | None = None
) -> None:
    """Do as `enqueue` from asyncio with messages that all have markers, so that it is safe to repeat."""
    for name, some in (await by_broker(where, parts, settings, marker_life_s=marker_life_s)).items():
        await enqueue_at(where, name, some, settings, marker_life_s=marker_life_s)


def home_of(where: Brokers[redis.Redis], marker: str, wanted: str, settings: Settings, *, life_s: int | None) -> str:
    """Return the name of the broker that has what a marker stands for; else the one that it is to go to, noting that.

    Args:
        where: The brokers.
        marker: The key.
        wanted: Name of the broker that it is to go to.
        settings: Where results are.
        life_s: Life of the marker, s; None: it is the mark of an idempotency key.
    """
    pairs = [marker, "" if wanted == MAIN else wanted]
    names = run_script(where.main, marks.HOME, *marks.home_call(pairs, _others(where), settings, life_s))
    return _homes_in(pairs, names)[marker]


async def lapse(where: AnyStore, notes: Sequence[bytes]) -> None:
    """Give an end to notes of brokers whose tasks are nowhere any more.

    Args:
        where: The brokers.
        notes: Mark and value of each, as `sweep_marks.lua` returns them.
    """
    values, over, by_name = dict(zip(notes[::2], notes[1::2], strict=True)), list[bytes](), dict[str, list[bytes]]()
    for mark, value in values.items():
        by_name.setdefault(value.removeprefix(marks.NOTE).decode(), []).append(mark)
    for name, noted in by_name.items():
        if not isinstance(where, Brokers) or name not in _others(where):
            over += noted  # that broker is gone
        elif name in where.clients:
            with suppress(StoreUnavailable):  # the walk comes again
                call = marks.nowhere_among([mark.decode() for mark in noted])
                over += [noted[at] for at in await where.of_name(name).run(marks.NOWHERE, *call)]
    if over:
        pairs = [part for mark in over for part in (mark, values[mark])]
        await main_of(where).run(marks.LAPSE, *marks.LAPSE.call(life_s=marks.NOTE_LIFE_S, pairs=pairs))


def _others(where: Brokers[Any]) -> set[str]:
    return {*where.clients, *where.away} - {MAIN}


def _rows(parts: list[Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield marker, queue and part of each message."""
    for at in range(0, len(parts), 3):
        queue, _ = queues.queue_of(parts[at + 1].partition("\n")[0])
        yield parts[at], queue, parts[at : at + 3]


def _pairs(where: Brokers[Any], parts: list[Any]) -> list[str]:
    """Return each marker, and the name of the broker of its message's queue ('': the main one)."""
    return [part for marker, queue, _ in _rows(parts) if marker for part in (marker, where.homes.get(queue, ""))]


def _homes_in(pairs: Sequence[str], names: Sequence[bytes]) -> dict[str, str]:
    """Return marker -> name of its broker, from the reply of `home.lua`."""
    return {marker: name.decode() or MAIN for marker, name in zip(pairs[::2], names, strict=True)}


def _by_broker(where: Brokers[Any], parts: list[Any], homes: Mapping[str, str]) -> dict[str, list[Any]]:
    """Return messages with their markers and places, by the name of the broker that they go to."""
    found: dict[str, list[Any]] = {}
    for marker, queue, row in _rows(parts):
        found.setdefault(homes.get(marker) or where.homes.get(queue, MAIN), []).extend(row)
    return found


def _written(
    client: redis.Redis, script: Script, call: tuple[list[Any], list[Any]], settings: Settings, *, is_kept: bool = True
) -> Any:
    """Run a script that writes; if it is to be kept, wait until enough replicas have it: no failover loses it then."""
    if not (settings.redis.replicas and is_kept):
        return run_script(client, script, *call)
    with cast(Any, client).client() as connection:  # WAIT asks for what its own connection has written
        reply = run_script(connection, script, *call)
        check_confirmed(connection.wait(settings.redis.replicas, confirm_ms(settings)), settings)
        return reply


def free_key(task_id: str) -> None:
    """Let the idempotency key that a task was submitted with be submitted anew: its task was revoked, or forgotten.

    While Redis is away nothing happens: once the result is gone, `sweep_marks.lua` does the same.
    """
    if mark := marks.mark_of(task_id):
        for client in each(broker().client):
            with suppress(redis.RedisError):
                client.delete(mark)


async def confirm(store: Store, settings: Settings) -> None:
    """Wait until enough replicas have what this store wrote; raises as `check_confirmed`."""
    check_confirmed(await store.command("WAIT", settings.redis.replicas, confirm_ms(settings)), settings)


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
