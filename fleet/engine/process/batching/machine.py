"""The steps of one job, from its intent to its end. Each is written down before it is done: no death loses anything.

    intent -> (uploading) -> uploaded -> (creating) -> running -> (cancelling) -> ended -> collected -> gone

The states in brackets say that a request was about to be sent. Whoever finds one asks the vendor for what came of it,
and sends nothing again before that is known, or so long ago that no request can still be on its way.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fleet.batches import BatchApi, BatchRequest, Manifest, VendorBatch
from fleet.economy.lanes.jobs import JobState, JobStore, LaneJob, Overtaken
from fleet.engine.process.batching.collecting import Harvester, read_answers
from fleet.errors import (
    BadRequest,
    ConfigurationError,
    FleetError,
    GiveUp,
    KeyRejected,
    MachineExhausted,
    NotServed,
    NotSoon,
    ProviderUnavailable,
    RateLimited,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)

logger = logging.getLogger("fleet.batches")

#: Why tasks go on whose batch could not be sent in time.
TOO_LATE = "its time was over before it could be sent"
#: Why a batch of which nothing is wanted any more is not sent, or is cancelled.
NOBODY = "its tasks have ended"
#: Why tasks go on of a job whose key is gone.
NO_KEY = "no worker has its key, or its provider, any more"
#: States in which nothing of a job can have been billed.
UNPAID: tuple[JobState, ...] = ("intent", "uploading", "uploaded")


@dataclass(frozen=True, slots=True)
class Timings:
    """How long things take, in seconds.

    Args:
        lost_s: After which no request that was about to be sent can still be on its way: longer than its timeout.
        soonest_s: Between two looks at a job, at least.
        latest_s: At most.
        refused_s: Until the next try, where a vendor has refused a batch for now.
        failed_s: Until the next try of a step whose request has failed.
        longest_s: After which a batch has surely ended, whatever its vendor says or does not: a day, and two hours.
        orphan_s: After which a job that is due has nobody who has its key: longer than any request of another job.
    """

    lost_s: float = 150.0
    soonest_s: float = 2.0
    latest_s: float = 60.0
    refused_s: float = 60.0
    failed_s: float = 10.0
    longest_s: float = 26 * 3600.0
    orphan_s: float = 180.0


#: Opens what is parked of some tasks, by pool: they go on at once.
Wake = Callable[[str, Sequence[str]], Awaitable[object]]
#: Notes that a limit takes no batches for a while, and why.
Shut = Callable[[str, str], Awaitable[object]]


class Machine:
    """Takes jobs on, a step at a time.

    Args:
        jobs: Jobs in Redis.
        harvester: Enters what came into the bill.
        wake: Lets tasks go on.
        shut: Notes who takes no batches.
        now_s: Unix time in seconds, as Redis has it.
        timings: How long things take.
    """

    def __init__(
        self, jobs: JobStore, harvester: Harvester, *, wake: Wake, shut: Shut, now_s: Callable[[], float],
        timings: Timings,
    ) -> None:  # fmt: skip
        self._jobs, self._harvester = jobs, harvester
        self._wake, self._shut, self._now_s, self._timings = wake, shut, now_s, timings

    async def advance(self, job: LaneJob, api: BatchApi) -> None:
        """Take a job one step on; it is looked at again when that is due.

        Raises:
            FleetError: What Redis said, or that another process has it; the job is as it was, or says what was about to
                be sent.
        """
        step: dict[str, Callable[[LaneJob, BatchApi], Awaitable[float]]] = {
            "intent": self._upload, "uploading": self._find_file, "uploaded": self._create, "creating": self._find,
            "running": self._look, "cancelling": self._look, "ended": self._collect, "collected": self._clear,
        }  # fmt: skip
        try:
            again_s = await step[job.state](job, api)
        except (StoreError, StoreUnavailable, StoreRefused, Overtaken):
            raise
        except FleetError as error:
            again_s = await self._stuck(job.id, error)
        await self._again(job, again_s)

    async def leave(self, job: LaneJob) -> None:
        """Let the tasks of a job go on whose key nobody has any more. Raises as `advance`."""
        if job.state in UNPAID:
            await self._end(job, NO_KEY)
        elif job.state != "collected":
            await self._give_up(job, NO_KEY)
        await self._let_go(job)
        await self._drop(job, NO_KEY)

    async def _again(self, job: LaneJob, again_s: float) -> None:
        if again_s >= 0:
            await self._jobs.look_at(job.id, self._now_s() + again_s)

    async def _stuck(self, job_id: str, error: FleetError) -> float:
        """A step's request has failed: it is tried again, unless its tasks would wait for nothing.

        What says that it lasts ends a job when its tasks must go on; what passes ends it once its batch must be over.
        """
        job = await self._jobs.job(job_id)
        if job is None:
            return -1
        told, now_s = f"{type(error).__name__}: {error}", self._now_s()
        logger.warning("batch_step_failed job=%s state=%s limit=%s error=%s", job.id, job.state, job.limit, told)
        is_needed = now_s >= job.rescue_at
        if job.state == "collected":
            if job.tries >= MOST_TRIES:
                return await self._drop(job, told)
        elif job.state in UNPAID:
            if is_needed:
                return await self._end(job, TOO_LATE)
        elif (is_needed and job.tries >= MOST_TRIES and _lasts(error)) or now_s > job.at + self._timings.longest_s:
            return await self._give_up(job, told)
        await self._jobs.put(job, job.state, tries=job.tries + 1, why=str(error))
        return self._timings.failed_s * min(2**job.tries, 10)

    async def _upload(self, job: LaneJob, api: BatchApi) -> float:
        if not api.has_files:
            await self._jobs.put(job, "uploaded")
            return 0
        requests = await self._requests(job)
        if not requests or self._now_s() >= job.rescue_at:
            return await self._end(job, TOO_LATE if requests else NOBODY)
        job = await self._jobs.put(job, "uploading", at=self._now_s(), sent=len(requests))
        try:
            file = await api.upload(job.id, requests)
        except FleetError as error:
            if _was_not_made(error):
                return await self._refused(job, error, "intent")
            raise
        await self._jobs.put(job, "uploaded", file=file, tries=0)
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
            return await self._end(job, NOBODY)
        if job.file and len(requests) < job.sent and await self._is_taken_back(job, api):
            return 0
        sent_now = job.sent if job.file else len(requests)
        job = await self._jobs.put(job, "creating", at=self._now_s(), sent=sent_now)
        try:
            sent = await api.create(job.id, job.file, requests)
        except FleetError as error:
            if _was_not_made(error):
                return await self._refused(job, error, "uploaded")
            raise
        await self._made(job, sent)
        return self._timings.soonest_s

    async def _is_taken_back(self, job: LaneJob, api: BatchApi) -> bool:
        """Delete a file of which some tasks have ended, so that one without them is uploaded; False: it stays."""
        try:
            await api.delete(_vendor_of(job))
        except FleetError as error:
            logger.warning("batch_file_stays job=%s limit=%s error=%s", job.id, job.limit, type(error).__name__)
            return False
        await self._jobs.put(job, "intent", file="")
        return True

    async def _find(self, job: LaneJob, api: BatchApi) -> float:
        others = [await self._jobs.job(other) for other in await self._jobs.jobs()]
        not_these = {one.batch for one in others if one is not None and one.id != job.id and one.batch}
        manifest = Manifest(job.id, job.sent or job.count, job.at, frozenset({*not_these, *job.failed}), job.file)
        try:
            sent = await api.find(manifest)
        except NotSoon as error:
            if self._now_s() > job.at + self._timings.longest_s:
                return await self._give_up(job, str(error))
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

    async def _refused(self, job: LaneJob, error: FleetError, before: JobState) -> float:
        """A file or a batch was surely not made: it is tried again, or its tasks take another lane."""
        logger.warning("batch_refused job=%s limit=%s error=%s", job.id, job.limit, type(error).__name__)
        if isinstance(error, BadRequest | NotServed):
            await self._shut(job.limit, str(error))
            return await self._end(job, str(error))
        await self._jobs.put(job, before, tries=job.tries + 1, why=str(error))
        return self._until(job, self._timings.refused_s * min(2**job.tries, 10))

    async def _look(self, job: LaneJob, api: BatchApi) -> float:
        is_late = self._now_s() >= job.rescue_at and not job.raced
        is_over = job.state == "cancelling" or is_late
        sent = await api.look(job.batch)
        if sent.state == "failed":
            return await self._failed(job, sent)
        if sent.state == "ended":
            await self._jobs.put(job, "ended", files=sent.files, ended_at=self._now_s(), tries=0, why="")
            return 0
        if is_late and job.state == "running" and (racing := await self._jobs.race(job)):
            return await self._race(job, racing)
        if is_over or await self._is_unwanted(job):
            await self._cancel(job, api, "its time is nearly over" if is_over else NOBODY)
            return self._timings.soonest_s
        if sent.done != job.done or job.tries:
            await self._jobs.put(job, job.state, done=sent.done, tries=0, why="")
        return self._pause(job)

    async def _race(self, job: LaneJob, tasks: Sequence[str]) -> float:
        """Let the tasks of a job ask once more on another lane, while it goes on: the first answer wins."""
        logger.warning("batch_raced job=%s limit=%s tasks=%d", job.id, job.limit, len(tasks))
        await self._jobs.keep(tasks, [b""] * len(tasks))
        await self._jobs.put(job, job.state, raced=1)
        await self._let_go(job)
        return self._timings.soonest_s

    async def _cancel(self, job: LaneJob, api: BatchApi, why: str) -> None:
        """Let nothing more of a batch run; also again, until it has ended."""
        if job.state == "running":
            logger.warning("batch_cancelled job=%s limit=%s: %s", job.id, job.limit, why)
            job = await self._jobs.put(job, "cancelling", why=why)
        await api.cancel(job.batch)

    async def _is_unwanted(self, job: LaneJob) -> bool:
        """True when all tasks of a batch have ended: they were cancelled. Costs little as long as one waits."""
        for task in await self._jobs.tasks(job.id):
            if not (await self._jobs.have_ended([task]))[0]:
                return False
        return True

    async def _failed(self, job: LaneJob, sent: VendorBatch) -> float:
        """Nothing of a batch has run: where only its queue was full, it is made anew of the same file."""
        logger.warning("batch_failed job=%s limit=%s why=%s", job.id, job.limit, sent.why)
        if not sent.is_queue_full:
            return await self._end(job, sent.why)
        await self._jobs.put(
            job, "uploaded", batch="", failed=(*job.failed, sent.id), tries=job.tries + 1, why=sent.why
        )
        return self._until(job, self._timings.refused_s * min(2**job.tries, 10))

    async def _collect(self, job: LaneJob, api: BatchApi) -> float:
        """Read what came; what cannot be read is read again, and not for ever."""
        found = await read_answers(job, api, _vendor_of(job))
        if not found.is_whole:
            error, told = found.error, str(found.error or f"{found.unread} lines that nobody can read")
            is_late = self._now_s() >= job.rescue_at
            if job.tries < MOST_TRIES or not (error is None or _is_gone(error) or is_late):
                await self._jobs.put(job, "ended", tries=job.tries + 1, why=told)
                return self._timings.refused_s
            self._harvester.tell("lost", job, found.answers.count(None), told)
        answered = await self._harvester.collect(job, found.answers)
        await self._jobs.put(job, "collected", done=answered, tries=0, why="")
        return 0

    async def _clear(self, job: LaneJob, api: BatchApi) -> float:
        """Let the tasks go on, and delete what the vendor keeps of them, as often as that makes sense."""
        if not job.tries:
            await self._let_go(job)
        if job.batch and not job.ended_at:  # given up while nobody could tell: nothing more of it is to run
            await api.cancel(job.batch)
        left = _vendor_of(job)
        if api.has_files and job.sent and not left.files and (file := await api.find_file(job.id)) is not None:
            left = left._replace(files=(file,))
        if left.id or left.files:
            await api.delete(left)
        await self._let_go(job)  # also who was about to be parked at the first time
        logger.info("batch_over job=%s limit=%s tasks=%d answered=%d", job.id, job.limit, job.count, job.done)
        await self._jobs.over(job)
        return -1

    async def _drop(self, job: LaneJob, why: str) -> float:
        """Forget a job whose vendor does not delete what it keeps of it."""
        if job.batch or job.sent:
            kept = [job.batch, *_vendor_of(job).files]
            told = f"{why}; delete at the vendor's what it keeps: {', '.join(filter(None, kept)) or 'nobody knows'}"
            self._harvester.tell("not_deleted", job, len(kept), told)
        await self._jobs.over(job)
        return -1

    async def _end(self, job: LaneJob, why: str) -> float:
        """Let the tasks of a job that has cost nothing go on by other lanes."""
        tasks = await self._jobs.tasks(job.id)
        await self._jobs.keep(tasks, [b""] * len(tasks))
        await self._jobs.put(job, "collected", tries=0, why=why)
        return 0

    async def _give_up(self, job: LaneJob, why: str) -> float:
        """Let the tasks of a job go on of which nobody can tell what became: it may be paid, and is billed so."""
        self._harvester.tell("given_up", job, job.count, f"{why}; it may have been paid, and its tasks go on")
        await self._harvester.give_up(job)
        return await self._end(job, why)

    async def _let_go(self, job: LaneJob) -> None:
        tasks = await self._jobs.tasks(job.id)
        of_pool: dict[str, list[str]] = {}
        for task, enrolled in zip(tasks, await self._jobs.enrolled(tasks), strict=True):
            if enrolled is not None:
                of_pool.setdefault(enrolled.pool, []).append(task)
        for pool, some in of_pool.items():
            await self._wake(pool, some)

    async def _requests(self, job: LaneJob) -> list[BatchRequest]:
        """Return the requests of a job, without those whose tasks wait no more, or whose words were erased."""
        tasks = await self._jobs.tasks(job.id)
        bodies, wait = await self._jobs.bodies(tasks), await self._jobs.still_wait(tasks)
        return [
            BatchRequest(job.custom_id(place), body)
            for place, (body, still_waits) in enumerate(zip(bodies, wait, strict=True))
            if body is not None and still_waits
        ]

    def _is_lost(self, job: LaneJob) -> bool:
        return self._now_s() - job.at > self._timings.lost_s

    def _until(self, job: LaneJob, pause_s: float) -> float:
        """Return a pause that does not go beyond the time at which tasks must go on."""
        left_s = pause_s if job.raced else job.rescue_at - self._now_s()
        return max(self._timings.soonest_s, min(pause_s, left_s))

    def _pause(self, job: LaneJob) -> float:
        """Return the seconds to the next look: the longer, the longer it runs."""
        timings = self._timings
        return self._until(job, min(timings.latest_s, max(timings.soonest_s, (self._now_s() - job.made_at) / 20)))


#: Times that a step is tried whose failure lasts, and answers are asked for that cannot be read (count).
MOST_TRIES = 8


def _vendor_of(job: LaneJob) -> VendorBatch:
    return VendorBatch(job.batch, "ended", job.files or ((job.file,) if job.file else ()))


def _was_not_made(error: FleetError) -> bool:
    """True when a refusal says that there is no file, or batch. After a 5xx there may be one."""
    if isinstance(error, ProviderUnavailable):
        return not error.sent
    return isinstance(error, BadRequest | ConfigurationError | RateLimited | KeyRejected | MachineExhausted)


def _lasts(error: FleetError) -> bool:
    """True when the same request would fail again: its key is refused, or what it asks for."""
    return _is_gone(error) or isinstance(error, KeyRejected)


def _is_gone(error: FleetError) -> bool:
    """True when what was asked for is not there, or is not what it should be."""
    if isinstance(error, ProviderUnavailable):
        return not error.passes
    return isinstance(error, GiveUp | ConfigurationError)
