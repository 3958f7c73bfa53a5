"""Until when anybody wants a task's answer: one absolute end, whichever way it was said.

A task says `expires_at`, a producer Celery's `expires`; of the two the sooner one counts. A pool's `expires_s` is for
tasks that say neither. The end travels in the header `fleet_expires`, where scripts find it without reading JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleet.engine.messages.envelope import EXPIRES
from fleet.engine.messages.eta import LATEST_ETA_S, SHORT_CHARS
from fleet.errors import Expired
from fleet.quoting import duration, stamp
from fleet.store.client import Script

#: Reads `expires` of plain clients' messages inside other scripts.
ISO_TIME = Script.beside(__file__, "iso_time.lua", argv="text")

#: The task's own field.
_FIELD = "expires_at"


def end_of(said_at: float | None, option: object, life_s: float | None, now_s: float) -> float | None:
    """Return the end of a task that is submitted now, as Unix time in seconds; None: it has none.

    Args:
        said_at: The task's own `expires_at`.
        option: Celery's `expires`: seconds from now, a datetime, or one as text.
        life_s: The pool's `expires_s`.
        now_s: Unix time in seconds.
    """
    given = [at for at in (said_at, _time_of(option, now_s)) if at is not None]
    if given:
        return round(min(given), 3)
    return None if life_s is None else round(now_s + life_s, 3)


def end_in(headers: Mapping[str, Any], said_at: float | None = None) -> float | None:
    """Return the end of a task by its message: of all that is said there, the soonest; None: it has none.

    Args:
        headers: Of the message; whatever a foreign client wrote there is harmless.
        said_at: The task's own `expires_at`.
    """
    found = (_seconds(headers.get(EXPIRES)), _time_of(headers.get("expires"), None), said_at)
    return min((at for at in found if at is not None), default=None)


def check_expiry(headers: Mapping[str, Any], said_at: float | None, now_s: float) -> None:
    """Refuse a task whose end has passed. What isn't a time has been refused before.

    Args:
        headers: Of its message.
        said_at: The task's own `expires_at`.
        now_s: Unix time in seconds, by the clock of Redis.

    Raises:
        Expired: When it has; no further call is made for it.
    """
    if said_at is None and headers.get(EXPIRES) is None and headers.get("expires") is None:
        return  # as most tasks
    at = end_in(headers, said_at)
    if at is not None and now_s > at:
        raise expired(at, now_s)


def expired(at: float, now_s: float) -> Expired:
    """Return the error of a task whose end was `at`; both in seconds of Unix time."""
    wanted = stamp(at) if 0 <= at < LATEST_ETA_S else f"{at:.6g}"
    return Expired(
        f"expires: expected a worker before {wanted}, got none until {duration(now_s - at)} later; give the task more "
        "time (expires_at, expires, the pool's expires_s), or its pool more workers; `fleet why` tells what holds it up"
    )


def said_end(body: bytes) -> float | None:
    """Return the task's own `expires_at` in a message body; None: it says none."""
    if _FIELD.encode() not in body:
        return None
    return min((at for part in _arguments(body)[1] if (at := _seconds(part.get(_FIELD))) is not None), default=None)


def with_end(body: bytes, end: float | None) -> bytes:
    """Return a message body whose task says another end, if it says one at all."""
    if said_end(body) is None:
        return body
    whole, parts = _arguments(body)
    for part in parts:
        if _FIELD in part:
            part[_FIELD] = end
    return json.dumps(whole).encode()


def _arguments(body: bytes) -> tuple[Any, list[dict[str, Any]]]:
    """Return a body, decoded, and those parts of it that may hold fields of a task."""
    try:
        whole = json.loads(body)
        args, kwargs = whole[0], whole[1]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None, []
    given = [*args[:1], kwargs] if isinstance(args, list) else [kwargs]
    return whole, [part for part in given if isinstance(part, dict)]


def _time_of(value: object, now_s: float | None) -> float | None:
    """Return Celery's `expires` as Unix time in seconds; without a zone it is UTC. None: it is no time."""
    if isinstance(value, int | float):
        seconds = _seconds(value)
        return None if seconds is None or now_s is None else now_s + seconds
    if isinstance(value, str) and len(value) <= SHORT_CHARS:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    except (OverflowError, ValueError):
        return None


def _seconds(value: object) -> float | None:
    """Return a number as one that can be reckoned with, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if abs(seconds) < float("inf") else None
