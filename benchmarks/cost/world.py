"""Virtual time: Fleet's own calls, answered and billed by the simulator's own cache and ledger, on a clock that is set.

What is real: the bot and its prompt, the gateway, the choice of key and lane, the bodies of both wires; and on the
other side wire, prefix cache, answers and ledger. What is not there: HTTP, Redis, Celery, limits, failures, delays. An
answer comes at once, so a prompt is in the cache as soon as it was sent: storms on a cold cache are `contexts`' part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydantic_core
from yarl import URL

from fleet.batches import Arrived, Leaving
from fleet.config import Settings
from fleet.conversation import Kept
from fleet.economy.contexts.keeping import CacheCost, cache_cost, keeping
from fleet.economy.contexts.shelf import Documents
from fleet.economy.contexts.warmth import LONG_S, SHORT_S
from fleet.economy.lanes.choice import LaneFacts, Way
from fleet.economy.prices import PriceList
from fleet.engine.process.lanes import LaneChooser
from fleet.errors import NotSoon, Waits
from fleet.grants import Grant
from fleet.models import BotTask, bot_name
from fleet.outcome import NOTHING_BEFORE
from fleet.store.client import Store
from fleet.usage import Usage
from fleet.waits import Ruling, Wait
from fleet.workers import context
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.inquiry import MustWait
from fleet.workers.bot.persona import worker_bot_of
from fleet.workers.calls import Call, Completion
from fleet.workers.context import count_tokens
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway
from fleet.workers.providers import usage as usage_reading
from fleet.workers.providers.anthropic import Anthropic
from fleet.workers.providers.openai_compatible import OpenAICompatible
from fleet.workers.rungs import Route
from fleet.workers.simulator.batch.answering import BATCH, LaterCall, answer_later
from fleet.workers.simulator.ledger import Account, Ledger, Served
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.rich.model import SimulatedModel
from fleet.workers.simulator.wires import anthropic_wire, openai_wire, wire
from fleet.workers.simulator.wires.anthropic_wire import AnthropicWire
from fleet.workers.simulator.wires.kept_responses import KeptResponses
from fleet.workers.simulator.wires.openai_wire import OpenAIWire
from fleet.workers.simulator.wires.wire import Wire
from tests.workers.fakes import FakeBreakers, FakeLimiter

#: Where the worlds begin: Unix time in seconds.
BEGIN_S = 1_790_000_000.0
#: The pool of all tasks, and its bots.
POOL, BOTS = "research", 100
#: Real seconds that a task has at most.
PATIENCE_S = 600.0
#: Texts whose tokens are kept (count): of 11 kB each, mostly.
COUNTS_KEPT = 2000


def share_counts() -> None:
    """Let Fleet and the simulator of this process count the tokens of equal texts once, together.

    Both estimate by the same function, at half of what a call in virtual time takes; what it says stays the same.
    """
    counted = lru_cache(maxsize=COUNTS_KEPT)(count_tokens)
    for module in (context, usage_reading, wire, openai_wire, anthropic_wire):
        vars(module)["count_tokens"] = counted


@dataclass(frozen=True, slots=True)
class PriceTable:
    """What a model costs, per million tokens.

    Args:
        name: Of the model whose list price it is.
        kind: Wire of its vendor: `openai` or `anthropic`.
        usd: Prices by the name of the simulator's option.
        flex: Its tier `flex` against the usual one; None: it is not sold so.
        batch: The same of its batches.
        batch_cached: The same of what is read from the cache in a batch; None: as `batch`.
    """

    name: str
    kind: str
    usd: Mapping[str, float] = field(hash=False)
    flex: float | None = 0.5
    batch: float = 0.5
    batch_cached: float | None = None

    def options(self, answers: Path | None = None, **more: Any) -> SimulatorOptions:
        """Return what a simulator that sells it is told."""
        prices: dict[str, Any] = {f"{name}_usd_per_mtok": usd for name, usd in self.usd.items()}
        return SimulatorOptions(
            answers=answers, flex_factor=self.flex or 1.0, batch_factor=self.batch,
            batch_cached_factor=self.batch_cached, **prices, **more,
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Return what Fleet is told under [prices]."""
        usd = {f"{name}_usd_per_mtok": price for name, price in self.usd.items()}
        batch = {name: price * self.batch for name, price in usd.items()}
        if self.batch_cached is not None:
            batch["cached_usd_per_mtok"] = usd["cached_usd_per_mtok"] * self.batch_cached
        flex = {} if self.flex is None else {"flex": {name: price * self.flex for name, price in usd.items()}}
        return {**usd, "tiers": {"batch": batch, **flex}}


