"""Which lane a call of this process takes: by prices, and by what the fleet has learnt, read by a duty now and then.

Tasks that do not say by when they need their answers never come here, and cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from fleet.batches import Arrived, Leaving
from fleet.config import Settings
from fleet.economy.lanes.access import lanes_of_api
from fleet.economy.lanes.choice import (
    LANES,
    LATER,
    TIER_OF,
    UNLEARNT,
    Lane,
    LaneFacts,
    Shape,
    Way,
    choose,
    offers,
)
from fleet.economy.lanes.jobs import Enrolled, JobStore
from fleet.economy.lanes.learnt import read_learnt
from fleet.economy.lanes.prefixes import Begun, PrefixCounter, read_prefixes, with_prefix
from fleet.economy.lanes.times import read_shut, read_times, timed_as, with_times
from fleet.economy.prices import Price
from fleet.errors import FleetError, NotSoon
from fleet.models import Norms
from fleet.store.client import Store, connect, store_errors
from fleet.store.clock import CLOCK
from fleet.store.private.embedded import state_url
from fleet.usage import Usage
from fleet.waits import Wait

logger = logging.getLogger("fleet.worker")

#: Seconds between two readings of what was learnt, while tasks come that ask for it.
READ_EVERY_S = 60.0
#: Seconds for which a lane is left alone that had no room for a call.
BUSY_S = 30.0
#: The same for one that an API has refused for good.
LACKING_S = 3600.0
#: 95th percentile of the time to an answer over its median, as log-normal times with a sigma of 0.67 have it.
P95_OF_MEDIAN = 3.0
#: Seconds before its time at which what is in a batch is rescued, a quarter of its time at most: vendors cancel within
#: ten minutes, and the usual lane answers within a minute.
RESCUE_S = 900.0
#: Seconds until a task looks again whose batch has not ended in time: it is woken sooner.
LATE_S = 60.0


def rescue_at(by_at: float, now_s: float) -> float:
    """Return the Unix time (s) at which a batch is cancelled for a task that is needed by then."""
    return by_at - min(RESCUE_S, max(0.0, by_at - now_s) / 4)


class LaneChooser:
    """Implements `fleet.workers.lanes.Lanes`. One per process, on its loop.

    Args:
        settings: Which kind an API is of.
        price: Cost of one call.
        store: State Redis.
        norms_of: What is usual for a pool and a task class.
        lets_leave: Tasks can leave their slots here; not so in a direct call, a child, or on Celery's own pools.
        clock: Seconds that only grow.
        share: Fresh random numbers from 0 to 1.
    """

    def __init__(
        self,
        settings: Settings,
        price: Price,
        store: Store,
        *,
        norms_of: Callable[[str, str], Norms | None],
        lets_leave: bool = True,
        clock: Callable[[], float] = time.monotonic,
        share: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._price, self._norms_of = settings, price, norms_of
        self._clock, self._share, self._lets_leave = clock, share, lets_leave
        self._jobs = JobStore(store)
        self._counter = PrefixCounter(store)
        self._prefixes: Mapping[Begun, LaneFacts] = {}
        self._learnt: Mapping[Way, LaneFacts] = {}
        self._times: Mapping[str, LaneFacts] = {}
        self._shut: Collection[str] = ()
        self._forgetting: set[asyncio.Future[None]] = set()
        self._busy: dict[tuple[str, str], float] = {}
        self._is_asked = asyncio.Event()

    def lane(
        self, pool: str, api: str, kind: str, *, input_tokens: int, output_tokens: int, by_s: float, may_batch: bool,
        prefix: str = "", besides: Collection[str] = (),
    ) -> Lane:  # fmt: skip
        """Return the lane that a call takes. Never waits.

        Args:
            pool: Whose call it is.
            api: `provider/model`.
            kind: Task class.
            input_tokens: By estimate.
            output_tokens: Of the longest answer, where nothing is learnt.
            by_s: Seconds until the answer is needed.
            may_batch: Its task may leave its slot, and come back hours later.
            besides: Lanes that it cannot take, whatever they cost.
            prefix: Name of how it begins; empty: nobody knows it by that.
        """
        self._is_asked.set()
        known = {lane: self._learnt.get((api, kind, lane), UNLEARNT) for lane in LANES}
        for later in LATER:
            known[later] = with_times(known[later], self._times.get(timed_as(api, later)))
        known = with_prefix(known, self._prefixes, api, prefix)
        made = max((one.output_tokens for one in known.values()), default=0) or output_tokens
        norms = self._norms_of(pool, kind)
        within_s = None if norms is None else norms.ran_ms / 1000 * P95_OF_MEDIAN
        found = offers(
            Shape(input_tokens, made, prefix_tokens=input_tokens), by_s,
            lambda usage, tier: self._price(api, usage, tier),
            {lane: one.at_once(within_s) if lane in ("standard", "priority") else one for lane, one in known.items()},
            has=self._lanes_of(api) - (set() if may_batch and self._lets_leave else LATER) - set(besides),
        )  # fmt: skip
        return choose(found).lane

    def _enrolled(self, leaving: Leaving, now_s: float) -> Enrolled:
        return Enrolled(
            leaving.pool, leaving.bot, leaving.tenant, leaving.kind, leaving.run, leaving.limit, leaving.by_at,
            rescue_at(leaving.by_at, now_s), now_s, leaving.most_picos, leaving.lane,
            self._settings.pools[leaving.pool].race,
        )  # fmt: skip

    async def leave(self, leaving: Leaving) -> None:
        """Let a call leave for a batch; its task waits until an answer is there, or none will come.

        Raises:
            NotSoon: It has left.
            StoreUnavailable: Redis does not answer.
        """
        now_s = CLOCK.now_s()
        left_s = max(0.0, leaving.by_at - now_s)
        enrolled = self._enrolled(leaving, now_s)
        await self._jobs.enrol(leaving.task, enrolled, leaving.body, life_s=left_s)
        raise self._waiting(leaving.limit, enrolled.rescue_at)

    async def begun(self, leaving: Leaving, batch: str) -> None:
        """Note that a call is answered in the background, as what is named so at its vendor.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        lane = next(one for one in LATER if one == leaving.lane)
        enrolled = self._enrolled(leaving, CLOCK.now_s())
        await self._jobs.begin(leaving.task, enrolled, lane, batch, ticket=leaving.ticket)

    async def came(self, task: str) -> Arrived | None:
        """Return with what a task's call is back; None: it has not left.

        Raises:
            NotSoon: It is on its way.
            StoreUnavailable: Redis does not answer.
        """
        found = await self._jobs.came(task)
        if found is None:
            return None
        enrolled = found.enrolled
        if found.answer or found.is_freed:
            races = enrolled.race and not found.answer and bool(found.job)
            job = await self._jobs.job(found.job) if races else None
            is_raced = job is not None and bool(job.raced)
            return Arrived(enrolled.limit, found.answer, found.lane, is_raced=is_raced)
        if not found.job:
            if CLOCK.now_s() >= enrolled.rescue_at and await self._jobs.leave(task, enrolled.limit):
                return Arrived(enrolled.limit)
            raise self._waiting(enrolled.limit, enrolled.rescue_at)
        if await self._jobs.job(found.job) is None:  # it has just ended, or Redis has lost it
            again = await self._jobs.came(task)
            return Arrived(enrolled.limit, b"" if again is None else again.answer, found.lane)
        raise self._waiting(enrolled.limit, enrolled.by_at)

    async def has_left(self, task: str) -> bool:
        """True when a task's call has left for a batch, whatever came of it. Raises `StoreUnavailable`."""
        return await self._jobs.came(task) is not None

    async def unread(self, task: str) -> None:
        """Note that nobody can read the answer with which a task's call is back. Raises `StoreUnavailable`."""
        await self._jobs.unread(task)

    async def bot_of(self, task: str) -> tuple[str, str] | None:
        """Return the pool and the bot whose answer to a task has come; None: none has."""
        found = await self._jobs.came(task)
        return (found.enrolled.pool, found.enrolled.bot) if found is not None and found.answer else None

    def over(self, pool: str, task: str) -> None:
        """Forget what came of a pool's task whose result is stored. Never waits, never raises."""
        job = asyncio.ensure_future(self._forget(task, may_race=self._settings.pools[pool].race))
        self._forgetting.add(job)
        job.add_done_callback(self._forgetting.discard)

    async def _forget(self, task: str, *, may_race: bool) -> None:
        with suppress(FleetError):  # it has a life
            if not (may_race and await self._jobs.goes_on(task)):
                await self._jobs.forget(task)

    def _waiting(self, limit: str, until: float) -> NotSoon:
        at = max(until, CLOCK.now_s() + LATE_S)
        return NotSoon(Wait("batch", at, limit, is_everyones=False))

    def used(self, api: str, tier: str | None, prefix: str, usage: Usage) -> None:
        """Note what a call of a beginning has used on a lane. Never waits, never raises."""
        lane = next((lane for lane, priced in TIER_OF.items() if priced == tier), None)
        if lane is not None:
            self._counter.count((api, lane, prefix), usage)

    def busy(self, api: str, tier: str) -> None:
        """Note that a tier had no room for a call: the next ones leave it alone for a while. Never waits."""
        self._busy[api, tier] = self._clock() + BUSY_S * (0.5 + self._share())

    def lacks(self, api: str, lane: str) -> None:
        """Note that an API has no such lane: calls leave it alone for an hour. Never waits."""
        logger.warning("lane_lacking model=%s lane=%s", api, lane)
        self._busy[api, lane] = self._clock() + LACKING_S

    def _lanes_of(self, api: str) -> set[Lane]:
        found = {lane for lane in lanes_of_api(self._settings, api) if not self._is_busy(api, TIER_OF[lane])}
        return found - {"batch"} if api in self._shut else found

    def _is_busy(self, api: str, tier: str | None) -> bool:
        until = None if tier is None else self._busy.get((api, tier))
        return until is not None and self._clock() < until

    def take(
        self,
        learnt: Mapping[Way, LaneFacts],
        prefixes: Mapping[Begun, LaneFacts],
        times: Mapping[str, LaneFacts],
        shut: Collection[str] = (),
    ) -> None:
        """Choose by this from now on: what calls of kinds and of beginnings tell, what batches do, who takes none."""
        self._learnt, self._prefixes, self._times, self._shut = learnt, prefixes, times, shut

    async def keep(self) -> None:
        """Read what was learnt, for ever: while tasks ask for it, once a minute."""
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            try:
                self.take(*await asyncio.to_thread(self._read))
            except FleetError as error:
                logger.warning("lanes not read error=%s", type(error).__name__)
            await asyncio.sleep(READ_EVERY_S * (0.75 + 0.5 * self._share()))

    def _read(
        self,
    ) -> tuple[Mapping[Way, LaneFacts], Mapping[Begun, LaneFacts], Mapping[str, LaneFacts], Collection[str]]:
        url = state_url(self._settings)
        apis = {"/".join(call) for pool in self._settings.pools for call in self._settings.calls_of(pool)}
        timed = [timed_as(api, lane) for api in apis for lane in LATER]
        with connect(url, timeout_s=self._settings.redis.socket_timeout_s) as state, store_errors(url):
            now_s = float(state.time()[0])
            learnt, prefixes = read_learnt(state, now_s), read_prefixes(state, now_s)
            return learnt, prefixes, read_times(state, timed), read_shut(state, now_s)
