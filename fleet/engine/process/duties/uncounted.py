"""A worker's duty for members of sealed jobs that will never be counted by themselves: it ends or counts them.

The step that stores a result counts it. What slips through: a result stored by a worker of a release that knew no
jobs, or alone, because Redis refused that step (`completion.py`), by a process that died right then. And a member whose
message is nowhere any more: its queue was purged, its dead letter thrown away right when it was to be queued again, or
Redis has lost it. That one counts as cancelled, once it has been nowhere for a minute. One worker of all looks, at some
members of each sealed job at a time, so that the work does not grow with the jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from typing import cast

from fleet.config import Settings
from fleet.engine.messages.marks import NOWHERE, nowhere_call
from fleet.engine.outcomes.stored import Cancelled, ending_in, revoked_meta
from fleet.errors import FleetError, StoreUnavailable
from fleet.jobs import END_MEMBER, END_REVOKED, Membership, end_call, member_id, revoked_call
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import job_keys, keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import AnyStore, Brokers, each

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks, of all workers together.
LOOK_EVERY_S = 10.0
#: Jobs that are looked at, in turn (count); and of each so many members, of which so many have not ended.
JOBS, STRETCH, LOOKED_AT = 50, 65_536, 500
#: So many times over in one look at a job with members that are nowhere: about 1,000 of them end in a second.
STEPS = 20
#: Seconds for which a member is nowhere before it is ended: one that is being queued again is so for a moment.
NOWHERE_S = 60.0
#: Seconds for which it is kept since when members are nowhere, after the last look.
KEPT_S = 3600
LOST = "it is in no queue any more, and no worker has it: its queue was purged, or Redis has lost it"


class Uncounted:
    """Counts members that have ended and were not counted, and ends those that cannot. One per worker process.

    Args:
        settings: How long results live.
        state: Where jobs and results are.
        broker: Where messages are.
    """

    def __init__(self, settings: Settings, state: Store, broker: AnyStore) -> None:
        self._settings, self._state, self._broker = settings, state, broker
        #: Job -> the member at which its next look begins.
        self._places: dict[str, int] = {}
        #: Job -> members that had ended at the last look: one that moves has no need to be searched for lost members.
        self._ended: dict[str, int] = {}
        #: A broker has not answered in this look: which members are nowhere, nobody can tell.
        self._is_blind = False
        #: Place of the first job of the last look among all that are not over.
        self._turn = 0

    async def attend(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                turn = ("SET", keys.turn("jobs"), "1", "NX", "PX", round(LOOK_EVERY_S * 900))
                if await self._state.command(*turn):
                    await self.look()
            except FleetError as error:
                logger.warning("jobs not looked at error=%s: %s", type(error).__name__, error)

    async def look(self) -> None:
        """Look once at some of the jobs that are not over.

        Raises:
            FleetError: When Redis does not answer.
        """
        live = [bytes(one).decode() for one in await self._state.command("ZRANGE", job_keys.live(), 0, -1)]
        known = set(live)
        self._places = {job_id: place for job_id, place in self._places.items() if job_id in known}
        self._ended = {job_id: ended for job_id, ended in self._ended.items() if job_id in known}
        self._is_blind = False
        self._turn = self._turn + JOBS if self._turn + JOBS < len(live) else 0
        for job_id in live[self._turn : self._turn + JOBS]:
            total, ended = await self._state.command("HMGET", job_keys.job(job_id), "total", "ended")
            if total is not None and int(ended or 0) < int(total):
                stands = self._ended.get(job_id) == int(ended or 0)
                self._ended[job_id] = int(ended or 0)
                for _ in range(STEPS):
                    are_lost = await self._look_at(job_id, int(total), stands=stands)
                    if not are_lost or not self._places[job_id]:
                        break

    async def _look_at(self, job_id: str, total: int, *, stands: bool) -> bool:
        """Look at some members of a job, behind those of the last look; return True when some are nowhere."""
        start = self._places.get(job_id, 0)
        end = min(total, start + STRETCH)
        ends = cast("bytes", await self._state.command("GETRANGE", job_keys.members(job_id), start, end - 1))
        pending = list(
            islice((at for at in range(start, end) if not ends[at - start : at - start + 1].strip(b"\0")), LOOKED_AT)
        )
        if len(pending) == LOOKED_AT:
            end = pending[-1] + 1
        self._places[job_id] = 0 if end >= total else end
        without = await self._count(job_id, pending) if pending else []
        if not (stands and without):
            return False
        numbers = await self._nowhere([member_id(job_id, position) for position in without])
        return bool(numbers is not None and await self._end_lost(job_id, without, numbers))

    async def _count(self, job_id: str, pending: Sequence[int]) -> list[int]:
        """Count those of some members that have ended; return the others."""
        names = [keys.result(member_id(job_id, position)) for position in pending]
        without = list[int]()
        for position, raw in zip(pending, await self._state.command("MGET", *names), strict=True):
            ending = ending_in(raw)
            if ending is None:
                without.append(position)
                continue
            how = "cancelled" if isinstance(ending, Cancelled) else ending.status
            await self._state.run(END_MEMBER, *end_call(Membership(job_id, position), how))
            logger.warning("counted late job=%s task=%s", job_id, member_id(job_id, position))
        return without

    async def _nowhere(self, task_ids: Sequence[str]) -> list[int] | None:
        """Return the numbers of those of some tasks that no broker knows; None: one that may does not answer."""
        if self._is_blind:
            return None
        call = nowhere_call(task_ids)
        try:
            answers = [set(await store.run(NOWHERE, *call)) for store in each(self._broker)]
        except StoreUnavailable as error:
            if not isinstance(self._broker, Brokers):
                raise
            logger.warning("lost members not looked for: %s", error)
            self._is_blind = True
            return None
        return sorted(cast("set[int]", set.intersection(*answers)))

    async def _end_lost(self, job_id: str, pending: Sequence[int], numbers: Sequence[int]) -> bool:
        """End those of some members without a result that have been nowhere for long enough; False: none is nowhere.

        Since when is kept in Redis: the next look may be another worker's. Whoever dies in between leaves it there.
        """
        task_ids = [member_id(job_id, position) for position in pending]
        lost, now_s = {task_ids[number]: pending[number] for number in numbers}, CLOCK.now_s()
        found = [task_id for task_id in task_ids if task_id not in lost]
        if found:
            await self._state.command("ZREM", job_keys.lost(), *found)
        if not lost:
            return False
        await self._state.command("ZADD", job_keys.lost(), "NX", *(part for one in lost for part in (now_s, one)))
        await self._state.command("EXPIRE", job_keys.lost(), KEPT_S)
        since = await self._state.command("ZMSCORE", job_keys.lost(), *lost)
        over = [one for one, at in zip(lost, since, strict=True) if at is not None and now_s - float(at) >= NOWHERE_S]
        life_s = self._settings.results.expires_s
        metas = {task_id: revoked_meta(task_id, reason=LOST, at=now_s) for task_id in over}
        calls = [revoked_call(Membership(job_id, lost[one]), one, metas[one], result_life_s=life_s) for one in over]
        await asyncio.gather(*(self._state.run(END_REVOKED, *call) for call in calls))
        if over:
            self._ended[job_id] += len(over)  # by us: it stands as it stood
            await self._state.command("ZREM", job_keys.lost(), *over)
            logger.warning("members lost job=%s tasks=%d: %s", job_id, len(over), LOST)
            record_event(self._state, catalogue.JOB_MEMBERS_LOST, job=job_id, tasks=len(over))
        return True
