"""This process's plain client of the broker, and the one script that queues messages."""

from __future__ import annotations

import os
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
from fleet.store.client import Script, connect, run_script
from fleet.store.private.embedded import broker_url

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
    client: redis.Redis


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
        _found = Broker(settings, url, connect(url, timeout_s=settings.redis.socket_timeout_s))
    return _found


def enqueue_call(
    parts: list[Any], settings: Settings, *, marker_life_s: int | None = None
) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `enqueue.lua` for the marker key (or ''), place (`flows.routed`) and message of each.

    Args:
        parts: Those, message by message.
        settings: Where results are.
        marker_life_s: Life of the markers, s; None: they are marks of idempotency keys.
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
        result_prefix=marks.result_prefix(settings),
        fair=flow_keys.stem(),
        messages=parts,
    )


def enqueue(client: redis.Redis, parts: list[Any], settings: Settings) -> int:
    """Queue what is new among messages and ring the bell, in one script; return how many were new.

    Args:
        client: Of the broker.
        parts: Marker key (or ''), place (`flows.routed`) and message of each.
        settings: Where results are, and how many replicas must confirm.

    Raises:
        StoreUnavailable: When too few replicas confirmed; some messages may be queued.
    """
    call = enqueue_call(parts, settings)
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
            broker().client.delete(mark)


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
