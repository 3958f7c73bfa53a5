"""This process's plain client of the broker, and the one script that queues messages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import redis

from fleet import config
from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.errors import StoreUnavailable
from fleet.quoting import counted
from fleet.store import keys
from fleet.store.client import Script, connect, run_script
from fleet.store.embedded import broker_url

_ENQUEUE_ARGV = "marker_life_s separator list_prefix waiting_prefix messages*"
ENQUEUE = Script.beside(__file__, "enqueue.lua", keys="bell", argv=_ENQUEUE_ARGV)


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


def enqueue_call(parts: list[Any], settings: Settings) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `enqueue.lua` for the marker key (or ''), list key and message of each message."""
    return ENQUEUE.call(
        bell=keys.bell(),
        marker_life_s=settings.results.expires_s,
        separator=queues.PRIORITY_SEPARATOR,
        list_prefix=keys.lists(""),
        waiting_prefix=keys.waiting(""),
        messages=parts,
    )


def enqueue(client: redis.Redis, parts: list[Any], settings: Settings) -> None:
    """Queue what is new among messages and ring the bell, in one script.

    Args:
        client: Of the broker.
        parts: Marker key (or ''), list key and message of each.
        settings: How long a marker lives, and how many replicas must confirm.

    Raises:
        StoreUnavailable: When too few replicas confirmed; some messages may be queued.
    """
    call = enqueue_call(parts, settings)
    if not settings.redis.replicas:
        run_script(client, ENQUEUE, *call)
        return
    with cast(Any, client).client() as connection:  # WAIT asks for what its own connection has written
        run_script(connection, ENQUEUE, *call)
        _confirm(connection, settings)


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
