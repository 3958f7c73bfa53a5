"""The inbox: where plain Celery clients queue tasks, which a worker passes on to the queue of their pool."""

from __future__ import annotations

from typing import Any

from fleet.config import Settings
from fleet.engine.messages import broker, queues
from fleet.engine.messages.envelope import (
    DELEGATION,
    EXPIRES,
    FLOW,
    HISTORY,
    NO_CANVAS,
    envelope,
    task_body,
    task_headers,
)
from fleet.engine.messages.expiry import end_in, end_of
from fleet.engine.messages.fair.flows import flow_of, routed
from fleet.engine.messages.pool_choice import Dispatcher, ask_patiently
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently
from fleet.store.running.brokers import AnyStore

#: Headers of a foreign message that survive being passed on.
KEPT_HEADERS = (
    "root_id",
    "parent_id",
    "group",
    "expires",
    "stamps",
    "stamped_headers",
    "origin",
    "group_index",
    HISTORY,
    DELEGATION,
    "traceparent",
    "tracestate",
)


class Inbox:
    """One per worker process, on its loop.

    Args:
        where: Where messages are.
        settings: Pools.
    """

    def __init__(self, where: AnyStore, settings: Settings) -> None:
        self._where = where
        self._settings = settings

    async def pass_on(self, task_id: str, task: BotTask, request: dict[str, Any]) -> str:
        """Move a message to its pool's queue, with its callbacks, once; return a line that says where.

        Args:
            task_id: The Celery task id.
            task: What the message holds.
            request: Celery's request dict: headers, and what follows the task.
        """
        dispatcher = Dispatcher(None, self._settings)
        await ask_patiently(self._where, dispatcher.questions([task]))
        pool = dispatcher.choose(task)
        queue = keys.queue(pool)
        headers = task_headers(task_id) | {name: request[name] for name in KEPT_HEADERS if request.get(name)}
        end = end_of(end_in(request, task.expires_at), None, self._settings.pools[pool].expires_s, CLOCK.now_s())
        if end is not None:
            headers[EXPIRES] = end
        if task.tenant:
            headers[FLOW] = flow_of(task.tenant)
        body = task_body(task, pool, {name: request.get(name) for name in NO_CANVAS})
        message = envelope(task_id=task_id, queue=queue, priority=task.priority.value, headers=headers, body=body)
        place = routed(queues.list_key(queue, task.priority.value), headers.get(FLOW))
        parts = [keys.passed_on(task_id), place, message]
        life_s = self._settings.results.expires_s
        await patiently(lambda: broker.enqueue_each(self._where, parts, self._settings, marker_life_s=life_s))
        return f"passed on to {queue}"