class Bills(Ledger):
    """A ledger that other price lists bill beside."""

    def __init__(self, options: SimulatorOptions, beside: Mapping[str, SimulatorOptions]) -> None:
        super().__init__(options)
        self.beside = {name: Ledger(one) for name, one in beside.items()}

    def serve(self, account: Account, spent: Served) -> None:
        super().serve(account, spent)
        for ledger in self.beside.values():
            ledger.serve(ledger.account("all"), spent)


class Vendor:
    """The simulator without HTTP: answers one body at the time of the clock.

    Args:
        tables: What bills each answer; the first is the one that Fleet knows.
        options: Of the simulator.

    Attributes:
        now_s: Its clock, Unix time in seconds.
        tier: By which all answers are billed; None: by the tier that a request names.
    """

    def __init__(self, tables: Sequence[PriceTable], answers: Path | None, **options: Any) -> None:
        self.options = tables[0].options(answers, **options)
        self._bills = Bills(self.options, {one.name: one.options() for one in tables[1:]})
        self.ledger: Ledger = self._bills
        self.model = SimulatedModel(self.options)
        self.kept = KeptResponses()
        self.now_s = BEGIN_S
        self.tier: str | None = None
        self._name = tables[0].name
        self._wire: Wire = AnthropicWire() if tables[0].kind == "anthropic" else OpenAIWire()

    def answer(self, raw: bytes, key: str, tier: str | None = None) -> bytes:
        """Return the body of the answer to a request; booked at the price of the tier that it names, or of this one."""
        body = pydantic_core.from_json(raw)
        billed_as = tier or self.tier or body.get("service_tier") or ""
        came = answer_later(self, LaterCall(self._wire, key, body, billed_as, self.now_s))
        if came is None or came.status != 200:
            raise AssertionError(f"expected an answer of the simulator, got {came}")
        return pydantic_core.to_json(came.body)

    def usd(self) -> dict[str, float]:
        """Return what each price list has billed."""
        ledgers = {self._name: self.ledger, **self._bills.beside}
        return {name: one.report()["total"]["billed_usd_picos"] / 1e12 for name, one in ledgers.items()}


class _OpenAI(OpenAICompatible):
    vendor: Vendor

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        return self.later_answer(call, self.vendor.answer(self.later_body(call), api_key))


class _Anthropic(Anthropic):
    vendor: Vendor

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        return self.later_answer(call, self.vendor.answer(self.later_body(call), api_key))


@dataclass
class _Shelf:
    """Documents in memory, and when their answers followed each other: `fleet.workers.ports.Contexts`."""

    vendor: Vendor
    texts: Mapping[str, Documents]
    cost: CacheCost
    last: dict[str, float] = field(default_factory=dict)
    habits: dict[str, list[int]] = field(default_factory=dict)
    warm: dict[tuple[str, str], float] = field(default_factory=dict)

    async def opened(self, ids: Sequence[str], tenant: str) -> Documents:
        return self.texts[ids[0]]

    def limits(self, prefix: str, who: str) -> tuple[str, ...]:
        return tuple(limit for (one, limit), until in self.warm.items() if one == prefix and until > self.vendor.now_s)

    def is_first(self, prefix: str, who: str) -> bool:
        return False

    def keeps(self, prefix: str, limit: str) -> Kept | None:
        short, long, later = self.habits.get(prefix, (0, 0, 0))
        return keeping(short, long, later, self.cost)

    def begun(self, prefix: str, limit: str, who: str) -> None:
        now_s = self.vendor.now_s
        gap = now_s - self.last.get(prefix, now_s)
        self.habits.setdefault(prefix, [0, 0, 0])[0 if gap <= SHORT_S else 1 if gap <= LONG_S else 2] += 1
        self.last[prefix] = now_s
        self.warm[prefix, limit] = now_s + (LONG_S if self.keeps(prefix, limit) == "1h" else SHORT_S)

    def came(self, prefix: str, limit: str, who: str, usage: Usage, tier: str | None) -> None:
        self.begun(prefix, limit, who)


class _Lanes:
    """Fleet's own choice; what leaves for a batch is kept here and not in Redis: `fleet.workers.ports.Lanes`."""

    def __init__(self, chooser: LaneChooser) -> None:
        self.chooser = chooser
        self.left: list[Leaving] = []
        self.answers: dict[str, Arrived] = {}

    def lane(self, pool: str, api: str, kind: str, **asked: Any) -> str:
        return self.chooser.lane(pool, api, kind, **asked)

    async def unread(self, task: str) -> None:
        raise AssertionError(f"expected an answer that can be read, got another one for {task}")

    async def begun(self, leaving: Leaving, batch: str) -> None:
        raise AssertionError(f"expected no lane of background responses, as none has a price here, got {leaving.lane}")

    def lacks(self, api: str, lane: str) -> None:
        raise AssertionError(f"expected an API that has {lane}")

    def used(self, api: str, tier: str | None, prefix: str, usage: Usage) -> None:
        pass

    def busy(self, api: str, tier: str) -> None:
        self.chooser.busy(api, tier)

    async def leave(self, leaving: Leaving) -> None:
        self.left.append(leaving)
        raise NotSoon(Wait("batch", leaving.by_at, leaving.limit, is_everyones=False))

    async def came(self, task: str) -> Arrived | None:
        return self.answers.pop(task, None)


