"""What becomes of what a task or a `chat()` asks, from the agent to the provider and back into the result."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from fleet.config import PoolSettings, ProviderSettings
from fleet.conversation import Message, ThinkingPart, ToolCall
from fleet.engine.outcomes.results import result_of
from fleet.errors import BadAnswer, BotFunctionFailed, InvalidTask
from fleet.faults import Fault
from fleet.lessons import PROBE_AFTER_S, Notebook
from fleet.models import Bot, BotTask, Remedy
from fleet.outcome import Outcome
from fleet.schema import compiled
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.persona import FACETS, facet_of, make_bot, treated
from fleet.workers.calls import Call, Completion, Wishes
from fleet.workers.gateway import Gateway, Route
from fleet.workers.load import most_tokens
from fleet.workers.providers import make_provider
from fleet.workers.providers.wire_schema import SchemaRefused
from tests.every import every
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of
from tests.workers.simulator.running import running

HERE = "tests.workers.test_asked"
TOOL = {"name": "temperature", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}
CALLED = ToolCall(id="c1", name="temperature", arguments='{"place": "Rome"}')
SIGNED = ThinkingPart(type="thinking", text="hm", signature="s")
CALLS = replace(said("", finish_reason="tool_calls"), tool_calls=(CALLED,), thoughts=(SIGNED,), tier="flex")
ANSWER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def work(
    task: BotTask,
    *replies: Any,
    provider: FakeProvider | None = None,
    limiter: FakeLimiter | None = None,
    bot: Bot | None = None,
    times: int = 1,
    lessons: Notebook | None = None,
    **pool: Any,
) -> Outcome:
    """Return what comes of a task; of the last one of several, one after the other."""

    async def run() -> Outcome:
        gateway = a_gateway(limiter or FakeLimiter(), provider or FakeProvider(list(replies)), lessons=lessons)
        agent = Agent(gateway, settings_of(**pool), share=lambda: 0.0)
        outcomes = [await agent.run(task, bot or a_bot(), task_id="t1", deadline_s_left=5.0) for _ in range(times)]
        await agent.close()
        return outcomes[-1]

    return asyncio.run(run())


async def uses_a_tool(task: BotTask, bot: BotContext) -> str:
    turns: list[Any] = list(task.conversation())
    reply = await bot.chat(turns, tools=[TOOL], tool_choice="temperature", effort="low")
    assert reply == "" and reply.finish_reason == "tool_calls" and reply.tier == "flex"
    turns.append(reply.message)
    turns += [{"role": "tool", "tool_call_id": call.id, "content": "21"} for call in reply.tool_calls]
    reply = await bot.chat(turns)
    assert isinstance(reply, str) and reply.usage.total_tokens == 15
    return reply


def uses_a_tool_in_a_thread(task: BotTask, bot: Any) -> str:
    reply = bot.chat(task.conversation(), tools=[TOOL])
    return bot.chat([*task.conversation(), reply.message, {"role": "tool", "tool_call_id": "c1", "content": "21"}])


async def hands_the_call_on(task: BotTask, bot: BotContext) -> str:
    return await bot.chat(task.prompt or "", tools=[TOOL])


class Verdict(BaseModel):
    a: int


async def asks_for_a_form(task: BotTask, bot: Any) -> str:
    first = await bot.chat("Think about it.")
    reply = await bot.chat(
        [*task.conversation(), {"role": "user", "content": first}], answer_schema=Verdict, effort="low"
    )
    return json.dumps({"a": Verdict.model_validate_json(reply).a + 1, "tokens": reply.usage.total_tokens})


def asks_for_a_form_in_a_thread(task: BotTask, bot: Any) -> str:
    return str(bot.chat("x", answer_schema=task.answer_schema, max_output_tokens=77))


async def asks_for_no_form(task: BotTask, bot: Any) -> str:
    return str(await bot.chat("x", answer_schema=task.metadata["schema"]))


async def asks_nonsense(task: BotTask, bot: BotContext) -> str:
    return await bot.chat("x", **task.metadata)  # type: ignore[arg-type]


# -- answers in a form, in bot functions


@pytest.mark.parametrize("good", ['{"a": 4}', '```json\n{"a": 4}\n```', '<think>{}</think>{"a": 4}'])
def test_a_chat_of_a_bot_function_may_ask_for_json_and_gets_it_bare(good: str):
    provider = FakeProvider(["Some thoughts", good])
    outcome = work(BotTask(prompt="2+2?"), provider=provider, function=f"{HERE}:asks_for_a_form")
    assert (outcome.status, json.loads(outcome.answer or "")) == ("ok", {"a": 5, "tokens": 15})
    plain, formed = (call.wishes for call in provider.calls)
    assert plain.schema is None and formed.schema is not None and (formed.form, formed.effort) == ("strict", "low")
    assert [message.text for message in provider.calls[1].messages[1:]] == ["2+2?", "Some thoughts"]


def test_such_an_answer_that_does_not_fit_is_repaired_once_and_is_then_a_bad_answer():
    task, function = BotTask(prompt="x", answer_schema=ANSWER), f"{HERE}:asks_for_a_form_in_a_thread"
    provider = FakeProvider(['{"a": "four"}', '{"a": 4}'])
    outcome = work(task, provider=provider, function=function)
    assert (outcome.status, outcome.answer) == ("ok", '{"a": 4}')
    assert [call.max_output_tokens for call in provider.calls] == [77, 77]
    assert "wrong" in provider.calls[1].messages[-1].text  # the conversation of the chat, and what is to be mended
    outcome = work(task, provider=FakeProvider(['{"a": "four"}']), function=function)
    assert isinstance(outcome.error, BadAnswer) and outcome.error.fault == Fault.SCHEMA


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"$ref": "https://x.y/z"}, "text", 5])
def test_a_form_that_is_no_schema_is_the_functions_fault(schema: Any):
    task = BotTask(prompt="x", metadata={"schema": schema})
    outcome = work(task, "4", function=f"{HERE}:asks_for_no_form")
    assert isinstance(outcome.error, BotFunctionFailed) and "chat(): answer_schema: " in str(outcome.error)


# -- tools


def test_a_plain_task_with_tool_calls_ends_ok_with_them_in_its_result():
    task = BotTask.parse("How warm is Rome?", tools=[TOOL], answer_schema=ANSWER)
    outcome = work(task, CALLS)
    assert (outcome.status, outcome.tool_calls, outcome.fault, outcome.bad_answers) == ("ok", (CALLED,), None, 0)
    result = result_of("t1", task, a_bot(), outcome, queued_ms=0, ran_ms=1)
    stored = json.loads(result.model_dump_json())
    assert stored["tool_calls"][0]["name"] == "temperature" and stored["tier"] == "flex"


def test_a_result_without_any_of_it_is_as_small_as_before():
    result = result_of(
        "t1", BotTask(prompt="x"), a_bot(), work(BotTask(prompt="x"), "an answer"), queued_ms=0, ran_ms=1
    )
    assert not {"tool_calls", "more_answers", "tier", "sent"} & set(json.loads(result.model_dump_json()))
    assert (result.tool_calls, result.tier, result.sent) == ((), None, {})


@pytest.mark.parametrize("function", ["uses_a_tool", "uses_a_tool_in_a_thread"])
def test_a_bot_function_gets_tool_calls_and_sends_results(function: str):
    provider = FakeProvider([CALLS, said("21 degrees")])
    outcome = work(BotTask(prompt="How warm is Rome?"), provider=provider, function=f"{HERE}:{function}")
    assert (outcome.status, outcome.answer, outcome.tool_calls) == ("ok", "21 degrees", ())
    first, second = provider.calls
    assert first.wishes.tools[0].name == "temperature" and second.wishes.tools == ()
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "tool"]
    assert second.messages[2] == Message(role="assistant", content=(SIGNED,), tool_calls=(CALLED,))


def test_a_bot_function_may_hand_tool_calls_on():
    outcome = work(BotTask(prompt="x"), CALLS, function=f"{HERE}:hands_the_call_on")
    assert (outcome.status, outcome.answer, outcome.tool_calls) == ("ok", "", (CALLED,))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"efort": "low"}, "chat(): efort: unknown field, the nearest known one is `effort`"),
        ({"tool_choice": "auto"}, "chat(): tool_choice: expected `tools` beside it"),
        ({"extra_body": {"user": "me"}}, "chat(): extra_body: expected names that the pool allows, got user"),
        ({"extra_headers": {"host": "x"}}, "chat(): extra_headers: expected headers that Fleet does not set"),
    ],
)
def test_a_chat_that_asks_nonsense_says_so(options: dict[str, Any], told: str):
    task = BotTask.model_construct(prompt="x", metadata=options, messages=None)
    outcome = work(task, "never", function=f"{HERE}:asks_nonsense")
    assert isinstance(outcome.error, BotFunctionFailed) and told in str(outcome.error)


# -- whose word counts


def test_a_tasks_word_goes_before_its_personas_and_that_before_its_pools():
    headers = {"extra_headers": {"X-A": "1", "X-B": "1"}, "allow": ["x-a"]}
    pool = {"effort": "low", "verbosity": "low", "tier": "flex", "persona": {"efforts": ["medium"]}, **headers}
    bot = make_bot("research", 1, PoolSettings.model_validate(pool).persona)
    provider = FakeProvider(["a"])
    work(BotTask.parse("x", tier="priority", extra_headers={"x-a": "2"}), provider=provider, bot=bot, **pool)
    (call,) = provider.calls
    assert (call.wishes.effort, call.wishes.verbosity, call.wishes.tier) == ("medium", "low", "priority")
    assert call.wishes.extra_headers == {"X-B": "1", "x-a": "2"}
    assert call.wishes.asked == {"tier", "extra_headers"}


def test_several_answers_are_reserved_each_and_come_back_each():
    limiter = FakeLimiter()
    reply = replace(said("a"), others=("b", "c"))
    outcome = work(BotTask.parse("x", n=3, max_output_tokens=100), reply, limiter=limiter)
    plain = FakeLimiter()
    work(BotTask.parse("x", max_output_tokens=100), "a", limiter=plain)
    assert limiter.granted[0].reserved_tokens == plain.granted[0].reserved_tokens + 200
    assert (outcome.answer, outcome.more_answers) == ("a", ("b", "c"))


def test_tools_schemas_and_images_are_reserved_and_believed():
    plain, more = FakeLimiter(), FakeLimiter()
    work(BotTask(prompt="x"), "a", limiter=plain)
    image = {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image", "url": "https://x.y/a.png"}]}
    work(BotTask.parse(messages=[image], tools=[TOOL], answer_schema=ANSWER), '{"a": 1}', limiter=more)
    assert more.granted[0].reserved_tokens > plain.granted[0].reserved_tokens + 1600
    asked = Call("m", BotTask.parse(messages=[image]).conversation(), None, 10, 5.0, Wishes(n=2))
    assert most_tokens(asked, "")[0] > 100_000 and most_tokens(asked, "")[1] >= 20


def test_thinking_must_leave_room_for_an_answer():
    outcome = work(BotTask.parse("x", thinking_tokens=512, max_output_tokens=512), "never")
    assert isinstance(outcome.error, InvalidTask) and "fewer than max_output_tokens (512)" in str(outcome.error)


# -- schemas by the wire


class Picky:
    """A provider that takes schemas up to a form, as many at a time as come."""

    def __init__(self, takes: str, *, whole: bool = False) -> None:
        self.takes, self.whole = takes, whole
        self.calls: list[Call] = []

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        self.calls.append(call)
        await asyncio.sleep(0)
        form = "prompt" if call.wishes.schema is None else call.wishes.form
        if form != self.takes and form != "prompt":
            raise SchemaRefused("no", whole=self.whole)
        return said('{"a": 1}')

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(
    ("takes", "whole", "refused_at_most"),
    [("strict", False, 0), ("loose", False, 1), ("prompt", False, 2), ("prompt", True, 1)],
)
def test_sixty_in_flight_when_a_form_is_refused_are_sixty_good_answers(takes: str, whole: bool, refused_at_most: int):
    provider = Picky(takes, whole=whole)

    async def run() -> list[Outcome]:
        agent = Agent(a_gateway(FakeLimiter(), provider), settings_of(max_attempts=1), share=lambda: 0.0)  # type: ignore[arg-type]
        task = BotTask.parse("x", answer_schema=ANSWER)
        waves = [await asyncio.gather(*(agent.run(task, a_bot(), task_id=str(i)) for i in range(60))) for _ in range(2)]
        return [outcome for wave in waves for outcome in wave]

    outcomes = asyncio.run(run())
    assert {(outcome.status, outcome.answer, outcome.bad_answers) for outcome in outcomes} == {("ok", '{"a": 1}', 0)}
    assert len(provider.calls) <= 120 + 60 * refused_at_most  # the second wave is refused nothing
    assert outcomes[-1].attempts == 1 and outcomes[-1].sent == ({} if takes == "strict" else {"answer_schema": takes})


def test_a_server_that_passes_over_schemas_is_asked_by_the_prompt_after_three():
    provider = FakeProvider(["prose", '{"a": 1}'] * 3 + ['{"a": 1}'])
    outcome = work(BotTask.parse("x", answer_schema=ANSWER), provider=provider, times=4)
    assert (outcome.status, outcome.attempts, outcome.sent) == ("ok", 1, {"answer_schema": "prompt"})
    assert len(provider.calls) == 7


# -- bots without a temperature

COLD = replace(said("an answer"), left_out=("temperature",))


def test_bots_of_a_model_that_refuses_temperature_differ_by_a_facet():
    provider = FakeProvider([COLD])
    outcome = work(BotTask(prompt="x"), provider=provider, times=2)
    facet = facet_of(a_bot())
    assert facet in FACETS and outcome.sent == {"temperature": None, "facet": facet}
    assert [call.messages[0].text.endswith(facet) for call in provider.calls] == [False, True]
    facets = {facet_of(make_bot("research", i, PoolSettings().persona)) for i in range(1, 101)}
    assert len(facets) == len(FACETS)


def test_a_facet_is_known_to_all_workers_and_goes_a_day_later_when_the_temperature_is_sent_again():
    now_s = [1e9]
    book = Notebook(lambda: now_s[0])
    provider = FakeProvider([COLD, COLD, COLD, "it is sent again"])

    def told() -> bool:
        """Run a task by a worker that has just started; True when its bot was told a facet."""
        work(BotTask(prompt="x"), provider=provider, lessons=book)
        return provider.calls[-1].messages[0].text.endswith(FACETS)

    def a_day_passes() -> None:
        now_s[0] += PROBE_AFTER_S
        book.let_probe({(lesson.api, lesson.what) for lesson in book.due()})

    assert [told(), told()] == [False, True]
    (lesson,) = book.untold().values()
    assert lesson is not None and (lesson.api, lesson.what) == ("api/model-1", "unsent:temperature")
    a_day_passes()
    assert told() and book.age_s(lesson.api, lesson.what) == 0  # it was left out again: for another day
    a_day_passes()
    assert [told(), book.refused(lesson.api), told()] == [True, frozenset(), False]


def test_what_is_left_out_because_it_is_refused_is_no_second_lesson():
    book = Notebook()
    book.learn("api/model-1", "temperature")
    provider = FakeProvider([COLD])
    work(BotTask(prompt="x"), provider=provider, lessons=book)
    assert book.refused("api/model-1") == {"temperature"}
    assert provider.calls[0].messages[0].text.endswith(FACETS)

    class Forgets(FakeProvider):
        """Another worker's probe is taken while this call is on its way."""

        async def complete(self, call: Call, *, api_key: str) -> Completion:
            book.forget("api/model-1", "temperature")
            return await super().complete(call, api_key=api_key)

    work(BotTask(prompt="x"), provider=Forgets([COLD]), lessons=book)
    assert book.refused("api/model-1") == set()


