"""Several keys of a provider: a call takes one that serves, and a dead one harms nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleet.config import PersonaSettings
from fleet.config.scopes import ScopeAsk
from fleet.errors import (
    BadRequest,
    FleetError,
    KeyRejected,
    KeySpent,
    NotSoon,
    OutOfScope,
    ProviderUnavailable,
    RateLimited,
)
from fleet.grants import Caller, Grant
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.waits import Ruling, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.persona import make_bot
from fleet.workers.calls import Call, Completion
from fleet.workers.errands import KeySeeker
from fleet.workers.gateway import Gateway
from fleet.workers.keys import MOST_ASKED, KeyChoice, ScopedKeys, head_of
from fleet.workers.ladders import Ladders
from fleet.workers.rungs import Route, Rung
from tests.workers.fakes import FakeBreakers, FakeLimiter, FakeProvider, a_bot, said, settings_of

KEYS = ("a", "b", "c")


def limit_of(key: str) -> str:
    return f"api/m/{key}"


def asking(bot: str) -> KeySeeker:
    return KeySeeker("research", Caller(bot=bot), "t")


class KeyedProvider(FakeProvider):
    """Answers by the key of the call; a key that it has no error for is taken."""

    def __init__(self, **errors: FleetError) -> None:
        super().__init__(["four"])
        self.errors: dict[str, FleetError] = dict(errors)

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        self.keys.append(api_key)
        await asyncio.sleep(0)
        if api_key in self.errors:
            raise self.errors[api_key]
        return said("four")


@dataclass
class KeyBreakers(FakeBreakers):
    """Each limit's own: open where `shut` says so, and a failure opens it."""

    shut: dict[str, Wait] = field(default_factory=dict)
    ramps: set[str] = field(default_factory=set)

    def standing(self, limit: str) -> Wait | None:
        return self.shut.get(limit)

    def is_ramping(self, limit: str) -> bool:
        return limit in self.ramps

    async def admit(self, limit: str) -> bool:
        if limit in self.shut:
            raise NotSoon(self.shut[limit])
        return False

    async def failed(self, limit: str, error: Any, **told: Any) -> Ruling:
        self.shut[limit] = Wait(error.cause, None, limit, str(error))
        return Ruling(self.shut[limit], 0.0, counts=0.0)


@dataclass
class SoonestLimiter(FakeLimiter):
    """Grants under the first limit that is asked for, or under the one of `soonest`; notes what was asked."""

    soonest: str = ""
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def acquire(self, limit: str | Sequence[str], **more: Any) -> Grant:
        names = (limit,) if isinstance(limit, str) else tuple(limit)
        self.asked.append(names)
        return await super().acquire(self.soonest if self.soonest in names else names[0], **more)


class House:
    """A pool whose provider has several keys."""

    def __init__(self, provider: FakeProvider, *keys: str, scopes: ScopedKeys | None = None) -> None:
        self.provider, self.limiter, self.breakers = provider, SoonestLimiter(), KeyBreakers()
        self.renewals: dict[str, str] = {}
        ways = tuple(self._route(key) for key in keys)
        self.route = replace(ways[0], keys=ways) if len(ways) > 1 else ways[0]
        self.gateway = Gateway(
            self.limiter, {"research": self.route}, lambda model, usage, tier: None, breakers=self.breakers
        )  # fmt: skip
        self.gateway.keys.scopes = scopes

    def _route(self, key: str) -> Route:
        async def renew(refused: str) -> bool:
            if refused not in self.renewals:
                return False
            way.take(self.renewals[refused])
            return True

        way = Route(self.provider, "api", "m", limit_of(key), key, 60.0, renew=renew)
        return way

    def work(self, tasks: int = 1, tenant: str = "") -> Outcome:
        async def run() -> Outcome:
            agent = Agent(self.gateway, settings_of(), share=lambda: 0.0)
            try:
                done = [
                    await agent.run(
                        BotTask(prompt="2+2?", tenant=tenant), a_bot(), task_id=f"t{n}", before=NOTHING_BEFORE
                    )
                    for n in range(tasks)
                ]
                return done[-1]
            finally:
                await agent.close()

        return asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [KeyRejected("no such key"), KeySpent("no money left"), RateLimited("too many", retry_after_s=60.0)],
    ids=["refused", "out of money", "held"],
)
def test_a_call_that_a_key_is_not_good_for_goes_with_another_one_and_nobody_waits(error: FleetError) -> None:
    house = House(KeyedProvider(a=error, b=error), *KEYS)
    outcome = house.work()
    assert outcome.status == "ok" and outcome.answer == "four"
    assert house.provider.keys[-1] == "c" and len(house.provider.keys) <= 3
    assert house.limiter.is_settled_once
    assert house.limiter.granted[-1].limit == limit_of("c")