class _Limits(FakeLimiter):
    """No limit is in reach, and nothing is noted."""

    async def acquire(self, limit: str | Sequence[str], *, tokens: int, **_: Any) -> Grant:
        return Grant(limit if isinstance(limit, str) else limit[0], tokens)

    def settle(self, grant: Grant, **_: Any) -> None:
        pass


class _Breakers(FakeBreakers):
    """All are closed, and nothing is noted."""

    def did_well(self, limit: str, **_: Any) -> None:
        pass

    async def failed(self, limit: str, error: Waits, **_: Any) -> Ruling:
        raise AssertionError("expected no call to fail") from error


class World:
    """A pool of bots before one vendor.

    Args:
        vendor: Who answers.
        table: Its prices, as Fleet knows them.
        keys: Labels of Fleet's keys.
        documents: What tasks may name, by id.
        learnt: What is known of lanes.
        times: What is known of the times of batches, by `provider/model`.
        pool: More settings of the pool.
    """

    def __init__(
        self,
        vendor: Vendor,
        table: PriceTable,
        *,
        keys: Sequence[str] = ("default",),
        documents: Mapping[str, str] | None = None,
        learnt: Mapping[Way, LaneFacts] | None = None,
        times: Mapping[str, LaneFacts] | None = None,
        pool: Mapping[str, Any] | None = None,
    ) -> None:
        self.vendor, self.api = vendor, f"api/{table.name}"
        persona = {"context_windows_tokens": [1_000_000]}
        own = {"bots": BOTS, "provider": "api", "model": table.name, "persona": persona, "max_output_tokens": 400}
        self.settings = Settings.model_validate(
            {
                "providers": {"api": {"kind": table.kind, "base_url": "https://api.openai.com/v1"}},
                "prices": {self.api: table.settings()},
                "limits": {self.api: {"rpm": 1_000_000}},
                "pools": {POOL: {**own, **(pool or {})}},
            }
        )
        made = (_Anthropic if table.kind == "anthropic" else _OpenAI)(URL("https://api.openai.com/v1"), name="api")
        made.vendor = vendor
        ways = tuple(Route(made, "api", table.name, f"{self.api}/{key}", key, 600.0) for key in keys)
        route = ways[0] if len(ways) == 1 else Route(
            made, "api", table.name, ways[0].limit, ways[0].api_key, 600.0, keys=ways
        )  # fmt: skip
        price = PriceList(self.settings)
        self.gateway = Gateway(_Limits(), {POOL: route}, price, breakers=_Breakers(), clock=lambda: vendor.now_s)
        self.chooser = LaneChooser(
            self.settings, price, Store("redis://127.0.0.1:1"), norms_of=lambda pool, kind: None,
            clock=lambda: vendor.now_s,
        )  # fmt: skip
        self.chooser.take(learnt or {}, {}, times or {})
        self.lanes = _Lanes(self.chooser)
        self.gateway.take_lanes(self.lanes)
        self.gateway.contexts = _Shelf(
            vendor,
            {name: Documents(text, count_tokens(text)) for name, text in (documents or {}).items()},
            cache_cost(price, self.api),
        )

    async def ask(self, task: BotTask, number: int) -> str | None:
        """Return a bot's answer to a task; None: it has left for a batch, until it is asked again behind `back`."""
        bot = worker_bot_of(bot_name(POOL, number * 37 % BOTS + 1), self.settings)
        deadline = Deadline(asyncio.get_running_loop().time() + PATIENCE_S)
        context = BotContext(
            bot, task, self.settings.pools[POOL], gateway=self.gateway, deadline=deadline, share=lambda: 0.5,
            task_id=f"t{number}", before=NOTHING_BEFORE,
        )  # fmt: skip
        try:
            return str(await context.answer())
        except MustWait:
            return None

    def back(self, leaving: Leaving, *, is_freed: bool) -> None:
        """Let a task that has left go on when it is asked again: with an answer, or by another lane."""
        key = leaving.limit.rpartition("/")[2]
        body = b"" if is_freed else self.vendor.answer(leaving.body, key, BATCH)
        self.lanes.answers[leaving.task] = Arrived(leaving.limit, body)