def test_a_pool_may_say_that_its_model_has_no_temperature():
    persona = {"temperatures": [], "efforts": ["low", "high"], "verbosities": ["low", "medium", "high"]}
    settings = PoolSettings.model_validate({"persona": persona}).persona
    bots = [make_bot("research", index, settings) for index in range(1, 25)]
    assert len({(b.persona.archetype, b.persona.effort, b.persona.verbosity, facet_of(b)) for b in bots}) > 12
    provider = FakeProvider(["an answer"])
    outcome = work(BotTask(prompt="x"), provider=provider, bot=bots[1], persona=persona)
    (call,) = provider.calls
    assert (call.temperature, call.wishes.effort, call.wishes.verbosity) == (None, "high", "medium")
    assert outcome.sent == {"facet": facet_of(bots[1])}


@pytest.mark.parametrize(
    ("pool", "task", "left_out", "sent"),
    [
        ({}, {}, (), {"effort": "high"}),
        ({"effort": "low"}, {}, (), {"effort": "medium"}),
        ({"effort": "high"}, {}, (), {"verbosity": "high"}),
        ({}, {"effort": "low"}, (), {"verbosity": "high"}),
        ({}, {}, ("effort",), {"effort": None, "verbosity": "high"}),
        ({}, {"effort": "low", "verbosity": "low"}, (), {}),
    ],
)
def test_the_last_rung_raises_effort_or_verbosity_where_there_is_no_temperature(
    pool: dict[str, Any], task: dict[str, Any], left_out: tuple[str, ...], sent: dict[str, Any]
):
    bot = treated(a_bot(), PoolSettings().persona, Remedy(rung=3, generation=7))
    reply = replace(COLD, left_out=("temperature", *left_out))
    outcome = work(BotTask.parse("x", **task), reply, bot=bot, times=2, **pool)
    assert outcome.sent == {"temperature": None, **sent}


