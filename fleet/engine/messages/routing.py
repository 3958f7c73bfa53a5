"""What Celery's `queue`, `routing_key`, `exchange` and `priority` say of a bot task: its pool and its priority.

Producers' options are read before a task is queued (`asked`), plain clients' messages where they are taken from
(`delivered`). What contradicts the task is refused in words, never obeyed in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.errors import InvalidTask
from fleet.models import BotTask, Priority
from fleet.quoting import nearest, quote
from fleet.store import keys

#: Options of `apply_async` that say where a task goes, the plainest first.
ADDRESSES = ("queue", "routing_key", "exchange")
#: What is left of a time that is over, in seconds: the quickest lane takes such a task.
LEAST_BY_S = 0.001


def asked(task: BotTask, options: dict[str, Any], route: Mapping[str, Any], settings: Settings) -> BotTask:
    """Return the task with the pool and the priority that a producer's options ask for.

    Args:
        task: What is submitted.
        options: Of `apply_async`; what is read here is taken out.
        route: What `task_routes` says, for what neither the task nor an option says.
        settings: Pools.

    Raises:
        InvalidTask: When an option names no pool, contradicts the task or another option, or is no priority.
    """
    given = {name: options.pop(name, None) for name in (*ADDRESSES, "priority")}
    if not any(value is not None for value in given.values()) and not route:
        return task
    where = given if any(given[name] is not None for name in ADDRESSES) else route
    for name in ADDRESSES:
        task = _bound_for(task, name, where.get(name), settings)
    if given["priority"] is not None:
        return _with_priority(task, given["priority"])
    if "priority" in task.model_fields_set or route.get("priority") is None:
        return task
    return _with_priority(task, route["priority"])


def delivered(task: BotTask, queue: str | None, priority: object, settings: Settings) -> BotTask:
    """Return the task of a message with the pool whose queue it was found in, and its message's priority.

    Args:
        task: What the message holds; its own `pool` and `priority` win.
        queue: Where it was taken from.
        priority: The message's property.
        settings: Pools.

    Raises:
        InvalidTask: When the task names another pool than the queue's.
    """
    pool = queues.pool_of(queue or "")
    number = queues.priority_of(priority)
    changes: dict[str, Any] = {}
    if pool is not None and pool in settings.pools and task.pool != pool:
        if task.pool is not None:
            raise InvalidTask(
                f"pool: expected {quote(pool)}, to which the queue {quote(queue)} belongs, got {quote(task.pool)}; "
                "name one of them"
            )
        changes["pool"] = pool
    if number is not None and number != task.priority and "priority" not in task.model_fields_set:
        changes["priority"] = number
    return task.model_copy(update=changes) if changes else task


def in_time_left(task: BotTask, queued_ms: int | None) -> BotTask:
    """Return a task whose `by_s` counts from now on, as it is taken, and not from its submission any more.

    Args:
        task: As it was submitted; one that does not say by when it is needed comes back as it is.
        queued_ms: Milliseconds since its submission; None: nobody knows, so none have passed.
    """
    if task.by_s is None:
        return task
    return task.model_copy(update={"by_s": max(LEAST_BY_S, task.by_s - (queued_ms or 0) / 1000)})


def _bound_for(task: BotTask, name: str, value: object, settings: Settings) -> BotTask:
    queue = getattr(value, "name", value)  # kombu's Queue and Exchange have names
    if queue is None or queue == "" or queue == settings.worker.inbox:
        return task
    known = {keys.queue(pool): pool for pool in settings.pools}
    pool = str(queue) if queue in settings.pools else known.get(str(queue))
    if pool is None:
        raise InvalidTask(f"{name}: {quote(queue)} is no pool's queue, {nearest(str(queue), known)}")
    if task.pool not in (None, pool):
        raise InvalidTask(
            f"{name}: expected {quote(keys.queue(str(task.pool)))}, the queue of the task's pool, got {quote(queue)}; "
            "name one of them"
        )
    return task.model_copy(update={"pool": pool})


def _with_priority(task: BotTask, value: object) -> BotTask:
    wanted = Priority[value.upper()] if _is_name(value) else queues.priority_of(value)  # type: ignore[attr-defined]
    if wanted is None:
        raise InvalidTask(f"priority: expected 0 (the most urgent) to {queues.LOWEST}, got {quote(value)}")
    if "priority" in task.model_fields_set and task.priority != wanted:
        raise InvalidTask(
            f"priority: expected {task.priority.name.lower()} ({task.priority.value}), which the task says, got "
            f"{quote(value)} as an option; name one of them"
        )
    return task.model_copy(update={"priority": wanted})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.upper() in Priority.__members__
