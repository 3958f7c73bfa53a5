"""Events: what happened to the fleet as a whole, in a bounded stream of Redis. Declared in `catalogue.py`,
read by `picture.py`.

Written where they happen; a process that cannot reach Redis drops its event, for events must not stop anything.
"""

from __future__ import annotations

import socket
from typing import Any

import redis

from fleet.signals.catalogue import Event
from fleet.store import keys
from fleet.store.client import Script, Store, run_script

#: Events that are kept, about.
MOST_EVENTS = 1000
#: Characters of one field that are kept.
FIELD_CHARS = 200

_RECORD_EVENT = Script.beside(
    __file__, "record_event.lua", keys="events quiet", argv="most life_s quiet_ms event fields*"
)


def record_event(store: Store, event: Event, *, quiet_s: float = 0.0, about: str = "", **fields: object) -> None:
    """Record an event some time soon. Never waits, never raises.

    Args:
        store: State Redis.
        event: One of the catalogue.
        quiet_s: Seconds for which the same event about the same thing is not recorded again by anybody.
        about: That thing: the name of a limit.
        fields: What the event says; never a prompt or a key.
    """
    store.send(_RECORD_EVENT, *_arguments(event, quiet_s, about, fields))


def record_event_now(client: redis.Redis, event: Event, **fields: object) -> None:
    """Record an event through a plain client, for commands and pages.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    run_script(client, _RECORD_EVENT, *_arguments(event, 0.0, "", fields))


def record_deed(client: redis.Redis, event: Event, by: str, /, **fields: object) -> None:
    """Record what somebody did to the fleet, for commands and pages.

    Args:
        client: Plain client of the state Redis.
        event: One of the catalogue.
        by: Who did it.
        fields: What the event says beside that and the host on which it was done; never a prompt or a key.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    record_event_now(client, event, **fields, by=by, host=socket.gethostname())


def _cut(text: str) -> str:
    return text if len(text) <= FIELD_CHARS else f"{text[: FIELD_CHARS - 1]}…"


def _arguments(event: Event, quiet_s: float, about: str, fields: dict[str, object]) -> tuple[list[str], list[Any]]:
    texts = [text for name, value in fields.items() for text in (name, _cut(str(value)))]
    return _RECORD_EVENT.call(
        events=keys.events(), quiet=keys.event_quiet(f"{event.name}:{about}"), most=MOST_EVENTS,
        life_s=keys.STATE_TTL_S, quiet_ms=round(quiet_s * 1000), event=event.name, fields=texts,
    )  # fmt: skip