def test_where_there_is_a_temperature_the_last_rung_raises_that():
    bot = treated(a_bot(), PoolSettings().persona, Remedy(rung=3, generation=7))
    provider = FakeProvider([said("an answer")])
    outcome = work(BotTask(prompt="x"), provider=provider, bot=bot)
    was, now = a_bot().persona.temperature, provider.calls[0].temperature
    assert was is not None and now is not None and now > was and provider.calls[0].wishes.effort is None
    assert outcome.sent == {} and outcome.usage == Usage(input_tokens=10, output_tokens=5)


# -- against the simulator, whose strict mode refuses what the vendors' own does


@pytest.mark.parametrize(
    ("kind", "schema", "calls", "form"),
    [
        ("openai", ANSWER, 1, None),
        ("anthropic", ANSWER, 1, None),
        ("openai", {"type": "array", "items": {"type": "integer"}}, 1, None),
        ("openai", {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}, 2, "loose"),
    ],
)
def test_two_hundred_questions_with_a_schema_are_answered_without_a_repair(
    kind: Any, schema: dict[str, Any], calls: int, form: str | None
):
    async def run(url: str) -> list[Outcome]:
        adapter = make_provider(ProviderSettings(kind=kind), base_url=url)
        route = Route(provider=adapter, provider_name="api", model="model-1", limit=LIMIT, api_key="k", timeout_s=60.0)
        gateway = Gateway(FakeLimiter(), {"research": route}, lambda model, usage, tier: None, breakers=FakeBreakers())
        agent = Agent(gateway, settings_of(max_attempts=1))
        tasks = [BotTask.parse(f"Question {number}", answer_schema=schema) for number in range(200)]
        outcomes = await asyncio.gather(*(agent.run(task, a_bot(), task_id="t") for task in tasks))
        await adapter.close()
        await agent.close()
        return outcomes

    with running(latency_ms=1) as url:
        outcomes = asyncio.run(run(url))
    assert {(outcome.status, outcome.bad_answers) for outcome in outcomes} == {("ok", 0)}
    assert every(not compiled(schema).misfits(json.loads(outcome.answer or "")) for outcome in outcomes)
    assert max(outcome.attempts for outcome in outcomes) <= calls
    assert outcomes[0].sent.get("answer_schema") == form
