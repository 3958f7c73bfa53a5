"""Publishing what follows a task in its canvas: a bot task is queued once, however often it is sent.

A worker may die between sending what follows and noting that it did, and the next one sends it again. A canvas has
given its tasks their ids beforehand, so the broker can drop the second copy. A user's own task may run twice: to
Celery, a message with the id of an earlier one is a new run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import redis
from celery._state import get_current_task
from celery.app.amqp import AMQP
from kombu.connection import maybe_channel
from kombu.utils.json import dumps

from fleet import config
from fleet.engine.messages.broker import enqueue
from fleet.engine.messages.delegated import WARRANTED, sealed, warrant
from fleet.engine.messages.envelope import DELEGATION, FLOW, TASK_NAME
from fleet.engine.messages.fair.flows import flow_in, routed
from fleet.errors import NotDelegated
from fleet.store import keys
from fleet.store.running.brokers import Brokers

#: Where a script met an error of Redis, as Redis puts it behind; what a pipeline puts before one, with the message.
_PLACE = re.compile(r"\.? ?script: [0-9a-f]{40}, on .*$", re.DOTALL)
_OF_PIPELINE = " of pipeline caused error: "
_following: ContextVar[bool] = ContextVar("fleet_following", default=False)


@contextmanager
def following() -> Iterator[None]:
    """Send, within this block and thread, what follows a task."""
    token = _following.set(True)
    try:
        yield
    finally:
        _following.reset(token)


def is_following() -> bool:
    """True while what follows a task is sent."""
    return _following.get()


def current_request() -> Any:
    """Return the request of the task that is followed; None where there is none."""
    task = get_current_task()
    return None if task is None else task.request


def put_once(
    client: redis.Redis, place: str, message: dict[str, Any], *, where: Brokers[redis.Redis] | None = None
) -> bool:
    """Queue a bot task that follows another task, unless that was done before. One round trip.

    Args:
        client: Of the broker.
        place: List that it goes into.
        message: As kombu makes it.
        where: All brokers, if there are several: it may have been done at another one.

    Returns:
        False, and nothing is done, when the message is another one.

    Raises:
        redis.ConnectionError: When Redis takes no messages: it is to be sent again.
    """
    headers = message.get("headers", {})
    if not _following.get() or headers.get("task") != TASK_NAME:
        return False
    marker = keys.follows(headers["id"])
    try:
        settings = config.current()
        parts = [marker, routed(place, headers.get(FLOW)), dumps(message)]
        enqueue(where or client, parts, settings, marker_life_s=settings.results.expires_s)
    except redis.ResponseError as error:
        raise refused(error) from None
    return True


def refused(error: redis.ResponseError) -> redis.ConnectionError:
    """Return what makes Celery publish again (Redis is full, read-only), and does not quote the message."""
    return redis.ConnectionError(f"Redis takes no messages: {_PLACE.sub('', str(error).rpartition(_OF_PIPELINE)[2])}")


def _warranted(task_id: str, fields: Mapping[str, Any], pool: str, canvas: Any) -> str | None:
    """Return the header of a message that is submitted here, as `warrant` does; a worker hears what to do instead.

    Raises:
        NotDelegated: As `warrant`.
    """
    try:
        return warrant(task_id, fields, pool, canvas, config.current())
    except NotDelegated as error:
        if getattr(current_request(), "called_directly", True):
            raise
        raise NotDelegated(
            f"{error}. A worker of Celery's own pools (prefork, solo) seals nothing that follows a task: leave out "
            "--pool, so that Fleet's runs it; or set that variable for the worker, which then signs all that it submits"
        ) from error


class Amqp(AMQP):
    """`amqp_cls` of the Celery app: knows when Celery itself sends what follows a task of the user's own.

    It has a worker's queues declared together. It signs tasks that are submitted by a delegation, seals those that
    follow a signed one, and names the flow of those that have a tenant.
    """

    def as_task_v2(self, task_id: str, name: str, *args: Any, **options: Any) -> Any:
        message = super().as_task_v2(task_id, name, *args, **options)
        if name == TASK_NAME and isinstance(fields := message.body[1], Mapping):
            pool, canvas = str(fields.get("pool")), message.body[2]
            if _following.get():
                header = sealed(task_id, fields, pool, canvas, getattr(current_request(), WARRANTED, None))
            else:
                header = _warranted(task_id, fields, pool, canvas)
            if header is not None:
                message.headers[DELEGATION] = header
            if flow := flow_in(fields):
                message.headers[FLOW] = flow
        return message

    def TaskConsumer(self, channel: Any, *args: Any, **options: Any) -> Any:
        """Return the consumer of a worker's queues, all declared in one go."""
        channel = maybe_channel(channel)
        with channel.declaring():
            return super().TaskConsumer(channel, *args, **options)

    def _retry_publish(self, publish: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with following():
            return super()._retry_publish(publish, *args, **kwargs)
