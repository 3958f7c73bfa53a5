"""Calls that say by when they are needed: which lane each takes, and those that leave for a batch and come back.

How prices and times decide is `fleet/economy/lanes/`; what becomes of a batch is `fleet/engine/process/batching/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from fleet.batches import Leaving
from fleet.usage import Usage
from fleet.workers.calls import Call, Completion
from fleet.workers.errands import Errand
from fleet.workers.passage import Passages
from fleet.workers.ports import BatchingProvider, Lanes
from fleet.workers.roads import Roads

#: The tier by which calls of a batch are priced.
BATCH = "batch"
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


class LaneRoads:
    """The lanes of a process's calls. Belongs to its loop.

    Args:
        lanes: Chooses, and keeps what leaves.
        passages: Its keys and prices.
        roads: Who counts its calls.
        now_s: Unix time in seconds.
    """

    def __init__(self, lanes: Lanes, passages: Passages, roads: Roads, now_s: Callable[[], float]) -> None:
        self._lanes, self._passages, self._roads, self._now_s = lanes, passages, roads, now_s

    async def take(self, errand: Errand, call: Call) -> Completion | str | None:
        """Return the tier that a call takes (None: the usual one), or the answer with which it is back from a batch.

        Raises:
            NotSoon: It leaves for a batch, or is in one.
            StoreUnavailable: Redis does not answer.
        """
        by_at, provider = call.wishes.by_at or 0.0, errand.route.provider
        may_leave = call.wishes.may_leave and isinstance(provider, BatchingProvider)
        if may_leave and isinstance(provider, BatchingProvider):
            came = await self._lanes.came(errand.meter.who)
            if came:
                return self._back(errand, call, provider, came)
            may_leave = came is None and self._may_leave(errand, call)
        lane = self._lanes.lane(
            errand.pool, errand.route.priced_as, errand.caller.kind, input_tokens=errand.most.input_tokens,
            output_tokens=errand.most.output_tokens, by_s=by_at - self._now_s(), may_batch=may_leave,
            prefix=prefix_of(call),
        )  # fmt: skip
        if lane == BATCH and isinstance(provider, BatchingProvider):
            await self._leave(errand, call, provider, by_at)
        return None if lane == "standard" else lane

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

    def _may_leave(self, errand: Errand, call: Call) -> bool:
        """True when nothing counts a call beforehand that only its grant could hold: then it had better not be late."""
        meter, most = errand.meter, errand.most
        if call.wishes.extra_headers or self._roads.counts(errand.pool, errand.caller, meter.who):
            return False
        if meter.most_picos is None:
            return True
        picos, _ = self._passages.priced(errand.route, most, BATCH)
        return picos is not None and picos <= meter.most_picos - (meter.cost_usd_picos or 0)

    def _back(self, errand: Errand, call: Call, provider: BatchingProvider, came: bytes) -> Completion:
        """Return an answer that has come; it is in the bill by now, and the task is charged with it."""
        answer = replace(provider.later_answer(call, came), tier=BATCH)
        usage: Usage = answer.usage
        picos, _ = self._passages.priced(errand.route, usage, BATCH)
        self.used(errand.route.priced_as, replace(call, wishes=replace(call.wishes, tier=BATCH)), usage)
        errand.meter.calls += 1
        errand.meter.charge(usage, picos)
        return answer
