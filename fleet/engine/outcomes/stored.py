"""What lies under a result's key: Celery's layout, so that any client's `AsyncResult` reads it. Written and read here.

The state is SUCCESS: Fleet delivered a typed result, whose own `status` says whether the bot succeeded. With
`results.strict` a failed one is a FAILURE, and the typed result lies beside the error. A cancelled task is REVOKED.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any

from celery import states
from celery.exceptions import TaskRevokedError
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from fleet import errors
from fleet.errors import FleetError, GiveUp
from fleet.models import BotResult

#: Where the typed result lies in what is stored for a FAILURE.
TYPED = "fleet_result"
_ERRORS: dict[str, type[FleetError]] = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, FleetError)
}


def result_meta(result: BotResult, *, strict: bool = False) -> bytes:
    """Return a result as it is stored.

    Args:
        result: Of a bot task.
        strict: True: a failed one is a FAILURE to Celery.
    """
    if strict and result.status == "failed":
        error = json.dumps(_error_meta(failure_of(result)))
        return _meta(
            states.FAILURE,
            result.task_id,
            error.encode(),
            result.finished_at,
            b', "%b": ' % TYPED.encode() + _to_json(result),
        )
    return _meta(states.SUCCESS, result.task_id, _to_json(result), result.finished_at)


def revoked_meta(task_id: str, *, reason: str, at: float) -> bytes:
    """Return what is stored for a task that was cancelled: `get()` raises `celery.exceptions.TaskRevokedError`.

    Args:
        task_id: The task.
        reason: `revoked` or `terminated`, or who cancelled it and why.
        at: Unix time in seconds.
    """
    return _meta(states.REVOKED, task_id, json.dumps(_error_meta(Cancelled(reason).error())).encode(), at)


def failure_of(result: BotResult) -> FleetError:
    """Return the error of a failed result as an exception: what a canvas and a strict `get()` raise."""
    if result.error is None:
        return GiveUp(f"expected a result with an answer, got status {result.status}")
    kind = _ERRORS.get(result.error.type)
    error = kind(result.error.message) if kind else GiveUp(f"{result.error.type}: {result.error.message}")
    error.blame, error.passes, error.passes_at = result.error.blame, result.error.passes, result.error.passes_at
    return error


def typed_result(meta: Mapping[str, Any]) -> BotResult | None:
    """Return the bot's result in a decoded meta; None when it holds none: another task's, cancelled, not there yet."""
    value = meta.get(TYPED) or (meta.get("result") if meta.get("status") == states.SUCCESS else None)
    if not isinstance(value, dict) or value.get("task_id") != meta.get("task_id", value.get("task_id")):
        return None  # another task's, handed on as a value
    try:
        return BotResult.model_validate(value)
    except ValidationError:
        return None


def read_result(raw: bytes | None) -> BotResult | None:
    """Return the bot's result in what is stored, or None."""
    meta = _decoded(raw)
    return typed_result(meta) if meta else None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """How a task ended that was cancelled."""

    reason: str

    def error(self) -> Exception:
        """Return what `get()` raises."""
        revoked: Exception = TaskRevokedError(self.reason)
        return revoked


def ending_in(raw: bytes | None) -> BotResult | Cancelled | None:
    """Return how a task ended, by what is stored: its result, its cancellation, or None when it has not ended."""
    meta = _decoded(raw)
    if meta.get("status") != states.REVOKED:
        return typed_result(meta)
    error = meta.get("result")
    message = error.get("exc_message") if isinstance(error, dict) else None
    return Cancelled(str(message[0]) if isinstance(message, list) and message else "revoked")


def celery_state(raw: bytes | None) -> str | None:
    """Return Celery's state of what is stored, and the type of its error: `FAILURE ChordError`; None: nothing is."""
    meta = _decoded(raw)
    error = meta.get("result")
    kind = error.get("exc_type") if isinstance(error, dict) else None
    return " ".join(str(part) for part in (meta.get("status", "unreadable"), kind) if part) if raw else None


def _decoded(raw: bytes | None) -> dict[str, Any]:
    try:
        meta = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _meta(state: str, task_id: str, value: bytes, at: float, beside: bytes = b"") -> bytes:
    done_at = datetime.fromtimestamp(at, UTC).isoformat()
    own_id = encode_basestring_ascii(task_id)
    tail = f', "traceback": null, "children": [], "date_done": "{done_at}", "task_id": {own_id}'
    return b'{"status": "%b", "result": %b%b%b}' % (state.encode(), value, tail.encode(), beside)


def _error_meta(error: Exception) -> dict[str, Any]:
    """Return an exception as Celery's backends write it in JSON."""
    kind = type(error)
    return {"exc_type": kind.__qualname__, "exc_message": [str(error)], "exc_module": kind.__module__}


def _to_json(result: BotResult) -> bytes:
    try:
        return result.__pydantic_serializer__.to_json(result)
    except PydanticSerializationError:  # `metadata` may hold half of a surrogate pair, which JSON knows as \udXXX
        return json.dumps(result.model_dump()).encode()
