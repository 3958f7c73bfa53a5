"""A worker's duty that sends batches: one process for each key makes jobs of the tasks that gather, and takes jobs on.

It is one that has this key, and it holds no slot. If it dies, or only seems to, another one goes on within half a
minute. The steps of a job (`batching/machine.py`) are such that two that mean to do the same send nothing twice.

Weakness: a process that is stopped between its note that it sends and the sending, for longer than `Timings.lost_s`,
may send what another one has sent by then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Sequence

from fleet.batches import BatchApi
from fleet.config import Settings
from fleet.economy.bill.export import export_of
from fleet.economy.lanes.jobs import JobStore, Overtaken
from fleet.economy.prices import Price
from fleet.engine.process.batching.collecting import Harvester
from fleet.engine.process.batching.machine import Machine, Timings
from fleet.engine.transport.parking.opening import open_these
from fleet.errors import FleetError, StoreRefused, StoreUnavailable
from fleet.quoting import brief
from fleet.store import keys, lane_keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import AnyStore, Brokers
from fleet.store.running.turns import has_turn

logger = logging.getLogger("fleet.batches")

#: Seconds between two looks of the process that sends batches, and of the others whether it lives.
LOOK_EVERY_S, STAND_BY_S = 1.0, 5.0
#: Seconds for which the turn is one process's unless it renews it.
TURN_S = 15
#: Tasks of a job at most (count), and bytes of their requests: far below both vendors' bounds, and quick to send anew.
MOST_TASKS, MOST_BYTES = 5000, 50_000_000
#: Tasks in one job have times that lie at most so many times as far away as the soonest, and this much more (s).
SAME_TIME, SAME_S = 2.0, 3600.0
#: Seconds after which a task that gathers and is parked nowhere has been cancelled.
GONE_S = 60.0
#: Seconds for which a limit takes no batches that has refused one for good.
SHUT_S = 3600.0


async def _always(limit: str) -> bool:
    return True


class BatchDuty:
    """Sends batches. One per process, on its loop.

    Args:
        state: Where jobs are.
        broker: Where tasks are parked.
        settings: When a batch is sent.
        price: Cost of one call.
        api_of: Returns the batches of a `provider/model/key`; None: this process cannot ask it.
        process: Its id.
        now_s: Unix time in seconds, as Redis has it.
        timings: How long things take.
    """

    def __init__(
        self,
        state: Store,
        broker: AnyStore,
        settings: Settings,
        price: Price,
        *,
        api_of: Callable[[str], BatchApi | None],
        process: str,
        now_s: Callable[[], float] = CLOCK.now_s,
        timings: Timings | None = None,
    ) -> None:
        self._state, self._broker, self._settings = state, broker, settings
        self._api_of, self._process, self._now_s = api_of, process, now_s
        self._jobs = JobStore(state, broker)
        self._timings = timings or Timings()
        self._machine = Machine(
            self._jobs, Harvester(state, self._jobs, price, export_of(settings.bill)), wake=self._wake,
            shut=self._shut, now_s=now_s, timings=self._timings,
        )  # fmt: skip
        self._limits: dict[str, str] = {}

    async def attend(self) -> None:
        """Send batches and read what comes, for ever, under each key whose turn this process has."""
        while True:
            try:
                has_work = await self.round(self._has_turn)
                await asyncio.sleep(LOOK_EVERY_S if has_work else STAND_BY_S)
            except FleetError as error:
                logger.warning("batches not looked at error=%s", type(error).__name__)
                await asyncio.sleep(STAND_BY_S)

    async def _has_turn(self, limit: str) -> bool:
        """True when this process serves a limit, and no other one does."""
        return await has_turn(self._state, lane_keys.lane_turn(limit), self._process, life_s=TURN_S)

    async def round(self, has_turn: Callable[[str], Awaitable[bool]] = _always) -> bool:
        """Make the jobs that are due, and take each job on as far as it goes now; False when there is nothing to do.

        Args:
            has_turn: True for a limit that this process is to serve.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        gathered, due = await self._jobs.gathered(), set(await self._jobs.jobs(self._now_s()))
        jobs = await self._limits_of(await self._jobs.jobs())
        limits = {*gathered, *jobs.values()}
        asked = [limit for limit in limits if self._api_of(limit) is not None]
        mine = {limit for limit in asked if await has_turn(limit)}
        for limit in mine & gathered.keys():
            await self._form(limit, gathered[limit])
        failed: StoreUnavailable | None = None
        for job_id in [job for job, limit in jobs.items() if limit in mine and job in due]:
            try:
                await self.take_on(job_id)
            except StoreUnavailable as error:  # of several brokers the others' jobs go on
                failed = error
                if not isinstance(self._broker, Brokers):
                    raise
        if len(asked) < len(limits):
            await self._leave_orphans({job for job, limit in jobs.items() if limit not in asked}, has_turn)
        if failed is not None:
            raise failed
        return bool(mine)

    async def _leave_orphans(self, jobs: set[str], has_turn: Callable[[str], Awaitable[bool]]) -> None:
        """Free the tasks whose time has come of jobs at which nobody looks, for nobody has their key any more."""
        for job_id in await self._jobs.jobs(self._now_s() - self._timings.orphan_s):
            job = await self._jobs.job(job_id) if job_id in jobs else None
            if job is not None and self._now_s() >= job.rescue_at and await has_turn(job.limit):
                await self._machine.leave(job)

    async def _limits_of(self, jobs: list[str]) -> dict[str, str]:
        """Return the limits of jobs; one that is gone is dropped."""
        for job_id in jobs:
            if job_id not in self._limits:
                job = await self._jobs.job(job_id)
                if job is None:
                    await self._jobs.drop(job_id)
                else:
                    self._limits[job_id] = job.limit
        self._limits = {job_id: self._limits[job_id] for job_id in jobs if job_id in self._limits}
        return self._limits

    async def take_on(self, job_id: str) -> None:
        """Take a job one step on; whatever goes wrong with it, it is tried again later, and the others go on."""
        job = await self._jobs.job(job_id)
        api = None if job is None else self._api_of(job.limit)
        if job is None or api is None:
            return
        try:
            await self._machine.advance(job, api)
        except Overtaken:
            pass  # it is another one's, who looks at it
        except (StoreUnavailable, StoreRefused):
            raise
        except Exception as error:  # noqa: BLE001 - recorded, without words that may be a prompt's; the others go on
            at = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(
                "batch_step_broke job=%s state=%s limit=%s error=%s at=%s:%s",
                job_id, job.state, job.limit, type(error).__name__, at.name, at.lineno,
            )  # fmt: skip
            await self._jobs.look_at(job_id, self._now_s() + self._timings.failed_s)

    async def _form(self, limit: str, since: float) -> None:
        """Make a job of what gathers under a limit, once there is enough of it or it has gathered long enough."""
        if self._api_of(limit) is None:
            return
        waiting = await self._jobs.gathering(limit, MOST_TASKS)
        now_s, lanes = self._now_s(), self._settings.lanes
        if not waiting or (len(waiting) < min(lanes.batch_tasks, MOST_TASKS) and now_s < since + lanes.batch_after_s):
            return
        waiting = await self._parked(waiting, limit)
        soonest_s = max(0.0, waiting[0][1] - now_s) if waiting else 0.0
        some = [task for task, by_at in waiting if by_at - now_s <= soonest_s * SAME_TIME + SAME_S]
        some = await self._bounded(some[: lanes.batch_tasks])
        if not some:
            return
        times = [one.rescue_at for one in await self._jobs.enrolled(some) if one is not None]
        job_id = secrets.token_hex(8)
        by_at = min((at for task, at in waiting if task in set(some)), default=now_s)
        count = await self._jobs.form(job_id, limit, some, by_at=by_at, rescue_at=min(times, default=by_at))
        if count:
            logger.info("batch_made job=%s limit=%s tasks=%d", job_id, limit, count)

    async def _parked(self, waiting: list[tuple[str, float]], limit: str) -> list[tuple[str, float]]:
        """Return the tasks that are parked; those that were and are no more were cancelled, and are forgotten.

        While the broker that may have a task does not answer, the task is neither.
        """
        found = await asyncio.gather(*(self._is_parked(task) for task, _ in waiting))
        gone = [task for (task, _), is_parked in zip(waiting, found, strict=True) if is_parked is False]
        for task, enrolled in zip(gone, await self._jobs.enrolled(gone), strict=True):
            if enrolled is None or enrolled.at < self._now_s() - GONE_S:
                await self._jobs.leave(task, limit)
        return [one for one, is_parked in zip(waiting, found, strict=True) if is_parked]

    async def _is_parked(self, task: str) -> bool | None:
        """Return whether a task is parked; None: one of several brokers, which may have it, does not answer."""
        try:
            return await self._jobs.is_parked(task)
        except StoreUnavailable:
            if not isinstance(self._broker, Brokers):
                raise
            return None

    async def _bounded(self, tasks: list[str]) -> list[str]:
        """Return as many of the first tasks as their requests leave room for."""
        size, kept = 0, list[str]()
        for task, body in zip(tasks, await self._jobs.bodies(tasks), strict=True):
            size += len(body or b"")
            if kept and size > MOST_BYTES:
                break
            kept.append(task)
        return kept

    async def _wake(self, pool: str, tasks: Sequence[str]) -> None:
        await open_these(self._broker, keys.queue(pool), tasks)

    async def _shut(self, limit: str, why: str) -> None:
        until = self._now_s() + SHUT_S
        await self._state.command("HSET", lane_keys.lane_shut(), limit, f"{until:.0f} {brief(why, 200)}")
        await self._state.command("EXPIRE", lane_keys.lane_shut(), round(2 * SHUT_S))
