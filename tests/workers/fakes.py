"""A limiter and a provider in memory: peers of the real ones, with a ledger of what was asked of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from fleet.config import PoolSettings, Settings
from fleet.errors import DeadlineExceeded, FleetError, NotSoon, Waits
from fleet.grants import ANYBODY, Caller, Grant
from fleet.lessons import Notebook
from fleet.models import Bot
from fleet.rates import RateReadings
from fleet.usage import Usage
from fleet.waits import Ruling, Wait
from fleet.workers.bot.persona import make_bot
from fleet.workers.calls import Call, Completion
from fleet.workers.gateway import Gateway, Route
from fleet.workers.passage import Price
from fleet.workers.ports import Bill, CostShares
from fleet.workers.roads import Budgets

LIMIT = "api/model-1/default"


@dataclass
class FakeLimiter:
    """Grants at once, or after `wait_s`; `errors` are raised by the first calls instead (None: no error)."""

    wait_s: float = 0.0
    errors: list[FleetError | None] = field(default_factory=list)
    granted: list[Grant] = field(default_factory=list)
    settled: list[tuple[Grant, int]] = field(default_factory=list)
    holds: list[tuple[str, float]] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    readings: list[RateReadings | None] = field(default_factory=list)
    narrowed: list[tuple[str, int]] = field(default_factory=list)
    cached: list[int | None] = field(default_factory=list)
    let_go_of: list[Grant] = field(default_factory=list)
    is_listening: bool = True
    stands: Wait | None = None

    async def acquire(
        self,
        limit: str | Sequence[str],
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: float = 0,
        patience_s: float | None = None,
        note: str = "",
    ) -> Grant:
        limit = limit if isinstance(limit, str) else limit[0]
        self.callers.append(caller)
        await asyncio.sleep(0)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        if patience_s is not None and self.wait_s > patience_s:
            raise NotSoon(Wait("limit", about=limit))
        if self.wait_s > timeout_s:
            raise DeadlineExceeded("its turn comes later")
        await asyncio.sleep(self.wait_s)
        grant = Grant(limit, tokens, round(self.wait_s * 1000))
        self.granted.append(grant)
        return grant

    def settle(
        self,
        grant: Grant,
        *,
        used_tokens: int,
        used_output_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_usd_micros: float = 0,
    ) -> None:
        self.settled.append((grant, used_tokens))
        self.cached.append(cached_tokens)

    def standing(self, limit: str) -> Wait | None:
        return self.stands

    def penalise(self, limit: str, *, retry_after_s: float, told: str = "") -> None:
        self.holds.append((limit, retry_after_s))

    def narrow(self, limit: str, *, most: int = 0) -> None:
        self.narrowed.append((limit, most))

    def let_go(self, grant: Grant) -> None:
        self.let_go_of.append(grant)

    def listens(self, grant: Grant) -> bool:
        return self.is_listening

    def observe(self, grant: Grant, rates: RateReadings | None) -> None:
        self.readings.append(rates)

    @property
    def is_settled_once(self) -> bool:
        """True when every grant was settled, and none of them twice."""
        return sorted(map(id, self.granted)) == sorted(id(grant) for grant, _ in self.settled)


@dataclass
class FakeBreakers:
    """Closed, unless `waits` says otherwise, call by call; what a failure is made of it is told in `rulings` in turn.

    The last ruling holds for ever; without any nobody else did well, and nothing opens.
    """

    waits: list[Wait | None] = field(default_factory=list)
    rulings: list[Ruling] = field(default_factory=list)
    stands: Wait | None = None
    probes: bool = False
    failures: list[tuple[str, str, float, bool]] = field(default_factory=list)
    well: list[tuple[str, bool]] = field(default_factory=list)
    spared: int = 0
    answers: bool = False
    turns: list[float | None] = field(default_factory=list)
    asked: int = 0
    hangs: bool = False

    def is_answering(self, limit: str, *, within_s: float) -> bool:
        return self.answers

    def standing(self, limit: str) -> Wait | None:
        return self.stands

    def is_ramping(self, limit: str) -> bool:
        return False

    async def admit(self, limit: str) -> bool:
        wait = self.waits.pop(0) if self.waits else None
        if wait is not None:
            raise NotSoon(wait)
        return self.probes

    async def turn_in_silence(self, limit: str, *, left_s: float) -> float | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return self.turns.pop(0) if self.turns else 1.0

    def spare(self, limit: str) -> None:
        self.spared += 1

    def did_well(
        self, limit: str, *, who: str, seconds: float, output_tokens: int, place: int = 0, is_probe: bool = False
    ) -> None:
        self.well.append((who, is_probe))

    async def failed(
        self, limit: str, error: Waits, *, who: str, since_s: float, is_probe: bool, **_: object
    ) -> Ruling:
        self.failures.append((type(error).__name__, who, since_s, is_probe))
        if not self.rulings:
            return Ruling(None, 0.0, counts=0.0)
        return self.rulings.pop(0) if len(self.rulings) > 1 else self.rulings[0]


#: What a breaker says of a failure while calls of others were answered.
OTHERS_DID_WELL = Ruling(None, 0.0, counts=1.0)


class FakeProvider:
    """Answers with `replies` in turn, the last one for ever; an exception is raised, "hang" never ends."""

    def __init__(self, replies: Iterable[Completion | Exception | str], *, steps: int = 2) -> None:
        self._replies = self._endless(list(replies))
        self._steps = steps
        self.calls: list[Call] = []
        self.keys: list[str] = []

    @staticmethod
    def _endless(replies: list[Completion | Exception | str]) -> Iterator[Completion | Exception | str]:
        yield from replies
        yield from repeat(replies[-1])

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        self.calls.append(call)
        self.keys.append(api_key)
        reply = next(self._replies)
        for _ in range(self._steps):
            await asyncio.sleep(0)
        if isinstance(reply, Exception):
            raise reply
        if reply == "hang":
            await asyncio.Event().wait()
        return reply if isinstance(reply, Completion) else said(reply)

    async def close(self) -> None:
        return None


def said(text: str, *, finish_reason: str = "stop", input_tokens: int = 10, output_tokens: int = 5) -> Completion:
    return Completion(text, finish_reason, Usage(input_tokens=input_tokens, output_tokens=output_tokens))


def a_gateway(
    limiter: FakeLimiter,
    provider: FakeProvider,
    *,
    price: Price = lambda model, usage, tier: None,
    breakers: FakeBreakers | None = None,
    timeout_s: float = 60.0,
    others_are_answered: bool = True,
    costs: CostShares | None = None,
    lessons: Notebook | None = None,
    bill: Bill | None = None,
    clock: Callable[[], float] = time.time,
    budgets: Budgets | None = None,
) -> Gateway:
    route = Route(
        provider=provider, provider_name="api", model="model-1", limit=LIMIT, api_key="s3cret", timeout_s=timeout_s
    )
    breakers = breakers or FakeBreakers()
    breakers.answers = others_are_answered  # else a call that hangs is ended by its timeout alone
    return Gateway(
        limiter, {"research": route}, price, breakers=breakers, costs=costs, lessons=lessons, bill=bill, clock=clock,
        budgets=budgets,
    )  # fmt: skip


def settings_of(**pool: object) -> Settings:
    return Settings(pools={"research": PoolSettings.model_validate(pool)})


def a_bot(index: int = 1) -> Bot:
    return make_bot("research", index, PoolSettings().persona)
