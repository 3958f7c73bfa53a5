"""Tasks of a pool with a fallback ladder: which rung serves them, how that is told, and when they go back."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet.config import LimitSettings, RungSettings, Settings
from fleet.errors import BadRequest, NotServed, NotSoon, ProviderUnavailable, RateLimited
from fleet.grants import ANYBODY, Caller, Grant
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Before, Outcome
from fleet.waits import Cause, Ruling, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.context import BotContext
from fleet.workers.gateway import Gateway
from fleet.workers.ladders import BACK_AFTER_S, Ladders, Turn
from fleet.workers.rungs import Route, Rung, ladder_of, served_by_none
from tests.workers.fakes import FakeBreakers, FakeLimiter, FakeProvider, a_bot, settings_of

HERE = "tests.workers.test_ladders"
TASK = BotTask(prompt="Why is the sky blue?")
OUTAGE = Ruling(Wait("outage", time.time() + 3600, "api-0"), 0.0, counts=0.0)


@dataclass
class Shut(FakeBreakers):
    """Open for the limits in `shut`; a failure opens its limit, when `opens` says so."""

    shut: dict[str, Wait] = field(default_factory=dict)
    opens: Cause | None = None

    def standing(self, limit: str) -> Wait | None:
        return self.shut.get(limit)

    async def admit(self, limit: str) -> bool:
        if limit in self.shut:
            raise NotSoon(self.shut[limit])
        return False

    async def failed(self, limit: str, error: Any, **told: Any) -> Ruling:
        self.failures.append((type(error).__name__, limit, 0.0, False))
        if self.opens is not None:
            self.shut[limit] = Wait(self.opens, time.time() + 3600, limit)
        return Ruling(self.shut.get(limit), 0.0, counts=0.0)


@dataclass
class FarLimiter(FakeLimiter):
    """Refuses a turn under the limits in `far`."""

    far: dict[str, Wait] = field(default_factory=dict)

    async def acquire(self, limit: str, *, caller: Caller = ANYBODY, **asked: Any) -> Grant:
        if limit in self.far:
            raise NotSoon(self.far[limit])
        return await super().acquire(limit, caller=caller, **asked)


class House:
    """A pool with a ladder of fake APIs: rung n asks `providers[n]` for `model-n` under the limit `api-n`."""

    def __init__(self, *providers: FakeProvider, below: list[dict[str, Any]], degrades: bool = False, **pool: Any):
        self.providers = providers
        self.breakers, self.limiter = Shut(), FarLimiter()
        self.turns: list[Turn] = []
        routes = [Route(one, f"api{n}", f"model-{n}", f"api-{n}", "", 60.0) for n, one in enumerate(providers)]
        rungs = [RungSettings.model_validate({"model": "m"} | one if "answer" not in one else one) for one in below]
        limits = {route.limit: LimitSettings(when_full="degrade" if degrades else "wait") for route in routes}
        calls = iter(routes[1:])
        ladder = ladder_of(routes[0], [(one, None if one.answer is not None else next(calls)) for one in rungs], limits)
        self.settings: Settings = settings_of(**pool)
        self.gateway = Gateway(
            self.limiter, {"research": routes[0]}, lambda model, usage, tier: int(model[-1]) + 1,
            breakers=self.breakers, ladders={"research": ladder}, on_turn=self.turns.append,
        )  # fmt: skip

    def work(
        self, task: BotTask = TASK, *, deadline_s: float = 30.0, before: Before = NOTHING_BEFORE,
        model: str | None = None, **more: Any,
    ) -> Outcome:  # fmt: skip
        bot = a_bot().model_copy(update={"persona": a_bot().persona.model_copy(update={"model": model})})

        async def run() -> Outcome:
            agent = Agent(self.gateway, self.settings, share=lambda: 0.0)
            try:
                return await agent.run(task, bot, task_id="t1", deadline_s_left=deadline_s, before=before, **more)
            finally:
                await agent.close()

        return asyncio.run(run())

    @classmethod
    def of_models(cls, *providers: FakeProvider, below: list[dict[str, Any]] | None = None) -> House:
        """A pool whose personas have a model each; the fallbacks come last."""
        house, below = cls(*providers, below=[{}] * (len(providers) - 1)), below or []
        routes = [rung.route for rung in house.gateway.ladders.of("research") if rung.route is not None]
        own = routes[: len(routes) - len(below)]
        rest = zip(below, routes[len(own) :], strict=True)
        rungs = [(RungSettings.model_validate({"model": "m"} | one), route) for one, route in rest]
        limits = dict.fromkeys((route.limit for route in routes), LimitSettings())
        house.gateway.ladders = Ladders(
            {"research": ladder_of(own[0], rungs, limits, others=own[1:])}, standing=house.breakers.standing,
            on_turn=house.turns.append,
        )  # fmt: skip
        return house

    def close(self, rung: int, cause: Cause, **wait: Any) -> None:
        self.breakers.shut[f"api-{rung}"] = Wait(cause, time.time() + 3600, f"api-{rung}", **wait)

    @property
    def calls(self) -> list[int]:
        return [len(provider.calls) for provider in self.providers]


def two(**more: Any) -> House:
    return House(FakeProvider(["own"]), FakeProvider(["other"]), below=[more.pop("rung", {})], **more)


def test_the_pool_s_own_serves_while_it_is_open():
    house = two()
    outcome = house.work()
    assert (outcome.answer, outcome.rung, outcome.model, house.calls) == ("own", 0, "model-0", [1, 0])
    assert house.turns == []


@pytest.mark.parametrize("cause", ["outage", "key", "credit", "configuration"])
def test_an_open_breaker_sends_tasks_to_the_fallback_with_its_model_and_its_price(cause: Cause):
    house = two()
    house.close(0, cause)
    outcome = house.work()
    assert (outcome.status, outcome.answer, outcome.rung, outcome.attempts) == ("ok", "other", 1, 1)
    assert (outcome.provider, outcome.model, outcome.cost_usd_picos) == ("api1", "model-1", 2)
    assert [(turn.rung.number, turn.cause) for turn in house.turns] == [(1, cause)]


@pytest.mark.parametrize(
    ("cause", "rung", "degrades", "served"),
    [
        ("requests", {}, False, 1),
        ("money", {}, False, 1),
        ("money", {"when": ["outage"]}, False, None),
        ("money", {"when": ["outage"]}, True, 1),
        ("hold", {}, False, None),
        ("limit", {"when": ["limit"]}, False, 1),
        ("hold", {"when": ["limit"]}, False, 1),
    ],
)
def test_a_turn_that_is_far_away_is_a_reason_where_the_rung_or_the_limit_says_so(
    cause: Cause, rung: dict[str, Any], degrades: bool, served: int | None
):
    house = two(rung=rung, degrades=degrades)
    house.limiter.far["api-0"] = Wait(cause, time.time() + 3600, "api-0")
    outcome = house.work()
    if served is None:
        assert outcome.parking is not None and outcome.parking.wait.cause == cause
        assert house.calls == [0, 0]
    else:
        assert (outcome.answer, outcome.rung, house.calls) == ("other", served, [0, 1])


def test_a_call_that_opens_the_breaker_goes_on_with_the_fallback_at_once():
    house = House(FakeProvider([ProviderUnavailable("503")]), FakeProvider(["other"]), below=[{}])
    house.breakers.opens = "outage"
    began = time.monotonic()
    outcome = house.work()
    assert (outcome.answer, outcome.rung, outcome.attempts, house.calls) == ("other", 1, 2, [1, 1])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("when", "served"), [("outage", ("b", 1, [2, 1])), ("key", ("own", 0, [3, 0]))])
def test_a_lone_task_goes_down_when_its_provider_fails_again_though_no_breaker_opens(when: str, served: Any):
    refused = ProviderUnavailable("refused", sent=False)
    house = House(FakeProvider([refused, refused, "own"]), FakeProvider(["b"]), below=[{"when": [when]}])
    outcome = house.work()
    assert (outcome.answer, outcome.rung, house.calls) == served


def test_a_429_that_holds_the_own_limit_goes_on_with_the_fallback_that_is_meant_for_it():
    house = House(
        FakeProvider([RateLimited("429", retry_after_s=400)]), FakeProvider(["b"]), below=[{"when": ["limit"]}]
    )
    penalise = house.limiter.penalise

    def hold(limit: str, *, retry_after_s: float, told: str = "") -> None:
        penalise(limit, retry_after_s=retry_after_s)
        house.limiter.far[limit] = Wait("hold", time.time() + retry_after_s, limit)

    house.limiter.penalise = hold  # type: ignore[method-assign]
    assert (house.work().answer, house.calls) == ("b", [1, 1])


def test_a_prompt_that_is_refused_is_refused_and_asked_of_nobody_else():
    house = House(FakeProvider([BadRequest("400")]), FakeProvider(["other"]), below=[{}])
    outcome = house.work()
    assert isinstance(outcome.error, BadRequest)
    assert house.calls == [1, 0]


def test_a_task_waits_only_when_every_rung_does_and_tells_the_first_reason_and_the_first_time():
    house = two()
    house.close(0, "key")
    house.breakers.shut["api-1"] = Wait("outage", time.time() + 60, "api-1", probe_every_s=1.0)
    outcome = house.work()
    assert outcome.parking is not None and outcome.error is None
    wait = outcome.parking.wait
    assert (wait.cause, wait.about, wait.probe_every_s, wait.opens_at) == (
        "key", "api-0", 1.0, house.breakers.shut["api-1"].opens_at,
    )  # fmt: skip
    assert house.calls == [0, 0]


@pytest.mark.parametrize(
    ("below", "served"),
    [({}, 1), ({"when": ["outage"]}, None), ({"answer": "later"}, 1), ({"answer": "later", "when": ["limit"]}, None)],
)
def test_a_rung_that_this_process_cannot_call_leads_down_like_a_key_that_is_not_taken(
    below: dict[str, Any], served: int | None
):
    why = Wait("key", None, "api-0", "expected a key in the variable X, got nothing: set it")
    routes = [Route(FakeProvider(["x"]), "api", f"m{n}", f"api-{n}", "", 1.0) for n in (0, 1)]
    rung = RungSettings.model_validate(below if "answer" in below else {"model": "m", **below})
    limits = {route.limit: LimitSettings() for route in routes}
    ladder = ladder_of(routes[0], [(rung, None if rung.answer else routes[1])], limits, {"api-0": why})
    ladders = Ladders({"p": ladder}, standing=lambda limit: None)
    found = ladders.choose("p")
    assert (found.number if isinstance(found, Rung) else None) == served
    assert served_by_none(ladder) == (why if served is None else None) == ladders.closed("p")


def test_a_text_stands_in_for_an_answer_without_a_call_and_says_so():
    house = House(FakeProvider(["own"]), below=[{"answer": "Please ask again later."}])
    house.close(0, "outage")
    outcome = house.work()
    assert (outcome.status, outcome.answer, outcome.rung) == ("degraded", "Please ask again later.", 1)
    assert (outcome.attempts, outcome.cost_usd_picos, outcome.model, outcome.error) == (0, None, "", None)


@pytest.mark.parametrize(("text", "is_told"), [("later", False), ('{"n": 1}', True)])
def test_a_text_that_does_not_fit_the_task_s_schema_is_no_answer_to_it(text: str, is_told: bool):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    house = House(FakeProvider(["own"]), below=[{"answer": text}])
    house.close(0, "outage")
    outcome = house.work(BotTask(prompt="?", answer_schema=schema))
    assert (outcome.answer == text) is is_told
    assert (outcome.parking is None) is is_told
    assert outcome.parking is None or not outcome.parking.wait.is_everyones  # others take the text


def test_a_rung_that_is_too_slow_for_what_is_left_is_passed_over_by_one_that_is_meant_for_that():
    house = two(rung={"when": ["deadline"]})
    house.gateway.ladders.took("api-0", 20.0)
    assert house.work(deadline_s=10.0).answer == "other"
    assert house.turns[0].cause == "deadline"
    assert house.work(deadline_s=30.0).answer == "own"


BEGUN: list[str] = []


async def two_chats(task: BotTask, bot: BotContext) -> str:
    BEGUN.append(task.prompt)
    return f"{await bot.chat('one')} {await bot.chat('two')}"


def test_a_function_in_the_middle_of_its_work_goes_on_with_the_fallback():
    house = House(FakeProvider(["a", NotServed("404")]), FakeProvider(["b"]), below=[{}], function=f"{HERE}:two_chats")
    house.breakers.opens = "configuration"
    outcome = house.work()
    assert (outcome.answer, outcome.rung, outcome.model) == ("a b", 1, "model-1")


def test_a_text_is_told_before_a_function_begins_and_never_to_its_chats():
    house = House(FakeProvider(["a"]), below=[{"answer": "later"}], function=f"{HERE}:two_chats")
    house.close(0, "outage")
    BEGUN.clear()
    outcome = house.work()
    assert (outcome.status, outcome.answer, outcome.rung, BEGUN) == ("degraded", "later", 1, [])


def test_each_model_is_told_a_schema_in_the_form_that_it_takes():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    house = House(FakeProvider([ProviderUnavailable("503")]), FakeProvider(['{"n": 1}']), below=[{}])
    house.breakers.opens = "outage"
    asked: list[str] = []
    form = house.gateway.form
    house.gateway.form = lambda route, told: asked.append(route.model) or form(route, told)  # type: ignore
    outcome = house.work(BotTask(prompt="?", answer_schema=schema))
    assert json.loads(outcome.answer or "") == {"n": 1}
    assert asked == ["model-0", "model-1"]


def test_the_prompt_is_cut_to_the_window_of_the_model_that_is_asked():
    house = House(FakeProvider([ProviderUnavailable("503")]), FakeProvider(["b"]), below=[{}])
    house.breakers.opens = "outage"
    house.gateway._lessons.overflowed("api1/model-1", window_tokens=300)
    outcome = house.work(BotTask(prompt="word " * 1200, max_output_tokens=16))
    own, other = (sum(len(m.text) for m in provider.calls[0].messages) for provider in house.providers)
    assert outcome.answer == "b" and other < own / 2


def test_answers_of_a_fallback_are_no_short_answers_by_the_norms_of_the_pool_s_own_model():
    from fleet.engine.answers.deeds import deed_of
    from tests.workers.test_agent import TASK as SHORT

    house = two()
    house.close(0, "outage")
    outcome = house.work(SHORT)
    assert outcome.fault is None and deed_of("research-001", outcome) is None


def test_going_down_and_coming_back_are_each_said_once(caplog: pytest.LogCaptureFixture):
    now = [0.0]
    own, other = (Rung(n, Route(FakeProvider(["x"]), "api", f"m{n}", f"api-{n}", "", 1.0)) for n in (0, 1))
    turns: list[Turn] = []
    ladders = Ladders({"p": (own, other)}, standing=lambda limit: None, on_turn=turns.append, clock=lambda: now[0])
    caplog.set_level(logging.INFO)
    for _ in range(3):
        ladders.served("p", other, Wait("outage"))
    ladders.served("p", own, None)
    now[0] = BACK_AFTER_S
    for _ in range(3):
        ladders.served("p", own, None)
    assert [(turn.rung.number, turn.cause) for turn in turns] == [(1, "outage"), (0, "")]
    assert [record.getMessage() for record in caplog.records] == [
        "fallback_taken pool=p rung=1 api=api/m1 cause=outage",
        "fallback_over pool=p api=api/m0",
    ]


def test_a_wait_of_less_urgent_tasks_sends_only_those_down():
    house = two()
    house.close(0, "money", lowest=2)
    assert house.work(BotTask(prompt="?", priority="bulk")).answer == "other"
    del house.breakers.shut["api-0"]
    house.close(0, "money", lowest=2)
    assert house.gateway.ladders.choose("research", priority=1) == house.gateway.ladders.of("research")[0]


def test_the_limit_of_a_pool_is_that_of_the_rung_that_its_next_call_takes():
    house = two()
    assert house.gateway.ladders.limit_of("research") == "api-0"
    house.close(0, "outage")
    assert house.gateway.ladders.limit_of("research") == "api-1"
    house.close(1, "outage")
    assert house.gateway.ladders.limit_of("research") == "api-0"


def test_an_answer_is_told_by_the_name_of_its_rung():
    from fleet.engine.outcomes.results import result_of

    house = two()
    house.close(0, "outage")
    result = result_of("t1", TASK, a_bot(), house.work(), queued_ms=0, ran_ms=1)
    assert (result.served_by, result.rung, result.model) == ("fallback 1", 1, "model-1")
    text = House(FakeProvider(["own"]), below=[{"answer": "later"}])
    text.close(0, "outage")
    told = result_of("t1", TASK, a_bot(), text.work(), queued_ms=0, ran_ms=1)
    assert (told.status, told.served_by, told.model, told.attempts) == ("degraded", "fallback 1", None, 0)


# -- personas with models of their own


def three(**more: Any) -> House:
    return House.of_models(FakeProvider(["a"]), FakeProvider(["b"]), FakeProvider(["c"]), **more)


def test_each_bot_asks_its_personas_model_and_the_result_names_it():
    house = three()
    for number, model in enumerate(["model-0", "model-1", "model-2"]):
        outcome = house.work(model=model)
        assert (outcome.answer, outcome.rung, outcome.model) == ("abc"[number], 0, model)
    assert house.calls == [1, 1, 1] and house.turns == []
    assert house.work(model="model-of-yesterday").model == "model-0"
    assert house.gateway.ladders.limits_of("research") == ("api-0", "api-1", "api-2")


@pytest.mark.parametrize("cause", ["outage", "key", "requests", "hold", "limit"])
def test_a_model_that_waits_holds_nobody_while_another_of_the_pools_models_answers(cause: Cause):
    house = three()
    house.close(1, cause)
    outcome = house.work(model="model-1")
    assert (outcome.status, outcome.answer, outcome.rung, outcome.model) == ("ok", "a", 0, "model-0")
    assert house.gateway.closed("research") is None and house.turns == []  # no fallback is told
    assert house.gateway.ladders.limits_of("research") == ("api-0", "api-2")


def test_a_limit_that_is_far_away_sends_a_task_to_the_next_model_and_all_together_make_it_wait():
    house = three()
    far = {f"api-{n}": Wait("limit", time.time() + 100 - n, f"api-{n}") for n in range(3)}
    house.limiter.far = {"api-1": far["api-1"]}
    assert house.work(model="model-1").model == "model-0"
    house.limiter.far = far
    parked = house.work(model="model-1").parking
    assert parked is not None and parked.wait.cause == "limit" and house.calls == [1, 0, 0]


def test_the_fallback_comes_after_all_models():
    house = three(below=[{}])
    house.close(0, "outage")
    assert house.work(model="model-0").model == "model-1"
    house.close(1, "outage")
    outcome = house.work(model="model-1")
    assert (outcome.answer, outcome.rung, outcome.model) == ("c", 1, "model-2")
    assert [(turn.rung.number, turn.cause) for turn in house.turns] == [(1, "outage")]
