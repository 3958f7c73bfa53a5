"""The inbox: where plain Celery clients queue tasks, which a worker passes on to the queue of their pool."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fleet.config import Settings
from fleet.engine.messages import broker, pool_choice, queues
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
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently

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
        store: Where messages are.
        settings: Pools.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    async def pass_on(self, task_id: str, task: BotTask, pools: list[str], request: dict[str, Any]) -> str:
        """Move a message to its pool's queue, with its callbacks, once; return a line that says where.

        Args:
            task_id: The Celery task id.
            task: What the message holds.
            pools: Those that take it.
            request: Celery's request dict: headers, and what follows the task.
        """
        pool = await self._choose(task, pools)
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
        call = broker.enqueue_call(
            [keys.passed_on(task_id), place, message], self._settings, marker_life_s=self._settings.results.expires_s
        )
        await patiently(lambda: self._store.run(broker.ENQUEUE, *call))
        return f"passed on to {queue}"

    async def _choose(self, task: BotTask, pools: list[str]) -> str:
        """Return the pool with the fewest waiting tasks per bot, of those that can begin with the task soonest."""
        if len(pools) == 1:
            return pools[0]
        places = pool_choice.backlog_keys(pools)
        gates = patiently(partial(self._store.command, "MGET", *pool_choice.gate_keys(pools)))
        reads = (patiently(partial(self._store.command, "LLEN", key)) for _, key in places)
        closing, *lengths = await asyncio.gather(gates, *reads)
        backlog = dict.fromkeys(pools, 0)
        for (pool, _), length in zip(places, lengths, strict=True):
            backlog[pool] += length
        idle = [pool for pool, waiting in backlog.items() if waiting == 0]
        lowest = pool_choice.lowest_of(pools, closing, idle=idle, now_s=CLOCK.now_s())
        soonest = pool_choice.soonest(task, pools, lowest)
        return pool_choice.least_loaded(soonest, backlog, self._settings)
