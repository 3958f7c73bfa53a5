"""Celery's Redis result backend, listening only for results that somebody waits for, and fit to be forked.

Celery's own subscribes to a task's result when the task is sent: a producer that never reads results collects
subscriptions, and a process that was forked reads its parent's replies (celery/celery#6819). Here `get` subscribes,
then looks whether the result has come meanwhile, as Celery does for results of other processes. Under gevent and
eventlet a callback (`then`) subscribes too: their background reader runs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from celery.backends import redis
from celery.backends.asynchronous import Drainer

#: Where Celery finds these, by the scheme of `result_backend`.
BACKENDS = {
    **dict.fromkeys(("redis", "rediss"), f"{__name__}:RedisBackend"),
    "sentinel": f"{__name__}:SentinelBackend",
}


class ResultConsumer(redis.ResultConsumer):
    """Subscribes when somebody begins to wait."""

    def consume_from(self, task_id: str) -> None:
        if type(self.drainer) is not Drainer:
            super().consume_from(task_id)

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        for task_id in _awaited(result):
            super().consume_from(task_id)
        super().on_wait_for_pending(result, **kwargs)

    def cancel_for(self, task_id: str) -> None:
        if self._get_key_for_task(task_id) in self.subscribed_to:
            super().cancel_for(task_id)


def _awaited(result: Any) -> Iterator[str]:
    """Yield the ids of a result, or of a group's members, that have not come yet."""
    members = getattr(result, "results", None)
    if members is not None:
        for member in members:
            yield from _awaited(member)
    elif not result._cache:
        yield result.id


class _Patient:
    """What is different from Celery's backends."""

    ResultConsumer = ResultConsumer

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _LIVING.add(self)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing for a task that is sent."""

    def _add_pending_result(self: Any, task_id: str, result: Any, weak: bool = False) -> None:
        # Weak always: who waits holds the result, and a group that nobody reads must not stay for ever.
        super()._add_pending_result(task_id, result, weak=True)  # type: ignore[misc]

    def start_over(self: Any) -> None:
        """Forget connections and locks: after a fork they are the parent's."""
        self.__dict__.pop("client", None)
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )


class RedisBackend(_Patient, redis.RedisBackend):
    """For redis://, rediss:// and redis+socket://."""


class SentinelBackend(_Patient, redis.SentinelBackend):
    """For sentinel://."""


_LIVING: WeakSet[Any] = WeakSet()


def _start_over() -> None:
    for backend in tuple(_LIVING):
        backend.start_over()


os.register_at_fork(after_in_child=_start_over)
