"""Revoking tasks: they do not start any more, wherever they wait, and whether or not a worker lives.

`revoke` here is what every way in comes to: `AsyncResult.revoke()`, `app.control.revoke()`, Flower, `celery control`,
`fleet cancel`, and a plain client's broadcast that a worker hears. Work that runs is stopped by its worker only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from celery.app.control import Control as CeleryControl

from fleet import config
from fleet.config import Settings
from fleet.engine.messages.broker import broker
from fleet.engine.outcomes.stored import revoked_meta
from fleet.engine.transport.held import held_of
from fleet.engine.transport.revoked import mark_revoked
from fleet.engine.transport.withdrawal.message_search import may_wait
from fleet.jobs import end_revoked, membership_of
from fleet.store import keys
from fleet.store.client import connect, store_errors
from fleet.store.clock import CLOCK
from fleet.store.private.embedded import state_url
from fleet.store.running.brokers import Anywhere, main_of

#: Results stored in one round trip (count).
AT_ONCE = 500
#: Waiting messages among which a revoked task is looked for (count): a few milliseconds of Redis.
KNOWN_MOST = 10_000
#: How the results of tasks that are done begin, as Celery's Redis backend writes them.
DONE = (b'{"status": "SUCCESS"', b'{"status": "FAILURE"')
#: Broadcasts that revoke tasks.
REVOKING = ("revoke", "terminate")


@dataclass(frozen=True, slots=True)
class Revocation:
    """What became of tasks that were revoked: those that `ended` with it, whose result is REVOKED now; the `unknown`.

    An unknown one has no result and no message. If its message is on its way still, it ends when a worker meets it.
    """

    ended: list[str]
    unknown: list[str]


def revoke(
    task_ids: Iterable[str],
    *,
    broker: Anywhere,
    state: redis.Redis,
    settings: Settings,
    find: Callable[[Sequence[str]], Collection[str]] | None = None,
) -> Revocation:
    """Keep tasks from starting and free their idempotency keys; tell who waits for one that nobody works on.

    A task that runs goes on, and its result stands; one that is done stays as it is. Safe to repeat.

    Args:
        task_ids: Which.
        broker: Client of the Redis with the messages.
        state: Client of the Redis with the results.
        settings: How long results live.
        find: Returns those of some tasks that may wait in a queue; None: nobody looks, and all are taken to be known.

    Raises:
        redis.RedisError: When Redis does not answer (inside `store_errors`, Fleet's own).
    """
    names = _not_done(state, list(dict.fromkeys(task_ids)))
    parked = set(mark_revoked(broker, names))
    held = held_of(broker, [task_id for task_id in names if task_id not in parked])
    free, unknown = [task_id for task_id in names if task_id not in held], list[str]()
    if find is not None and free:
        known = parked | set(find([task_id for task_id in free if task_id not in parked]))
        unknown = [task_id for task_id in free if task_id not in known]
        moved = held_of(broker, unknown) | set(unknown).difference(_not_done(state, unknown))
        unknown = [task_id for task_id in unknown if task_id not in moved]
        free = [task_id for task_id in free if task_id in known]
    ended: list[str] = []
    for start in range(0, len(free), AT_ONCE):
        ended += store_revoked(state, free[start : start + AT_ONCE], settings)
    return Revocation(ended, unknown)


def revoke_here(task_ids: Iterable[str]) -> list[str]:
    """`revoke` with the Redis servers of the settings in force.

    An id that nobody knows gets its mark, and no result, as with Celery: a mistyped one must not seem to be a task.
    Where more than `KNOWN_MOST` tasks wait, nobody looks for it, and it gets one.

    Raises:
        FleetError: When Redis does not answer.
    """
    settings = config.current()
    with store_errors(broker().url), store_errors(results_here().url):
        where = broker().client
        return revoke(
            task_ids, broker=where, state=state_here(), settings=settings,
            find=lambda names: may_wait(where, names, settings, most=KNOWN_MOST),
        ).ended  # fmt: skip


@dataclass(frozen=True, slots=True)
class Results:
    """Where results are. Finding that out costs two connections: see `results_here`."""

    settings: Settings
    url: str
    client: redis.Redis


_results: Results | None = None


def _forget() -> None:
    """Let a forked process connect anew."""
    global _results
    _results = None


os.register_at_fork(after_in_child=_forget)


def results_here() -> Results:
    """Return where the settings in force have results, looked for once; the broker's client, where there is one Redis.

    Raises:
        ConfigurationError: When a configured Redis does not answer, or an embedded one cannot be started.
    """
    global _results
    settings, where = config.current(), broker()
    if _results is None or _results.settings is not settings:
        url = state_url(settings)
        client = main_of(where.client) if url == where.url else connect(url, timeout_s=settings.redis.socket_timeout_s)
        _results = Results(settings, url, client)
    return _results


def state_here() -> redis.Redis:
    """Return this process's plain client of the Redis with the results."""
    return results_here().client


def _not_done(state: redis.Redis, names: Sequence[str]) -> list[str]:
    """Return those without a result of their own."""
    with state.pipeline(transaction=False) as pipe:
        for task_id in names:
            pipe.getrange(keys.result(task_id), 0, len(max(DONE, key=len)) - 1)
        return [task_id for task_id, head in zip(names, pipe.execute(), strict=True) if not head.startswith(DONE)]


def store_revoked(
    state: redis.Redis, names: Sequence[str], settings: Settings, *, reason: str = "revoked"
) -> list[str]:
    """Store what revoked tasks come to, and tell who waits; return those that had no result."""
    metas = {task_id: revoked_meta(task_id, reason=reason, at=CLOCK.now_s()) for task_id in names}
    members = {task_id: metas.pop(task_id) for task_id in names if membership_of(task_id) is not None}
    ended = end_revoked(state, members, result_life_s=settings.results.expires_s) if members else []
    return ended + _store_revoked(state, metas, settings) if metas else ended


def _store_revoked(state: redis.Redis, metas: Mapping[str, bytes], settings: Settings) -> list[str]:
    """Store the results of tasks of no job."""
    with state.pipeline(transaction=False) as pipe:
        for task_id, meta in metas.items():
            pipe.set(keys.result(task_id), meta, nx=True, ex=settings.results.expires_s)
        ended = [task_id for task_id, is_stored in zip(metas, pipe.execute(), strict=True) if is_stored]
        for task_id in ended:
            pipe.publish(keys.result(task_id), metas[task_id])
        pipe.execute()
    return ended


class Control(CeleryControl):
    """`app.control`: what revokes tasks is written down in Redis first, then told to the workers that live."""

    def broadcast(self, command: str, arguments: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Do as Celery does, after the marks of a `revoke`."""
        if command in REVOKING:
            revoke_here(ids_of((arguments or {}).get("task_id", kwargs.get("task_id"))))
        return super().broadcast(command, arguments, *args, **kwargs)


def ids_of(task_id: str | Collection[str] | None) -> list[str]:
    """Return the ids that Celery's argument `task_id` stands for: one, or a collection of them."""
    return [task_id] if isinstance(task_id, str) else list(task_id or ())
