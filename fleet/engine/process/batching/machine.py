"""The steps of one job, from its intent to its end. Each is written down before it is done: no death loses anything.

    intent -> (uploading) -> uploaded -> (creating) -> running -> (cancelling) -> ended -> collected -> gone

The states in brackets say that a request was about to be sent. Whoever finds one asks the vendor for what came of it,
and sends nothing again before that is known, or so long ago that no request can still be on its way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fleet.batches import BatchAnswer, BatchApi, BatchRequest, Manifest, VendorBatch
from fleet.economy.bill.export import Export
from fleet.economy.bill.writer import Batch, batch_call
from fleet.economy.lanes.jobs import AT_ONCE, Enrolled, JobStore, LaneJob
from fleet.economy.lanes.times import JobTime, note_time
from fleet.economy.prices import Price
from fleet.entries import Entry
from fleet.errors import (
    BadRequest,
    FleetError,
    KeyRejected,
    NotServed,
    NotSoon,
    ProviderUnavailable,
    RateLimited,
)
from fleet.store.client import Store

logger = logging.getLogger("fleet.batches")

#: Why tasks go on whose batch could not be sent in time.
TOO_LATE = "its time was over before it could be sent"
#: Tier by which batches are priced and billed.
BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Timings:
    """How long things take, in seconds.

    Args:
        lost_s: After which no request that was about to be sent can still be on its way: longer than its timeout.
        soonest_s: Between two looks at a job, at least.
        latest_s: At most.
        refused_s: Until the next try, where a vendor has refused a batch for now.
        failed_s: Until the next try of a step whose request has failed.
    """

    lost_s: float = 150.0
    soonest_s: float = 2.0
    latest_s: float = 60.0
    refused_s: float = 60.0
    failed_s: float = 10.0


#: Opens what is parked of some tasks, by pool: they go on at once.
Wake = Callable[[str, Sequence[str]], Awaitable[object]]
#: Notes that a limit takes no batches for a while, and why.
Shut = Callable[[str, str], Awaitable[object]]


class Machine:
    """Takes jobs on, a step at a time.

    Args:
        store: State Redis.
        jobs: Jobs there.
        price: Cost of one call.
        wake: Lets tasks go on.
        shut: Notes who takes no batches.
        now_s: Unix time in seconds, as Redis has it.
        timings: How long things take.
        export: Where entries of the bill go one by one as well; None: nowhere.
    """

    def __init__(
        self, store: Store, jobs: JobStore, price: Price, *, wake: Wake, shut: Shut, now_s: Callable[[], float],
        timings: Timings, export: Export | None = None,
    ) -> None:  # fmt: skip
        self._export = export
        self._store, self._jobs, self._price = store, jobs, price
        self._wake, self._shut, self._now_s, self._timings = wake, shut, now_s, timings

    async def advance(self, job: LaneJob, api: BatchApi) -> None:
        """Take a job one step on; it is looked at again when that is due.

        Raises:
            FleetError: What the vendor, or Redis, said; the job is as it was, or says what was about to be sent.
        """
        step: dict[str, Callable[[LaneJob, BatchApi], Awaitable[float]]] = {
            "intent": self._upload, "uploading": self._find_file, "uploaded": self._create, "creating": self._find,
            "running": self._look, "cancelling": self._look, "ended": self._collect, "collected": self._clear,
        }  # fmt: skip
        again_s = await step[job.state](job, api)
        if again_s >= 0:
            await self._jobs.look_at(job.id, self._now_s() + again_s)

    async def _upload(self, job: LaneJob, api: BatchApi) -> float:
        if not api.has_files:
            await self._jobs.put(job, "uploaded")
            return 0
        requests = await self._requests(job)
        if not requests or self._now_s() >= job.rescue_at:
            return await self._end(job, TOO_LATE if requests else "its tasks are gone")
        job = await self._jobs.put(job, "uploading", at=self._now_s())
        file = await api.upload(job.id, requests)
        await self._jobs.put(job, "uploaded", file=file)
        return 0

    async def _find_file(self, job: LaneJob, api: BatchApi) -> float:
        file = await api.find_file(job.id)
        if file is not None:
            await self._jobs.put(job, "uploaded", file=file)
            return 0
        if self._is_lost(job):
            await self._jobs.put(job, "intent")
            return 0
        return self._timings.soonest_s

    async def _create(self, job: LaneJob, api: BatchApi) -> float:
        if self._now_s() >= job.rescue_at:
            return await self._end(job, TOO_LATE)
        requests = await self._requests(job)
        if not requests:
            return await self._end(job, "its tasks are gone")
        job = await self._jobs.put(job, "creating", at=self._now_s(), sent=len(requests))
        try:
            sent = await api.create(job.id, job.file, requests)
        except FleetError as error:
            if _was_not_made(error):
                return await self._refused(job, error)
            raise
        await self._made(job, sent)
        return self._timings.soonest_s

    async def _find(self, job: LaneJob, api: BatchApi) -> float:
        others = [await self._jobs.job(other) for other in await self._jobs.jobs()]
        not_these = {one.batch for one in others if one is not None and one.id != job.id and one.batch}
        manifest = Manifest(job.id, job.sent or job.count, job.at, frozenset({*not_these, *job.failed}), job.file)
        try:
            sent = await api.find(manifest)
        except NotSoon:
            return self._pause(job)
        if sent is not None:
            await self._made(job, sent)
            return 0
        if self._is_lost(job):
            await self._jobs.put(job, "uploaded")
            return 0
        return self._timings.soonest_s

    async def _made(self, job: LaneJob, sent: VendorBatch) -> None:
        await self._jobs.put(job, "running", batch=sent.id, files=sent.files, tries=0, why="")

    async def _refused(self, job: LaneJob, error: FleetError) -> float:
        """A batch was surely not made: it is tried again, or its tasks take another lane."""
        logger.warning("batch_refused job=%s limit=%s error=%s", job.id, job.limit, type(error).__name__)
        if isinstance(error, BadRequest | NotServed):
            await self._shut(job.limit, str(error))
            return await self._end(job, str(error))
        await self._jobs.put(job, "uploaded", tries=job.tries + 1, why=str(error))
        return self._timings.refused_s * min(2**job.tries, 10)

    async def _look(self, job: LaneJob, api: BatchApi) -> float:
        try:
            sent = await api.look(job.batch)
        except (BadRequest, NotServed) as error:
            return await self._unknown(job, error)
        if sent.state == "failed":
            return await self._failed(job, sent)
        if sent.state == "ended":
            await self._jobs.put(job, "ended", files=sent.files, ended_at=self._now_s(), tries=0)
            return 0
        if self._now_s() >= job.rescue_at:
            is_first = job.state == "running"
            job = await self._jobs.put(job, "cancelling")
            if is_first:
                logger.warning("batch_cancelled job=%s limit=%s: its time is nearly over", job.id, job.limit)
            await api.cancel(job.batch)
            return self._timings.soonest_s
        if sent.done != job.done:
            await self._jobs.put(job, job.state, done=sent.done)
        return self._pause(job)

    async def _unknown(self, job: LaneJob, error: FleetError) -> float:
        """Its vendor says that there is no such batch: once that is sure, its tasks take another lane."""
        if job.tries >= MOST_READS:
            logger.error("batch_lost job=%s limit=%s: its vendor does not know it any more", job.id, job.limit)
            return await self._end(job, str(error))
        await self._jobs.put(job, job.state, tries=job.tries + 1, why=str(error))
        return self._timings.refused_s

    async def _failed(self, job: LaneJob, sent: VendorBatch) -> float:
        """Nothing of a batch has run: where only its queue was full, it is made anew of the same file."""
        logger.warning("batch_failed job=%s limit=%s why=%s", job.id, job.limit, sent.why)
        if not sent.is_queue_full:
            return await self._end(job, sent.why)
        await self._jobs.put(
            job, "uploaded", batch="", failed=(*job.failed, sent.id), tries=job.tries + 1, why=sent.why
        )
        return self._timings.refused_s * min(2**job.tries, 10)

    async def _collect(self, job: LaneJob, api: BatchApi) -> float:
        """Enter what has come into the bill, each once, and keep it for the tasks."""
        tasks = await self._jobs.tasks(job.id)
        came: list[BatchAnswer | None] = [None] * len(tasks)
        try:
            async for one in api.answers(_vendor_of(job)):
                if (place := job.place_of(one.custom_id)) is not None:
                    came[place] = one
        except FleetError as error:
            if isinstance(error, NotSoon | RateLimited | KeyRejected) or job.tries < MOST_READS:
                await self._jobs.put(job, "ended", tries=job.tries + 1, why=str(error))
                return self._timings.refused_s
            logger.error("batch_lost job=%s limit=%s tasks=%d: %s", job.id, job.limit, len(tasks), type(error).__name__)
        for start in range(0, len(tasks), AT_ONCE):
            some, answers = tasks[start : start + AT_ONCE], came[start : start + AT_ONCE]
            await self._enter(job, start, some, answers)
            await self._jobs.keep(some, [b"" if one is None else one.body for one in answers])
        answered = sum(one is not None and bool(one.body) for one in came)
        await note_time(
            self._store, job.api, JobTime(job.ended_at - job.made_at, len(tasks), answered), job=job.id
        )  # fmt: skip
        await self._jobs.put(job, "collected", done=answered)
        return 0

    async def _enter(
        self, job: LaneJob, start: int, tasks: Sequence[str], answers: Sequence[BatchAnswer | None]
    ) -> None:  # fmt: skip
        """Enter some answers into the bill: under the job's own name and their place, so each once."""
        whose = await self._jobs.enrolled(tasks)
        entries = tuple(
            self._entry(job, start + place, task, enrolled, one)
            for place, (task, enrolled, one) in enumerate(zip(tasks, whose, answers, strict=True))
            if one is not None and one.usage.total_tokens
        )
        if entries:
            batch = Batch(f"lanes-{job.id}", start // AT_ONCE + 1, entries)
            await self._store.run(*batch_call(batch))
            if self._export is not None:
                await asyncio.to_thread(self._export.write, entries)

    def _entry(self, job: LaneJob, place: int, task: str, enrolled: Enrolled | None, one: BatchAnswer) -> Entry:
        pool, bot, tenant, kind, run = ("",) * 5
        if enrolled is not None:
            pool, bot, tenant, kind, run = (
                enrolled.pool, enrolled.bot, enrolled.tenant, enrolled.kind, enrolled.run,
            )  # fmt: skip
        picos = self._price(job.api, one.usage, BATCH)
        return Entry(
            job.custom_id(place), task, pool or "-", bot or "-", tenant, kind or "-", run, job.limit, BATCH, one.usage,
            picos, "settled", job.ended_at,
        )  # fmt: skip

    async def _clear(self, job: LaneJob, api: BatchApi) -> float:
        """Let the tasks go on, and delete what the vendor keeps of them."""
        await self._let_go(job)
        await api.delete(_vendor_of(job))
        logger.info("batch_over job=%s limit=%s tasks=%d answered=%d", job.id, job.limit, job.count, job.done)
        await self._jobs.drop(job.id)
        return -1

    async def _end(self, job: LaneJob, why: str) -> float:
        """Let the tasks of a job that has cost nothing go on by other lanes."""
        tasks = await self._jobs.tasks(job.id)
        await self._jobs.keep(tasks, [b""] * len(tasks))
        await self._jobs.put(job, "collected", why=why)
        return 0

    async def _let_go(self, job: LaneJob) -> None:
        tasks = await self._jobs.tasks(job.id)
        of_pool: dict[str, list[str]] = {}
        for task, enrolled in zip(tasks, await self._jobs.enrolled(tasks), strict=True):
            if enrolled is not None:
                of_pool.setdefault(enrolled.pool, []).append(task)
        for pool, some in of_pool.items():
            await self._wake(pool, some)

    async def _requests(self, job: LaneJob) -> list[BatchRequest]:
        """Return the requests of a job; those whose words were erased meanwhile are left out."""
        bodies = await self._jobs.bodies(await self._jobs.tasks(job.id))
        return [BatchRequest(job.custom_id(place), body) for place, body in enumerate(bodies) if body is not None]

    def _is_lost(self, job: LaneJob) -> bool:
        return self._now_s() - job.at > self._timings.lost_s

    def _pause(self, job: LaneJob) -> float:
        """Return the seconds to the next look: the longer, the longer it runs, and not beyond its rescue."""
        now_s, timings = self._now_s(), self._timings
        pause_s = min(timings.latest_s, max(timings.soonest_s, (now_s - job.made_at) / 20))
        return max(timings.soonest_s, min(pause_s, job.rescue_at - now_s))


#: Times that the answers of a batch that has ended are asked for, until they are taken for lost (count).
MOST_READS = 8


def _vendor_of(job: LaneJob) -> VendorBatch:
    return VendorBatch(job.batch, "ended", job.files or ((job.file,) if job.file else ()))


def _was_not_made(error: FleetError) -> bool:
    """True when a refusal says that there is no batch. After a 5xx there may be one: a proxy has lost the reply."""
    if isinstance(error, ProviderUnavailable):
        return not error.sent
    return isinstance(error, BadRequest | NotServed | RateLimited | KeyRejected)
