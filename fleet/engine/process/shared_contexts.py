"""What a task that names documents needs before a bot is checked out for it, and what the gateway needs while it works.

They must be stored, a bot must have room for them, and where no key's cache has them one task goes first: the others
wait in Redis and hold no slot. Tasks that name no document never come here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fleet.cached_lengths import least_cached_tokens
from fleet.config import PoolSettings, Settings
from fleet.conversation import Kept
from fleet.economy.contexts.keeping import cache_cost, keeping
from fleet.economy.contexts.reads import ReadCounter
from fleet.economy.contexts.shelf import Documents, Shelf
from fleet.economy.contexts.warmth import LONG_S, SHORT_S, Warmth
from fleet.economy.prices import Price
from fleet.engine.outcomes.results import Done
from fleet.engine.transport.parking.opening import open_early, open_some
from fleet.errors import DocumentsTooLarge, FleetError, NotSoon
from fleet.models import BotTask
from fleet.roster import WantedBot
from fleet.store import keys
from fleet.store.patience import patiently
from fleet.store.running.brokers import AnyStore
from fleet.usage import Usage
from fleet.waits import Wait

logger = logging.getLogger("fleet.worker")

#: Share of the documents' tokens, by estimate, that a call must have read to have met them in the cache.
READ_SHARE = 0.4
#: Beginnings of which it is kept what stands in them (count).
MOST_NAMED = 10_000
#: Seconds over which those look again who wait for a task whose worker may have died: the first of them goes first.
SPREAD_S = 30.0
#: Seconds after which those are opened who wait for an answer that has begun: who had looked just before that is parked
#: just after it, and would wait for its own time.
OPEN_AFTER_S = (0.0, 1.0, 5.0)

#: Classes of usage that there would not be without a cache.
OF_CACHE = (
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cached_audio_tokens",
    "cached_image_tokens",
)
#: Tokens beside its documents that a task's bot has room for at least, if the task has as many: the rest may be cut.
BESIDE_TOKENS = 512


class SharedContexts:
    """The documents of tasks, as far as the data plane is concerned. One per process, on its loop.

    Args:
        settings: Pools, their windows and the longest answers.
        shelf: Has the documents.
        room_of: Returns the tokens for a conversation: (pool, window, longest answer).
        tokens_of: Estimates the tokens of a task's own conversation.
        warmth: Knows which keys' caches have which beginnings of prompts.
        limits_of: Returns the limits under which a pool's next calls may go.
        models: The model of each limit.
        reads: Counts what calls read from providers' caches.
        price: Cost of one call.
        broker: Where tasks wait.
    """

    def __init__(
        self,
        settings: Settings,
        shelf: Shelf,
        *,
        room_of: Callable[[str, int, int], int],
        tokens_of: Callable[[BotTask], int],
        warmth: Warmth,
        limits_of: Callable[[str], Sequence[str]],
        models: Mapping[str, str],
        reads: ReadCounter,
        price: Price,
        broker: AnyStore,
        has_left: Callable[[str], Coroutine[Any, Any, bool]],
    ) -> None:
        self._pools = settings.pools
        self._shelf = shelf
        self._warmth = warmth
        self._limits_of = limits_of
        self._models = models
        #: Limits whose provider keeps for as long as it is told.
        self._kept = {limit for limit in models if settings.provider_named(limit.split("/")[0]).kind == "anthropic"}
        self._broker, self._has_left = broker, has_left
        #: Tasks that go first: what others are told to wait for.
        self._first: dict[tuple[str, str], str] = {}
        #: Those whose first call reads nothing, and the first document and the tokens behind a beginning's name.
        self._cold: set[tuple[str, str]] = set()
        self._named: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._reads, self._price = reads, price
        self._jobs: set[asyncio.Future[None]] = set()
        self._room_of = room_of
        self._tokens_of = tokens_of

    async def enter(self, task: BotTask, pool: str, task_id: str) -> WantedBot:
        """Return what the bot of a task must be like; `leave` must follow.

        Raises:
            NotStored: A document is not there: the task waits.
            NotSoon: Another task sends the documents first.
            InvalidTask: One is another tenant's.
            DocumentsTooLarge: No bot of the pool has a window for them.
        """
        shared = await patiently(lambda: self._shelf.opened(task.context, task.tenant))
        settings = self._pools[pool]
        needed = shared.tokens + min(BESIDE_TOKENS, self._tokens_of(task))
        answer = task.max_output_tokens or settings.max_output_tokens
        rooms = {w: self._room_of(pool, w, answer) for w in sorted(set(settings.persona.context_windows_tokens))}
        fitting = [window for window, room in rooms.items() if room >= needed]
        if not fitting:
            raise _too_large(pool, settings, shared.tokens, needed, max(rooms.values()))
        limits = [
            one for one in self._limits_of(pool) if shared.tokens >= least_cached_tokens(self._models.get(one, ""))
        ]
        is_back = task.by_s is not None and await patiently(lambda: self._has_left(task_id))
        if is_back or not limits:  # back from a batch: no cache is of use to it any more
            return WantedBot(fitting[0])
        start = await patiently(lambda: self._warmth.look(task.prefix, task_id, limits))
        if start.waits_until is not None:
            at = start.waits_until + random.random() * SPREAD_S
            raise NotSoon(Wait("warming", at, about=task.context[0], is_everyones=False))
        self._named[task.prefix] = task.context[0], shared.tokens
        while len(self._named) > MOST_NAMED:
            self._named.popitem(last=False)
        if self._warmth.goes_first_under(task.prefix, task_id):
            self._first[task.prefix, task_id] = task.context[0]
            self._cold.add((task.prefix, task_id))
        of_models = bool(settings.persona.models) and start.limit in self._models
        return WantedBot(fitting[0], frozenset({self._models[start.limit]}) if of_models else frozenset())

    def leave(self, task: BotTask, task_id: str, done: object) -> None:
        """Let another task go first if this one was to and has no answer yet. Never waits.

        Args:
            task: That was entered.
            task_id: Its id.
            done: What came of it: a `Done` when it has ended.
        """
        result = done.result if isinstance(done, Done) else None
        limit = self._warmth.goes_first_under(task.prefix, task_id)
        if limit and result is not None and result.status != "failed":  # its function called a model in another way
            self.begun(task.prefix, limit, task_id)
        else:
            self._warmth.leave(task.prefix, task_id, failed=result is not None)
            if limit:
                self._do(self._open(task.context[0], most=1))  # another one is to go first
        self._first.pop((task.prefix, task_id), None)
        self._cold.discard((task.prefix, task_id))

    async def opened(self, ids: Sequence[str], tenant: str) -> Documents:
        """Return the documents that a task names; as `Shelf.opened`."""
        return await self._shelf.opened(ids, tenant)

    def limits(self, prefix: str, who: str) -> tuple[str, ...]:
        """Return the limits whose keys' caches have a beginning; as `Warmth.limits`."""
        return self._warmth.limits(prefix, who)

    def is_first(self, prefix: str, who: str) -> bool:
        """True for the task for the beginning of whose answer others wait."""
        return bool(self._warmth.goes_first_under(prefix, who))

    def begun(self, prefix: str, limit: str, who: str) -> None:
        """Note that an answer has begun, and let those go that wait for it. Never waits."""
        about = self._first.pop((prefix, who), "")
        kept_s = LONG_S if limit in self._kept and self.keeps(prefix, limit) == "1h" else SHORT_S
        if self._warmth.begun(prefix, limit, who, kept_s=kept_s) and about:
            for after_s in OPEN_AFTER_S:
                asyncio.get_running_loop().call_later(after_s, lambda: self._do(self._open(about)))

    def keeps(self, prefix: str, limit: str) -> Kept | None:
        """Return how long a provider is to keep a beginning, by its prices and how answers have followed each other."""
        return keeping(*self._warmth.habits(prefix), cache_cost(self._price, limit.rpartition("/")[0]))

    def came(self, prefix: str, limit: str, who: str, usage: Usage, tier: str | None) -> None:
        """Note a whole answer: what its call has read from the provider's cache, and the tier. Never waits."""
        self.begun(prefix, limit, who)
        if (named := self._named.get(prefix)) is not None:
            is_cold = (prefix, who) in self._cold
            self._cold.discard((prefix, who))
            has_read = usage.cached_tokens >= named[1] * READ_SHARE
            self._reads.count(
                named[0], limit, "hit" if has_read else "cold" if is_cold else "missed",
                read_tokens=usage.cached_tokens, saved_picos=self._saved(limit, usage, tier),
            )  # fmt: skip

    def _saved(self, limit: str, usage: Usage, tier: str | None) -> int:
        """Return what a call would have cost more without a cache, in 10^-12 dollars; 0 where it has no price."""
        api = limit.rpartition("/")[0]
        without = usage.model_copy(update=dict.fromkeys(OF_CACHE, 0))
        whole, paid = self._price(api, without, tier), self._price(api, usage, tier)
        return 0 if whole is None or paid is None else whole - paid

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _open(self, about: str, *, most: int = 0) -> None:
        """Open what waits for the cache, at most so many of each pool (0: all); the rest opens at its own time."""
        for pool in self._pools:
            try:
                if most:
                    await open_some(self._broker, keys.queue(pool), about=about, causes=("warming",), most=most)
                else:
                    await open_early(self._broker, keys.queue(pool), about=about, causes=("warming",))
            except FleetError as error:
                logger.warning("not opened early pool=%s about=%s error=%s", pool, about, error)


def _too_large(pool: str, settings: PoolSettings, tokens: int, needed: int, room: int) -> DocumentsTooLarge:
    largest = max(settings.persona.context_windows_tokens)
    return DocumentsTooLarge(
        f"context: expected documents that fit a bot of pool {pool} whole, got {tokens:,} tokens of them ({needed:,} "
        f"with the prompt) for {max(0, room):,} of the largest window, {largest:,}, less the answer; they are never "
        f"cut: name fewer, or raise pools.{pool}.persona.context_windows_tokens as far as its model allows"
    )