def test_the_next_call_leaves_a_dead_key_out() -> None:
    house = House(KeyedProvider(a=KeyRejected("no such key")), "a", "b")
    house.work(tasks=3)
    assert house.provider.keys.count("a") <= 1 and house.provider.keys.count("b") == 3


def test_when_all_keys_are_dead_the_task_waits_for_what_the_first_one_waits_for() -> None:
    house = House(KeyedProvider(a=KeyRejected("no such key"), b=KeySpent("no money left")), "a", "b")
    outcome = house.work()
    assert outcome.parking is not None and outcome.parking.wait.cause in ("key", "credit")
    wait = house.gateway.closed("research")
    assert wait is not None and wait.about == limit_of("a")
    del house.breakers.shut[limit_of("b")]
    assert house.gateway.closed("research") is None, "one that serves is enough"
    assert house.gateway.ladders.limits_of("research") == (limit_of("b"),)


def test_one_keys_breaker_that_an_outage_opens_shuts_no_road_while_another_is_closed() -> None:
    house = House(KeyedProvider(a=ProviderUnavailable("502"), b=ProviderUnavailable("502")), "a", "b")

    async def call() -> FleetError:
        try:
            await asyncio.wait_for(_chat(house), 5)
        except FleetError as error:
            return error
        raise AssertionError("expected an error")

    first = asyncio.run(call())
    assert first.ruling is not None and first.ruling.wait is None  # type: ignore[attr-defined]
    second = asyncio.run(call())
    assert second.ruling is not None and second.ruling.wait is not None, "now both are open"  # type: ignore[attr-defined]


async def _chat(house: House) -> Completion:
    from fleet.conversation import Message
    from fleet.workers.deadline import Deadline
    from fleet.workers.meter import Meter

    return await house.gateway.chat(
        "research", (Message(role="user", content="2+2?"),), temperature=None, max_output_tokens=10,
        deadline=Deadline(asyncio.get_running_loop().time() + 30), meter=Meter("t"),
    )  # fmt: skip


def test_a_refusal_of_the_request_itself_is_asked_of_one_key_only() -> None:
    house = House(KeyedProvider(**dict.fromkeys(KEYS, BadRequest("no such field"))), *KEYS)
    assert house.work().status == "failed"
    assert len(house.provider.keys) == 1


@pytest.mark.parametrize("keys", [("a",), ("a", "b")], ids=["one key", "two"])
def test_a_call_whose_key_was_replaced_on_its_way_goes_once_more_at_once_with_the_new_one(
    keys: tuple[str, ...],
) -> None:
    house = House(KeyedProvider(**dict.fromkeys(keys, KeyRejected("expired"))), *keys)
    house.renewals = {key: f"{key}-new" for key in keys}
    outcome = house.work()
    assert outcome.status == "ok"
    assert len(house.provider.keys) == 2 and house.provider.keys[1] == f"{house.provider.keys[0]}-new"
    assert house.breakers.shut == {}, "the refusal says nothing of the new key"


def test_a_source_that_gives_refused_keys_for_ever_is_not_asked_for_ever() -> None:
    house = House(KeyedProvider(a=KeyRejected("expired")), "a")
    house.renewals = {"a": "a"}
    assert house.work().parking is not None
    assert len(house.provider.keys) == 4


def test_a_call_goes_under_the_limit_that_lets_it_go_soonest_and_is_entered_there() -> None:
    house = House(KeyedProvider(), *KEYS)
    house.limiter.soonest = limit_of("b")
    house.work()
    assert set(house.limiter.asked[0]) == {limit_of(key) for key in KEYS}
    assert house.provider.keys == ["b"]


def test_a_single_key_is_asked_for_by_its_name_as_if_there_were_no_choice() -> None:
    house = House(KeyedProvider(), "a")
    house.work()
    assert house.limiter.asked == [(limit_of("a"),)]
    choice = KeyChoice(lambda limit: pytest.fail("nobody looks"))
    assert choice.of(house.route, asking("")) == (house.route,)


def test_bots_begin_with_different_keys_and_each_with_the_same_again() -> None:
    house = House(KeyedProvider(), *KEYS)
    choice = KeyChoice(lambda limit: False)
    firsts = [choice.of(house.route, asking(f"bot-{n}"))[0].limit for n in range(60)]
    assert firsts == [choice.of(house.route, asking(f"bot-{n}"))[0].limit for n in range(60)]
    assert set(firsts) == {limit_of(key) for key in KEYS}


def test_of_many_keys_a_few_are_asked_those_that_wait_last() -> None:
    house = House(KeyedProvider(), *(f"k{n}" for n in range(40)))
    choice = KeyChoice(lambda limit: limit != limit_of("k7"))
    assert [key.limit for key in choice.of(house.route, asking("x"))] == [limit_of("k7")]
    assert len(KeyChoice(lambda limit: True).of(house.route, asking("x"))) == MOST_ASKED


