"""The life of a worker process: its loop, what is put together on it (`assembly.py`), and the duties that run beside.

`PROCESS.start` and `stop` belong to the worker's pool; `run_here` serves Celery pools that are not ours. What happens
to a task is told in `data_plane.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fleet import config
from fleet.economy.bill.export import export_of
from fleet.engine.admission.lending import lend
from fleet.engine.messages.fair.places import keep_places
from fleet.engine.messages.fair.weights import weigh
from fleet.engine.outcomes.results import Done
from fleet.engine.process.assembly import Assembly, put_together, renewing
from fleet.engine.process.breaking import StaleHolds, open_mended, open_scoped, take_up
from fleet.engine.process.data_plane import DataPlane
from fleet.engine.process.duties.backlog_history import BacklogHistory
from fleet.engine.process.duties.followers import Followers
from fleet.engine.process.duties.janitor import for_ever
from fleet.engine.process.duties.overdue import Overdue
from fleet.engine.process.duties.revival import keep_redis
from fleet.engine.process.duties.uncounted import Uncounted
from fleet.engine.process.duties.unusual_use import UnusualUse
from fleet.engine.process.ladders import (
    warn_of,
)
from fleet.engine.process.moving.keys_of_before import KeysOfBefore
from fleet.engine.process.suspects.apart import Apart
from fleet.engine.telemetry.occupancy import DirectCall, Occupancy
from fleet.errors import FleetError
from fleet.models import BotResult
from fleet.store import keys, schedule_keys
from fleet.store.patience import patiently
from fleet.store.private.embedded import broker_url
from fleet.store.running.brokers import main_of, reach_branches
from fleet.workers.loops.runtime import Runtime

if TYPE_CHECKING:
    pass

logger = logging.getLogger("fleet.worker")


#: Seconds that duties have to end when a process stops; what takes longer is cancelled with the loop.
LAY_DOWN_S = 2.0
_NOT_STARTED = "expected a started process, got none: the worker's pool calls PROCESS.start()"


class Process:
    """This process's loop and what is put together on it, from `start` to `stop`. There is one: `PROCESS`."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._runtime: Runtime | None = None
        self._renewing: Runtime | None = None
        self._assembly: Assembly | None = None
        self._inherited: object = None
        self._apart: Apart | None = None

    @property
    def runtime(self) -> Runtime:
        """The loop."""
        if self._runtime is None:
            raise RuntimeError(_NOT_STARTED)
        return self._runtime

    @property
    def plane(self) -> DataPlane:
        """What turns messages into results."""
        if self._assembly is None:
            raise RuntimeError(_NOT_STARTED)
        return self._assembly.plane

    @property
    def apart(self) -> Apart:
        """Where suspects run."""
        if self._apart is None:
            raise RuntimeError(_NOT_STARTED)
        return self._apart

    async def wanted(self) -> bytes | None:
        """Return how many slots are wanted, as it was published; None: nobody decides."""
        if self._assembly is None:
            return None
        found: bytes | None = await self._assembly.state.command("GET", schedule_keys.wanted())
        return found

    def beats(self) -> dict[str, float | None]:
        """Return the signs of life of the loop, and of those of users' functions. From any thread."""
        runtime, assembly = self._runtime, self._assembly
        if runtime is None or assembly is None:
            return {}
        return {"event loop": runtime.beat_at, "loop of users' functions": assembly.agent.loops.beat_at}

    def start(self, occupancy: Occupancy) -> None:
        """Start the loop, put everything together on it, seed the bots. Once per process.

        Raises:
            ConfigurationError: When the settings, or what they name, cannot be used.
        """
        with self._starting:
            if self._assembly is None:
                self._assembly = self._start(occupancy)

    def _start(self, occupancy: Occupancy) -> Assembly:
        settings = config.current()
        runtime, assembly = put_together(settings, occupancy)
        self._runtime = runtime
        apart = self._apart = Apart(assembly.janitor.bury, assembly.spending.child_ended)
        shut = {pool: wait for pool, wait in assembly.shut.items() if keys.queue(pool) in occupancy.queues}
        for pool, wait in shut.items():
            logger.error("pool_shut pool=%s cause=%s: %s; its tasks are left to other workers", pool, wait.cause, wait)
        occupancy.forgo([keys.queue(pool) for pool in shut])
        calls = [route.limit for route in assembly.routes]
        paid = [*calls, *(() if assembly.tools is None else assembly.tools.limits)]
        limits = [limit for limit in calls if assembly.breakers.standing(limit) is None]
        served = [pool for pool in settings.pools if pool not in assembly.shut]
        takes_up = partial(take_up, assembly.breakers, settings, assembly.broker)
        opens = partial(open_scoped, settings, assembly.broker)
        mends = partial(open_mended, settings=settings, pools=served, limits=limits)
        runtime.run(patiently(lambda: mends(main_of(assembly.broker))))
        warn_of(settings, occupancy.queues)
        self._renewing = renewing(settings, assembly.held)
        duties: list[Callable[[], Coroutine[Any, Any, None]]] = [
            assembly.janitor.bury_poison, partial(assembly.janitor.sweep_marks, settings), assembly.likeness.attend,
            partial(keep_places, assembly.broker, settings),
            partial(reach_branches, assembly.broker, partial(weigh, settings)),
            partial(reach_branches, assembly.broker, mends),
            partial(assembly.keyring.keep, assembly.state, takes_up),
            partial(assembly.scopes.keep, assembly.state, opens),
            assembly.lanes.keep, assembly.batches.attend, assembly.grader.keep, assembly.rollouts.keep,
            assembly.choices.keep,
            assembly.lessons.keep, assembly.spending.keeper.keep, assembly.spending.sweep,
            Overdue(settings, assembly.plane.refuse).attend, assembly.late_binding.run,
            partial(assembly.panel.watch, assembly.roster.read_out),
            partial(assembly.peers.keep, assembly.agent.verdicts_at),
            StaleHolds(settings, assembly.state, assembly.broker, calls).attend,
            BacklogHistory(settings, assembly.state, assembly.broker).attend,
            UnusualUse(settings, assembly.state, assembly.broker).attend, KeysOfBefore(settings, assembly.state).attend,
            Followers(settings, assembly.state, assembly.broker).attend,
            Uncounted(settings, assembly.state, assembly.broker).attend,
            partial(
                lend, assembly.agent.occupants.waiting, assembly.agent.occupants.moved, assembly.hanging,
                assembly.breakers.is_open,
            ),
            assembly.silence.attend,
            partial(assembly.janitor.report, occupancy, lambda: apart.count, settings, shut),
            partial(assembly.janitor.watch_neighbours, settings),
            assembly.spending.sweeper(paid, assembly.janitor.living, export_of(settings.bill)).attend,
        ]  # fmt: skip
        if any(pool.delegated for pool in settings.pools.values()):
            duties.append(partial(assembly.delegations.keep, assembly.state))
        if settings.redis.url is None:
            duties.append(partial(keep_redis, settings, config.home_path(), broker_url(settings)))
        self._duties = runtime.run(_take_up(duties))
        return assembly

    def stop(self) -> None:
        """Close connections and stop the loop; what still runs on it is cancelled."""
        if self._runtime is None:
            return
        if self._assembly is not None and self._apart is not None:
            self._runtime.run(self._apart.close())
            self._runtime.run(_lay_down(self._duties))
            self._runtime.run(self._assembly.janitor.leave())
            self._runtime.run(self._assembly.close())
        self._runtime.stop()
        if self._renewing is not None:
            self._renewing.stop()
        self._runtime = self._renewing = self._assembly = self._apart = None
        self._duties = []

    def forget(self) -> None:
        """Start anew in a forked process: threads don't survive a fork. The parent's loops are kept, not closed.

        Closing one would take its sockets out of the selector, which both processes share.
        """
        self._starting = threading.Lock()
        self._inherited = (self._runtime, self._renewing, self._assembly, self._apart, self._duties)
        self._runtime = self._renewing = self._assembly = self._apart = None
        self._duties = []

    async def refuse(self, task_id: str, error: FleetError, headers: Mapping[str, Any], body: bytes) -> None:
        """Give a task whose message cannot be read a failed result."""
        await self.plane.refuse(task_id, error, headers, body)

    def run_here(self, task_id: str | None, request: dict[str, Any]) -> BotResult | None:
        """Work for a task on the calling thread's time: Celery's own pools, or a direct call of the task.

        Returns:
            Its result, also one that it had before; None when it was passed on to its pool's queue.
        """
        self.start(DirectCall(f"direct-{uuid.uuid4().hex[:8]}"))
        task_id = task_id or str(uuid.uuid4())
        try:
            done: Done = self.runtime.run(self.plane.work(task_id, request))
        finally:
            if self._assembly is not None:
                self.runtime.run(self._assembly.settle())
        return self.runtime.run(self.plane.result_of(task_id)) if done.ended_before else done.result


async def _take_up(duties: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> list[asyncio.Task[None]]:
    """Begin all duties of a process."""
    return [asyncio.create_task(for_ever(duty)) for duty in duties]


async def _lay_down(duties: Sequence[asyncio.Task[None]]) -> None:
    """End the duties while there are connections: none may report a worker that has left, or ask a closed store."""
    for duty in duties:
        duty.cancel()
    if duties:
        await asyncio.wait(duties, timeout=LAY_DOWN_S)


PROCESS = Process()
os.register_at_fork(after_in_child=PROCESS.forget)
