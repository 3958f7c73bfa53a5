"""What Celery makes of a task's message, what it tells others of it, and the end of those that came too late.

Celery revokes a message whose `expires` has passed: no result that a Fleet producer could read, no dead letter. Here
it goes to its slot like any other and is refused there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery import signals
from celery.utils.time import maybe_iso8601
from celery.worker.request import Request as CeleryRequest

from fleet.engine.messages.envelope import HIDDEN, from_plain_json
from fleet.errors import DeadlineExceeded


class Request(CeleryRequest):
    """`Request` of the bot task: Celery's own, which never expires and tells nobody its arguments."""

    def maybe_expire(self) -> bool:
        """Leave it to `check_expiry`."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what `celery inspect` and Flower show of a task: all but its arguments, which hold the prompt."""
        return {**super().info(safe=True), "args": "()", "kwargs": HIDDEN}


def check_expiry(headers: Mapping[str, Any]) -> None:
    """Refuse a message whose `expires` has passed. A value that isn't a time has been refused before.

    Raises:
        DeadlineExceeded: When it has; nothing has been paid for the task.
    """
    expires = headers.get("expires")
    if not isinstance(expires, str):
        return
    at = maybe_iso8601(expires)
    late_s = (datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))).total_seconds()
    if late_s > 0:
        raise DeadlineExceeded(
            f"expires: expected a worker before {at.isoformat(timespec='seconds')}, got one {late_s:.1f} s later; "
            "give the task more time, or its pool more workers"
        )


def tag_of(request: Any) -> str | None:
    """Return the delivery tag of a request's message."""
    properties = request.get("properties") if isinstance(request, dict) else None
    return (properties or {}).get("delivery_tag")


def decoded(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of Celery's tracer with a plain JSON body decoded: it takes that, and is slower at it."""
    try:
        name, task_id, request, body, content_type, _ = args
        if content_type == "application/json":
            return name, task_id, request, from_plain_json(body), None, None
    except (ValueError, TypeError):
        pass
    return args


def celery_listens(request: dict[str, Any]) -> bool:
    """True when Celery has something to do after this task: callbacks, a chain, a chord, or signal receivers."""
    return bool(
        request.get("callbacks")
        or request.get("chain")
        or request.get("chord")
        or signals.task_prerun.receivers
        or signals.task_postrun.receivers
        or signals.task_success.receivers
    )