def test_prompts_that_begin_alike_begin_with_the_same_key_whichever_bot_asks_and_short_ones_with_the_bots() -> None:
    house, choice = House(KeyedProvider(), *KEYS), KeyChoice(lambda limit: False)

    def first(bot: str, *texts: str) -> str:
        return choice.of(house.route, asking(bot)._replace(head=head_of(texts)))[0].limit

    bots, handbook = [f"bot-{n}" for n in range(20)], "A handbook. " * 400
    assert len({first(bot, "Be brief.", f"{handbook} Question {bot}") for bot in bots}) == 1
    assert {first("bot-1", f"Case {n}. {handbook}") for n in range(20)} == {limit_of(key) for key in KEYS}
    assert {first(bot, "Be brief.", "2+2?") for bot in bots} == {limit_of(key) for key in KEYS}
    assert head_of(("Be brief.", "2+2?")) is None and head_of((handbook[:5], handbook[5:])) == head_of((handbook,))


def test_a_long_prompt_of_a_task_goes_with_the_key_that_others_of_its_beginning_have_warmed() -> None:
    house = House(KeyedProvider(), *KEYS)

    async def run() -> None:
        agent = Agent(house.gateway, settings_of(), share=lambda: 0.0)
        for number in range(1, 6):
            bot = make_bot(
                "research", number, PersonaSettings(archetypes=("analytical",), context_windows_tokens=(8192,))
            )
            task = BotTask(prompt=f"{'A page of the harbour book. ' * 200} Question {number}")
            await agent.run(task, bot, task_id=f"t{number}", before=NOTHING_BEFORE)
        await agent.close()

    asyncio.run(run())
    assert len(set(house.provider.keys)) == 1 and len(house.provider.keys) == 5


def test_a_key_that_comes_back_step_by_step_holds_up_nobody() -> None:
    house = House(KeyedProvider(), "a", "b")
    house.breakers.ramps = {limit_of("a")}
    house.work(tasks=3)
    assert house.provider.keys == ["b"] * 3


class OneOf:
    """Scopes by which a tenant may use one key alone, and nobody else may use it."""

    def __init__(self, tenant: str, key: str) -> None:
        self.tenant, self.key = tenant, key

    def tells_apart(self, provider: str) -> bool:
        return provider == "api"

    def among(self, limits: Sequence[str], ask: ScopeAsk, task: str, *, full_too: bool = False) -> Collection[str]:
        found = [one for one in limits if (one == limit_of(self.key)) is (ask.tenant == self.tenant)]
        if not found:
            raise OutOfScope("outside of its scope")
        return found


def test_scopes_leave_out_keys_before_anything_is_asked_for_and_their_refusal_is_the_tasks() -> None:
    house = House(KeyedProvider(), *KEYS, scopes=OneOf("acme", "b"))
    assert house.work(tasks=3, tenant="acme").status == "ok" and house.provider.keys == ["b"] * 3
    assert house.limiter.asked == [(limit_of("b"),)] * 3
    assert house.work(tenant="other").status == "ok" and "b" not in house.provider.keys[3:]
    refused = House(KeyedProvider(), "a", "c", scopes=OneOf("acme", "b"))
    outcome = refused.work(tenant="acme")
    assert outcome.status == "failed" and refused.provider.keys == [] == refused.limiter.asked
    assert isinstance(outcome.error, OutOfScope)


@pytest.mark.parametrize("error", [KeyRejected("no such key"), KeySpent("no money left")], ids=["refused", "spent"])
def test_a_task_whose_only_key_is_dead_waits_alone_for_others_may_have_other_keys(error: FleetError) -> None:
    house = House(KeyedProvider(b=error), *KEYS, scopes=OneOf("acme", "b"))
    for tasks in (1, 2):  # the one that finds it dead, and those that hear of its breaker
        outcome = house.work(tenant="acme")
        assert outcome.parking is not None and outcome.parking.wait.about == limit_of("b"), tasks
        assert outcome.parking.is_alone and not outcome.parking.wait.is_everyones
    assert house.provider.keys == ["b"]
    assert house.work(tenant="other").status == "ok"


def test_a_rung_waits_only_when_all_its_keys_do() -> None:
    house = House(KeyedProvider(), "a", "b")
    shut: dict[str, Wait] = {}
    ladders = Ladders({"research": (Rung(0, house.route),)}, standing=shut.get)
    shut[limit_of("a")] = Wait("key", 200.0, limit_of("a"))
    assert ladders.closed("research") is None
    shut[limit_of("b")] = Wait("hold", 100.0, limit_of("b"))
    wait = ladders.closed("research")
    assert wait is not None and (wait.cause, wait.opens_at) == ("key", 100.0)
