"""What Celery makes of a task's message, and the end of those that came too late.

Celery revokes a message whose `expires` has passed: no result that a Fleet producer could read, no dead letter. Here
it goes to its slot like any other and is refused there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery import signals
from celery.utils.time import maybe_iso8601
from celery.worker.request import Request as CeleryRequest

from fleet.engine.messages.envelope import NO_CANVAS, from_plain_json
from fleet.engine.outcomes.follow_ups import has_canvas
from fleet.errors import DeadlineExceeded
from fleet.models import BotResult

logger = logging.getLogger("fleet.pool")


class Request(CeleryRequest):
    """`Request` of the bot task: Celery's own, which never expires."""

    def maybe_expire(self) -> bool:
        """Leave it to `check_expiry`."""
        return False


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


def send_signals(task: Any, task_id: str, request: Mapping[str, Any], result: BotResult) -> None:
    """Let Celery send its signals of a task's life, if anybody listens. What follows the task was sent before."""
    if not (
        signals.task_prerun.receivers
        or signals.task_postrun.receivers
        or signals.task_success.receivers
        or signals.task_failure.receivers
    ):
        return
    ready = {"fleet_result": result, "fleet_in_canvas": has_canvas(request)}
    try:
        task.__trace__(task_id, (), {}, {**request, **NO_CANVAS, "ignore_result": True, **ready})
    except Exception as error:  # noqa: BLE001 - the task boundary: a receiver must not stop the worker
        logger.error("signal failed task=%s error=%s: its result is stored", task_id, type(error).__name__)
