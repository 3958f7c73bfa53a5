"""Ends of tasks of which no worker's event tells: what waited was cancelled, or its time was over, in Redis alone.

Flower knows tasks by workers' events. One that went back to wait is RETRY there, and would be so for ever when `fleet
cancel` or a worker's sweep ends it where it waits. Results are compared with what Flower believes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import redis
from celery import states
from flower.events import Events
from tornado.ioloop import PeriodicCallback

from fleet.config import Settings
from fleet.engine.outcomes.results import summary_of
from fleet.engine.outcomes.stored import celery_state, read_result
from fleet.errors import FleetError
from fleet.store import keys
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import state_url

logger = logging.getLogger("fleet.dashboard")

#: Seconds between two looks: one command for those that wait, as far as Flower knows them.
EVERY_S = 3.0
#: Results read in one round trip (count).
AT_ONCE = 500


class LateEnds:
    """Tells Flower of such ends. Used on its event loop.

    Args:
        events: What Flower knows.
        settings: Where results are.
    """

    def __init__(self, events: Events, settings: Settings) -> None:
        self._events = events
        self._settings = settings
        self._timer = PeriodicCallback(self.look, EVERY_S * 1000)

    def start(self) -> None:
        """Look from now on, for ever."""
        self._timer.start()

    async def look(self) -> None:
        """Tell Flower of all tasks that wait there and have ended; nothing happens while Redis does not answer."""
        waiting = [name for name, task in self._tasks() if task.state == states.RETRY]
        if not waiting:
            return
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, self._results, waiting)
        except FleetError as error:
            logger.warning("ends not looked for error=%s", error)
            return
        told = dict(self._tasks())
        for name, raw in found.items():
            task = told.get(name)
            if task is not None and task.state == states.RETRY and (event := _event(raw)) is not None:
                # local_received 0: its worker is no livelier for it
                about = {"uuid": name, "hostname": task.worker.hostname, "timestamp": time.time(), "clock": task.clock}
                self._events.state.event({"exception": None, **about, **event, "local_received": 0})

    def _tasks(self) -> list[tuple[str, Any]]:
        tasks = self._events.state.tasks
        return list(getattr(tasks, "data", tasks).items())  # without counting as a use of each

    def _results(self, names: list[str]) -> dict[str, bytes]:
        """Return what is stored of those tasks that have ended. Blocks."""
        url = state_url(self._settings)
        with store_errors(url), connect(url, timeout_s=self._settings.redis.socket_timeout_s) as client:
            return dict(_stored(client, names))


def _stored(client: redis.Redis, names: list[str]) -> Iterator[tuple[str, bytes]]:
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        values = cast("Iterable[bytes | None]", client.mget([keys.result(name) for name in some]))
        yield from ((name, raw) for name, raw in zip(some, values, strict=True) if raw)


def _event(raw: bytes) -> dict[str, Any] | None:
    """Return what a worker would have told of a task with that result; None: it goes on."""
    state, _, kind = (celery_state(raw) or "").partition(" ")
    if state == states.REVOKED:
        return {"type": "task-revoked", "terminated": False, "signum": None, "expired": False}
    if state == states.FAILURE:
        return {"type": "task-failed", "exception": kind, "traceback": ""}
    result = read_result(raw)
    return {"type": "task-succeeded", "result": summary_of(result)} if result is not None else None
