"""Calls that say by when they are needed: which lane each takes, and those that leave for a batch and come back.

How prices and times decide is `fleet/economy/lanes/`; what becomes of a batch is `fleet/engine/process/batching/`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import pydantic_core

from fleet.batches import Arrived, BackgroundApi, Leaving
from fleet.errors import BadRequest, FleetError, NotServed, Waits
from fleet.grants import Grant
from fleet.usage import Usage
from fleet.workers.calls import Call, Completion
from fleet.workers.costs import Line
from fleet.workers.errands import Errand
from fleet.workers.meter import Meter
from fleet.workers.passage import Passages
from fleet.workers.ports import BatchingProvider
from fleet.workers.providers.usage import read_told_usage
from fleet.workers.roads import Roads
from fleet.workers.rungs import Route, Rung

logger = logging.getLogger(__name__)

#: The tier by which calls of a batch are priced.
BATCH = "batch"
#: How lanes of background responses begin; their window follows.
BACKGROUND = "background-"
#: Characters that messages before the last one have at least for a cache to hold them: about 1,024 tokens.
LEAST_PREFIX_CHARS = 3000
#: Hexadecimal digits of a beginning's name: 96 bits.
PREFIX_DIGITS = 24
#: By what OpenAI is told which calls begin alike.
CACHE_KEY = "prompt_cache_key"


def named_prefix(prefix: str, extra_body: Mapping[str, object]) -> str:
    """Return the name of how a task's calls begin, by its documents or its own `prompt_cache_key`; empty: by neither.

    Args:
        prefix: Name of its documents; empty: it has none.
        extra_body: Further fields of its requests.
    """
    own = extra_body.get(CACHE_KEY) if extra_body else None
    return prefix if prefix or not isinstance(own, str) else _digest(own)


def prefix_of(call: Call) -> str:
    """Return the name of how a call begins; empty: nobody needs to know.

    By its documents or `prompt_cache_key`; else, where it says by when it is needed, by all that stands before its last
    message, if that is long enough for a cache.
    """
    wishes = call.wishes
    named = named_prefix(wishes.prefix, wishes.extra_body)
    leading = call.messages[:-1]
    if named or wishes.by_at is None or sum(len(one.text) for one in leading) < LEAST_PREFIX_CHARS:
        return named
    tools = (tool.model_dump_json() for tool in wishes.tools)
    schema = "" if wishes.schema is None else wishes.schema.text
    return _digest("\0".join((*tools, schema, *(one.model_dump_json() for one in leading))))


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:PREFIX_DIGITS]


class Lanes(Protocol):
    """Which way to its model a call takes."""

    def lane(
        self, pool: str, api: str, kind: str, *, input_tokens: int, output_tokens: int, by_s: float, may_batch: bool,
        prefix: str = "", besides: Collection[str] = (),
    ) -> str:  # fmt: skip
        """Return the lane that a call takes: `batch`, `standard`, or the service tier by that name. Never waits.

        Args:
            pool: Whose call it is.
            api: `provider/model`.
            kind: Task class.
            input_tokens: By estimate.
            output_tokens: Of the longest answer.
            by_s: Seconds until the answer is needed.
            may_batch: Its task may leave its slot, and come back hours later.
            besides: Lanes that it cannot take, whatever they cost.
            prefix: Name of how it begins; empty: nobody knows it by that.
        """
        ...

    def used(self, api: str, tier: str | None, prefix: str, usage: Usage) -> None:
        """Note what a call of a beginning has used on a lane. Never waits, never raises."""
        ...

    def busy(self, api: str, tier: str) -> None:
        """Note that a tier had no room for a call. Never waits, never raises."""
        ...

    async def leave(self, leaving: Leaving) -> None:
        """Let a call leave for a batch.

        Raises:
            NotSoon: It has left: its task is to wait.
            StoreUnavailable: Redis does not answer.
        """
        ...

    async def begun(self, leaving: Leaving, batch: str) -> None:
        """Note that a call is answered in the background, as what is named so at its vendor.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        ...

    def lacks(self, api: str, lane: str) -> None:
        """Note that an API has no such lane: calls leave it alone for an hour. Never waits, never raises."""
        ...

    async def came(self, task: str) -> Arrived | None:
        """Return with what a task's call is back; None: it has not left.

        Raises:
            NotSoon: It is on its way.
            StoreUnavailable: Redis does not answer.
        """
        ...

    async def unread(self, task: str) -> None:
        """Note that nobody can read the answer with which a task's call is back: it has come with none.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        ...


class _Later:
    """A request that is answered later, for its settlement: `passage.Sent`."""

    is_cut = False

    def cut(self) -> tuple[Usage, bool]:
        return Usage(), False

    def believed(self, usage: Usage) -> Usage:
        return usage


_LATER = _Later()


class LaneRoads:
    """The lanes of a process's calls. Belongs to its loop.

    Args:
        lanes: Chooses, and keeps what leaves.
        passages: Its keys and prices.
        roads: Who counts its calls.
        ladder_of: Returns the rungs of a pool.
        now_s: Unix time in seconds.
    """

    def __init__(
        self, lanes: Lanes, passages: Passages, roads: Roads, ladder_of: Callable[[str], Sequence[Rung]],
        now_s: Callable[[], float],
    ) -> None:  # fmt: skip
        self._lanes, self._passages, self._roads, self._now_s = lanes, passages, roads, now_s
        self._ladder_of = ladder_of

    async def take(self, errand: Errand, call: Call) -> Completion | str | None:
        """Return the tier that a call takes (None: the usual one), or the answer with which it is back from a batch.

        Raises:
            NotSoon: It leaves for a batch, or is in one.
            StoreUnavailable: Redis does not answer.
        """
        by_at, provider = call.wishes.by_at or 0.0, errand.route.provider
        came = await self._lanes.came(errand.meter.who) if call.wishes.may_be_back else None
        errand.meter.raced = ""
        if came is not None and came.body:  # whoever would serve now: it is paid
            answer = await self._back(errand, call, came)
            if answer is not None:
                return answer
        elif came is not None and came.is_raced:
            errand.meter.raced = came.lane
        may_leave = call.wishes.may_leave and came is None and isinstance(provider, BatchingProvider)
        may_leave, besides = may_leave and self._may_leave(errand, call), set[str]()
        while True:
            lane = self._lanes.lane(
                errand.pool, errand.route.priced_as, errand.caller.kind, input_tokens=errand.most.input_tokens,
                output_tokens=errand.most.output_tokens, by_s=by_at - self._now_s(), may_batch=may_leave,
                prefix=prefix_of(call), besides=besides,
            )  # fmt: skip
            if lane == BATCH and isinstance(provider, BatchingProvider):
                await self._leave(errand, call, provider, by_at)
            if not lane.startswith(BACKGROUND):
                return None if lane == "standard" else lane
            besides.add(lane)
            if await self._begin(errand, call, lane, by_at):
                came, may_leave = await self._lanes.came(errand.meter.who), False  # it is on its way, nearly always
                answer = await self._back(errand, call, came) if came is not None and came.body else None
                if answer is not None:
                    return answer

    def used(self, api: str, call: Call, usage: Usage) -> None:
        """Note what an answered call has used, if it is known how it begins. Never waits."""
        prefix = prefix_of(call)
        if prefix:
            self._lanes.used(api, call.wishes.tier, prefix, usage)

    def busy(self, api: str, tier: str) -> None:
        """Note that a tier had no room for a call."""
        self._lanes.busy(api, tier)

    async def _leave(self, errand: Errand, call: Call, provider: BatchingProvider, by_at: float) -> None:
        """Let a call leave for a batch, under one key to its end. Raises `NotSoon`."""
        caller, route = errand.caller, errand.route
        key = self._passages.keys.of(route, errand, ())[0]
        most_picos, _ = self._passages.priced(route, errand.most, BATCH)
        await self._lanes.leave(
            Leaving(
                errand.meter.who, errand.pool, caller.bot, caller.tenant, caller.kind, caller.run, key.limit, by_at,
                provider.later_body(call), most_picos,
            )
        )  # fmt: skip

    async def _begin(self, errand: Errand, call: Call, lane: str, by_at: float) -> bool:
        """Let a call be answered in the background, under a grant of its own; False: it cannot be.

        What was sent and not answered is unknown, and on the bill as any such call: there is no list to find it in.

        Raises:
            FleetError: As `Passages.go`.
        """
        provider = errand.route.provider
        api = provider.batches(lambda: "") if isinstance(provider, BatchingProvider) else None
        if not isinstance(provider, BatchingProvider) or not isinstance(api, BackgroundApi):
            return False
        body = provider.later_body(replace(call, wishes=replace(call.wishes, tier=None)))
        if not api.takes(body):
            return False
        try:
            await self._passages.go(
                replace(errand, tier=lane), partial(self._send, body, lane, by_at), lambda _: 0
            )  # fmt: skip
        except (BadRequest, NotServed) as error:
            if not (isinstance(error, BadRequest) and error.blame == "prompt"):
                self._lanes.lacks(errand.route.priced_as, lane)
            return False
        return True

    async def _send(self, body: bytes, lane: str, by_at: float, errand: Errand, grant: Grant, line: Line) -> None:
        """Send the request of a call that is answered later, and note it before its grant is settled."""
        caller, route, provider = errand.caller, errand.route, errand.route.provider
        with self._passages.settling(errand, grant, line, _LATER) as settlement:
            if isinstance(provider, BatchingProvider):
                api = provider.batches(lambda: route.api_key)
                if isinstance(api, BackgroundApi):
                    sent = await api.begin(body, lane.removeprefix(BACKGROUND))
                    most_picos, _ = self._passages.priced(route, errand.most, lane)
                    leaving = Leaving(
                        errand.meter.who, errand.pool, caller.bot, caller.tenant, caller.kind, caller.run, route.limit,
                        by_at, b"", most_picos, lane, grant.ticket,
                    )  # fmt: skip
                    await self._lanes.begun(leaving, sent)
            settlement.left()

    def _may_leave(self, errand: Errand, call: Call) -> bool:
        """True when nothing counts a call beforehand that only its grant could hold: then it had better not be late."""
        meter, most = errand.meter, errand.most
        if call.wishes.extra_headers or self._roads.counts(errand.pool, errand.caller, meter.who):
            return False
        if meter.most_picos is None:
            return True
        costs = (self._passages.priced(errand.route, most, tier)[0] for tier in (BATCH, None))
        picos = next((one for one in costs if one is not None), None)
        return picos is not None and picos <= meter.most_picos - (meter.cost_usd_picos or 0)

    async def _back(self, errand: Errand, call: Call, came: Arrived) -> Completion | None:
        """Return an answer that has come, read by whoever was asked; None: nobody can read it, so it is asked anew.

        It is in the bill by now, and the task is charged with it.
        """
        meter, route = errand.meter, self._asked(errand.pool, came.limit)
        if route is None or not isinstance(route.provider, BatchingProvider):
            await self._unread(errand, came, "its pool has no such API any more")
            return None
        meter.calls += 1
        try:
            answer = route.provider.later_answer(replace(call, model=route.model), came.body)
        except FleetError as error:
            self._charge(meter, route, error.usage or _told(came.body), came.lane)
            if not isinstance(error, Waits):
                raise
            await self._unread(errand, came, type(error).__name__)
            return None
        self._charge(meter, route, answer.usage, came.lane)
        self.used(route.priced_as, replace(call, wishes=replace(call.wishes, tier=came.lane)), answer.usage)
        return replace(answer, tier=came.lane, came_by=came.limit)

    async def _unread(self, errand: Errand, came: Arrived, why: str) -> None:
        logger.warning("batch_answer_unread task=%s limit=%s: %s; it is asked anew", errand.task, came.limit, why)
        await self._lanes.unread(errand.task)

    def _asked(self, pool: str, limit: str) -> Route | None:
        routes = (rung.route for rung in self._ladder_of(pool))
        return next((route for route in routes if route is not None and limit in route.limits), None)

    def _charge(self, meter: Meter, route: Route, usage: Usage, lane: str) -> None:
        picos, _ = self._passages.priced(route, usage, lane)
        meter.charge(usage, picos)


def _told(body: bytes) -> Usage:
    """Return what an answer says that it used, whatever else it says."""
    told = pydantic_core.from_json(body)
    return read_told_usage(told.get("usage") if isinstance(told, dict) else None) or Usage()
