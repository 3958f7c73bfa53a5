"""What follows a bot task in its canvas: callbacks and the rest of its chain, its part of a chord, its errbacks.

A failed result counts as a failure there, whatever state is stored for it. The order is: store the result, send what
follows, mark it as sent, acknowledge the message. Whoever takes the message of a worker that died in between starts
again at the second step, from the stored result. What is sent twice then: a user's own tasks. Bot tasks are not, as
their ids are the same (`transport/following.py`); nor are bodies of chords, whose members count once.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery, Task, states
from celery._state import _task_stack
from celery.app.task import Context
from celery.canvas import maybe_signature
from kombu.exceptions import OperationalError

from fleet import config
from fleet.engine.messages.broker import broker
from fleet.engine.messages.envelope import NO_CANVAS, TASK_NAME, canvas_of
from fleet.engine.outcomes.backend import STORED, ChordClaimed
from fleet.engine.outcomes.stored import Cancelled, failure_of
from fleet.engine.transport.following import following
from fleet.errors import RetryLater, StoreUnavailable
from fleet.models import BotResult
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import store_errors
from fleet.store.running.brokers import main_of

logger = logging.getLogger("fleet.worker")

#: Name space of the ids of callbacks that came without one.
_NAMESPACE = uuid.UUID("0c7c2b53-6d1c-4f0a-9d0e-8f4f4f6f6b1e")
#: Parts of a canvas that hear of a good result, and of a failed one.
_AFTER_SUCCESS, _AFTER_FAILURE = ("callbacks", "chain", "chord"), ("errbacks", "chain", "chord")

#: How a task ended: its result, or its cancellation.
Ending = BotResult | Cancelled


def has_canvas(request: Mapping[str, Any]) -> bool:
    """True when anything follows a task, whichever way it ends."""
    return any(map(request.get, NO_CANVAS))


def is_failure(ending: Ending) -> bool:
    """True when a task's ending counts as a failure in its canvas."""
    return not isinstance(ending, BotResult) or ending.status == "failed"


def hears(request: Mapping[str, Any], ending: Ending) -> bool:
    """True when something of a task's canvas hears of this ending."""
    return any(request.get(name) for name in (_AFTER_FAILURE if is_failure(ending) else _AFTER_SUCCESS))


def request_of(headers: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Return what a message says of its task's place in a canvas, as Celery's request has it."""
    return {**headers, **canvas_in(body)}


def canvas_in(body: bytes) -> dict[str, Any]:
    """Return what follows a task, by its message body; empty for a foreign body that is none."""
    try:
        return canvas_of(body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # foreign: it is no body
        return {}


class FollowUps:
    """Sends what follows tasks. Blocks: for a thread.

    Args:
        celery: The app, for its signatures and its backend.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def send_once(self, task_id: str, request: Mapping[str, Any], ending: Ending, *, is_repeat: bool) -> None:
        """Send what follows a task, and mark it as sent.

        Args:
            task_id: The task.
            request: Its headers, and what follows it.
            ending: How it ended, as it is stored.
            is_repeat: True when that was stored before: it may be marked already.

        Raises:
            StoreUnavailable: When Redis does not take it now: to be repeated.
            ChordClaimed: When another worker has claimed the chord: to be repeated.
        """
        where = broker()
        mark = keys.followed(task_id)
        with store_errors(where.url):
            marks = main_of(where.client)
            if is_repeat and marks.exists(mark):
                return
            try:
                self._send(task_id, request, ending)
            except OperationalError as error:  # kombu's, after all of its retries
                raise StoreUnavailable(f"what follows task {task_id} was not queued: {quote(error)}") from error
            marks.set(mark, 1, ex=config.current().results.expires_s)

    def _send(self, task_id: str, request: Mapping[str, Any], ending: Ending) -> None:
        if TASK_NAME not in self._celery.tasks:  # a child process for suspects: it works for no Celery worker
            self._celery.loader.import_default_modules()
        task = self._celery.tasks[TASK_NAME]
        context: Any = Context({**request, "id": task_id, STORED: True}, args=(), kwargs={}, called_directly=False)
        context.delivery_info = request.get("delivery_info") or {}
        with _in_charge(task, context), following():
            if not isinstance(ending, BotResult):
                self._fail(context, ending.error(), states.REVOKED)
            elif ending.status == "failed":
                self._fail(context, failure_of(ending), states.FAILURE)
            else:
                self._go_on_or_fail(context, ending)

    def _go_on_or_fail(self, context: Any, result: BotResult) -> None:
        try:
            self._go_on(context, result)
        except _WAIT:
            raise
        except Exception as error:  # noqa: BLE001 - a canvas that cannot be sent fails, and hangs nobody
            _complain(context.id, error)
            self._fail(context, error, states.FAILURE)

    def _fail(self, context: Any, error: Exception, state: str) -> None:
        try:
            for position, errback in enumerate(context.errbacks or ()):
                give_ids(errback, f"{context.id}.error.{position}")
            self._celery.backend.mark_as_failure(context.id, error, request=context, state=state)
        except _WAIT:
            raise
        except Exception as trouble:  # noqa: BLE001 - the task boundary: a foreign canvas must not stop the worker
            _complain(context.id, trouble)

    def _go_on(self, context: Any, result: BotResult) -> None:
        value = result.model_dump(mode="json")
        inherits = self._celery.conf.task_inherit_parent_priority
        family = {
            "parent_id": context.id,
            "root_id": context.root_id or context.id,
            "priority": context.delivery_info.get("priority") if inherits else None,
        }
        for position, callback in enumerate(context.callbacks or ()):
            give_ids(callback, f"{context.id}.{position}")
            maybe_signature(callback, app=self._celery).apply_async((value,), **family)
        if context.chain:
            following_one = maybe_signature(context.chain[-1], app=self._celery)
            following_one.apply_async((value,), chain=context.chain[:-1], **family)
        if context.chord:
            self._celery.backend.on_chord_part_return(context, states.SUCCESS, value)


#: What is waited for, rather than failing a canvas.
_WAIT = (ChordClaimed, RetryLater, redis.RedisError, OperationalError)


def give_ids(signature: Any, name: str) -> None:
    """Give a callback, and all of which it consists, the ids that they get each time; those that have one keep it."""
    if not isinstance(signature, dict):
        return
    signature.setdefault("options", {}).setdefault("task_id", str(uuid.uuid5(_NAMESPACE, name)))
    for position, part in enumerate(_parts(signature)):
        give_ids(part, f"{name}.{position}")


def _parts(signature: dict[str, Any]) -> Sequence[Any]:
    """Return the signatures of which a chain, a group or a chord consists."""
    kwargs = signature.get("kwargs") or {}
    kind = signature.get("subtask_type")
    if kind in ("chain", "group"):
        return kwargs.get("tasks") or ()
    if kind != "chord":
        return ()
    header = kwargs.get("header")
    return [*(header if isinstance(header, list) else [header]), kwargs.get("body")]


@contextmanager
def _in_charge(task: Task, context: Any) -> Iterator[None]:
    """Make what is sent within children of a task, as Celery's tracer does."""
    _task_stack.push(task)
    task.request_stack.push(context)
    try:
        yield
    finally:
        task.request_stack.pop()
        _task_stack.pop()


def _complain(task_id: str, error: Exception) -> None:
    logger.error("canvas failed task=%s error=%s: its result is stored", quote(task_id), type(error).__name__)
