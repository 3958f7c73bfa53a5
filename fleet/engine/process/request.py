"""What Celery makes of a task's message, what it tells others of it, and the end of those that came too late.

Celery revokes a message whose `expires` has passed: no result that a Fleet producer could read, no dead letter. Here
it goes to its slot like any other and is refused there (`check_expiry`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from celery import signals
from celery.worker.request import Request as CeleryRequest

from fleet.engine.messages.broker import free_key
from fleet.engine.messages.envelope import BEFORE, HIDDEN, NO_CANVAS, follows_nothing, from_plain_json
from fleet.engine.outcomes.follow_ups import has_canvas
from fleet.engine.process.waiting_room import GoneBack
from fleet.models import BotResult
from fleet.quoting import stamp
from fleet.store.clock import CLOCK

logger = logging.getLogger("fleet.pool")

#: Events after which a task that had to wait does so no longer.
ENDS_WAIT = ("task-started", "task-revoked")


class Request(CeleryRequest):
    """`Request` of the bot task: Celery's own, which never expires and tells nobody its arguments."""

    def maybe_expire(self) -> bool:
        """Leave it to `check_expiry`."""
        return False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Settle what ended otherwise than with a result.

        One that waits is told of as one to be tried again: what listens (Flower) lets it be received once more then.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, GoneBack):
            self.send_event("task-retried", exception=_told(error), traceback="")
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell of a task that no longer waits without what it last waited for, which listeners would keep."""
        if type in ENDS_WAIT and self._request_dict.get(BEFORE):
            fields.setdefault("exception", None)
        super().send_event(type, **fields)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what `celery inspect` and Flower show of a task: all but its arguments, which hold the prompt."""
        return {**super().info(safe=True), "args": "()", "kwargs": HIDDEN}

    def _announce_revoked(self, reason: str, terminated: bool, *how: Any) -> None:
        """Count what the task had cost before it was parked, tell that it was revoked, and free its idempotency key.

        Counted first: its message is acknowledged in between, and who dies after that would lose the count.
        """
        if not terminated:  # else its outcome says all that it has cost
            self.task.count_before(self.id, self._request_dict)
        super()._announce_revoked(reason, terminated, *how)
        free_key(self.id)


def _told(error: GoneBack) -> str:
    """Return why a task waits and until when, as Flower shows it."""
    opens_at = error.wait.opens_at
    until = "" if opens_at is None else f", until {stamp(opens_at)}"
    return f"waits: {error}{until}"


class OwnRequest(CeleryRequest):
    """`Request` of a user's own task: Celery's, which expires by the clock of Redis and not by this host's."""

    def maybe_expire(self) -> bool:
        """True when its time is over."""
        at = self.expires
        return at is not None and CLOCK.now_s() > (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


#: Celery's class for tasks that name none of their own, and ours, as Celery looks them up.
STOCK_REQUEST, OWN_REQUEST = "celery.worker.request:Request", f"{__name__}:OwnRequest"


def tag_of(request: Any) -> str | None:
    """Return the delivery tag of a request's message."""
    properties = request.get("properties") if isinstance(request, dict) else None
    return (properties or {}).get("delivery_tag")


def decoded(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of Celery's tracer with a plain JSON body decoded: it takes that, and is slower at it.

    Celery's request has decoded the body before, and kept all of it but what follows the task.
    """
    try:
        name, task_id, request, body, content_type, _ = args
        if content_type == "application/json":
            if follows_nothing(body) and "args" in request and "kwargs" in request:
                return name, task_id, request, (request["args"], request["kwargs"], {}), None, None
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
