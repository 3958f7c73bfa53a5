"""What came of a job, entered into the bill, each once, and kept for its tasks. Who asks for it: `machine.py`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from fleet.batches import BatchAnswer, BatchApi, VendorBatch
from fleet.economy.bill import unknown
from fleet.economy.bill.export import Export
from fleet.economy.bill.scripts import RESOLVE
from fleet.economy.bill.writer import Batch, batch_call
from fleet.economy.lanes.jobs import AT_ONCE, Enrolled, JobStore, LaneJob
from fleet.economy.lanes.times import JobTime, note_time, timed_as
from fleet.economy.prices import Price
from fleet.entries import Entry
from fleet.errors import FleetError
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import bill_keys, keys
from fleet.store.client import Store
from fleet.usage import Usage

logger = logging.getLogger("fleet.batches")


@dataclass(slots=True)
class Harvest:
    """What was read of a job's answers.

    Attributes:
        answers: By the place of their request; None: there was none.
        unread: Lines that nobody can read.
        error: What ended it before its end; None: nothing did.
    """

    answers: list[BatchAnswer | None]
    unread: int = 0
    error: FleetError | None = field(default=None)

    @property
    def is_whole(self) -> bool:
        """True when nothing more is to be had by reading again."""
        return self.error is None and not (self.unread and None in self.answers)


async def read_answers(job: LaneJob, api: BatchApi, sent: VendorBatch) -> Harvest:
    """Read what a vendor has of a job; what was read before an error stays. A good answer is never replaced."""
    found = Harvest([None] * job.count)
    try:
        async for one in api.answers(sent):
            place = job.place_of(one.custom_id)
            if place is None:
                found.unread += not one.custom_id
            elif (before := found.answers[place]) is None or not before.body:
                found.answers[place] = one
    except FleetError as error:
        found.error = error
    return found


class Harvester:
    """Enters what came into the bill.

    Args:
        store: State Redis.
        jobs: Jobs there.
        price: Cost of one call.
        export: Where entries of the bill go one by one as well; None: nowhere.
    """

    def __init__(self, store: Store, jobs: JobStore, price: Price, export: Export | None) -> None:
        self._store, self._jobs, self._price, self._export = store, jobs, price, export

    async def collect(self, job: LaneJob, answers: Sequence[BatchAnswer | None]) -> int:
        """Enter answers into the bill, each once, and keep them for their tasks; return how many there are."""
        tasks = await self._jobs.tasks(job.id)
        for start in range(0, len(tasks), AT_ONCE):
            some, found = tasks[start : start + AT_ONCE], answers[start : start + AT_ONCE]
            await self._enter(job, start, some, [None if one is None else one.usage for one in found])
            await self._jobs.keep(some, [b"" if one is None else one.body for one in found])
        answered = sum(one is not None and bool(one.body) for one in answers)
        took = JobTime(job.ended_at - job.made_at, len(tasks), answered)
        await note_time(self._store, timed_as(job.api, job.lane), took, job=job.id)
        await self._tell_unwanted(job, tasks, answers)
        return answered

    async def give_up(self, job: LaneJob) -> None:
        """Enter the requests of a job of which nobody knows what became: at the most that each may have cost."""
        tasks = await self._jobs.tasks(job.id)
        for start in range(0, len(tasks), AT_ONCE):
            some = tasks[start : start + AT_ONCE]
            await self._enter(job, start, some, [None] * len(some), is_unknown=True)

    def tell(self, what: str, job: LaneJob, count: int, why: str) -> None:
        """Tell operators what has cost money for nothing, or has left words at a vendor. Never waits.

        Args:
            what: See the event.
            job: Of which.
            count: How many answers, or files.
            why: In words that quote nothing.
        """
        logger.error("batch_%s job=%s limit=%s count=%d: %s", what, job.id, job.limit, count, why)
        record_event(self._store, catalogue.BATCH_TROUBLE, what=what, job=job.id, limit=job.limit, count=count)

    async def _tell_unwanted(self, job: LaneJob, tasks: Sequence[str], answers: Sequence[BatchAnswer | None]) -> None:
        """Say how many answers are paid that nobody wants any more: their tasks were cancelled once they were sent."""
        answered = [task for task, one in zip(tasks, answers, strict=True) if one is not None and one.body]
        unwanted = sum(await self._jobs.have_ended(answered))
        if unwanted:
            self.tell("unwanted", job, unwanted, "they are paid, though their tasks had ended before")

    async def _enter(
        self, job: LaneJob, start: int, tasks: Sequence[str], used: Sequence[Usage | None], *, is_unknown: bool = False
    ) -> None:
        """Enter some requests into the bill: under the job's own name and their place, so each once."""
        whose = await self._jobs.enrolled(tasks)
        entries = tuple(
            self._entry(job, start + place, task, enrolled, usage)
            for place, (task, enrolled, usage) in enumerate(zip(tasks, whose, used, strict=True))
            if is_unknown or (usage is not None and usage.total_tokens)
        )
        if job.ticket and entries and not is_unknown:
            await self._settle(job, entries)
        elif entries:
            await self._store.run(*batch_call(Batch(f"lanes-{job.id}", start // AT_ONCE + 1, entries)))
        if entries and self._export is not None:
            await asyncio.to_thread(self._export.write, entries)

    async def _settle(self, job: LaneJob, entries: tuple[Entry, ...]) -> None:
        """Enter the one call of a job that had a grant: in place of its unknown entry, if its worker has died since.

        Where the note of its grant is still there, a mark keeps whoever reads that from entering it as unknown.
        """
        (entry,), place = entries, bill_keys.unknown()
        for _ in range(2):  # its note may be read between the two
            before = await self._store.command("HGET", place, job.ticket)
            if before is not None:
                if (lost := unknown.read(before)) is not None:
                    await self._store.run(RESOLVE, *unknown.resolve_call(unknown.Unknown(lost, before), entry))
                return
            if not await self._store.run(*batch_call(Batch(f"lanes-{job.id}", 1, entries))):
                if await self._store.command("HEXISTS", keys.limit_keys(job.limit).open, job.ticket):
                    await self._store.command("HSETNX", place, job.ticket, f"{unknown.RESOLVED}{entry.at_s:.0f}")
                return

    def _entry(self, job: LaneJob, place: int, task: str, enrolled: Enrolled | None, usage: Usage | None) -> Entry:
        pool, bot, tenant, kind, run, most = "-", "-", "", "-", "", None
        if enrolled is not None:
            pool, bot, tenant, kind, run, most = (
                enrolled.pool, enrolled.bot, enrolled.tenant, enrolled.kind, enrolled.run, enrolled.most_picos,
            )  # fmt: skip
        picos = most if usage is None else self._price(job.api, usage, job.lane)  # the lane is the tier
        return Entry(
            job.custom_id(place), task, pool, bot, tenant, kind, run, job.limit, job.lane, usage or Usage(), picos,
            "unknown" if usage is None else "settled", job.ended_at or job.at,
        )  # fmt: skip
