"""A worker's duty for members of jobs whose result their job does not know: they are counted within minutes.

The step that stores a result counts it. What slips through: a result stored by a worker of a release that knew no
jobs, or alone, because Redis refused that step (`completion.py`), by a process that died right then. One worker of all
looks, at some members of each sealed job at a time, so that the work does not grow with the jobs.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import cast

from fleet.engine.outcomes.stored import Cancelled, ending_in
from fleet.errors import FleetError
from fleet.jobs import END_MEMBER, Membership, end_call, member_id
from fleet.store import job_keys, keys
from fleet.store.client import Store

logger = logging.getLogger("fleet.worker")

#: Seconds between two looks, of all workers together.
LOOK_EVERY_S = 10.0
#: Jobs that are looked at, the newest (count); and of each so many members, of which so many have not ended.
JOBS, STRETCH, LOOKED_AT = 50, 65_536, 500


class Uncounted:
    """Counts members that have ended and were not counted. One per worker process.

    Args:
        state: Where jobs and results are.
    """

    def __init__(self, state: Store) -> None:
        self._state = state
        #: Job -> the member at which its next look begins.
        self._places: dict[str, int] = {}

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
        """Look once at the newest jobs.

        Raises:
            FleetError: When Redis does not answer.
        """
        listed = [bytes(one).decode() for one in await self._state.command("ZREVRANGE", job_keys.listed(), 0, JOBS - 1)]
        self._places = {job_id: place for job_id, place in self._places.items() if job_id in listed}
        for job_id in listed:
            total, ended = await self._state.command("HMGET", job_keys.job(job_id), "total", "ended")
            if total is not None and int(ended or 0) < int(total):
                await self._look_at(job_id, int(total))

    async def _look_at(self, job_id: str, total: int) -> None:
        start = self._places.get(job_id, 0)
        end = min(total, start + STRETCH)
        ends = cast("bytes", await self._state.command("GETRANGE", job_keys.members(job_id), start, end - 1))
        pending = list(
            islice((at for at in range(start, end) if not ends[at - start : at - start + 1].strip(b"\0")), LOOKED_AT)
        )
        if len(pending) == LOOKED_AT:
            end = pending[-1] + 1
        self._places[job_id] = 0 if end >= total else end
        if pending:
            names = [keys.result(member_id(job_id, position)) for position in pending]
            stored = await self._state.command("MGET", *names)
            for position, raw in zip(pending, stored, strict=True):
                if (ending := ending_in(raw)) is not None:
                    how = "cancelled" if isinstance(ending, Cancelled) else ending.status
                    await self._state.run(END_MEMBER, *end_call(Membership(job_id, position), how))
                    logger.warning("counted late job=%s task=%s", job_id, member_id(job_id, position))
