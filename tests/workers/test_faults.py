"""What an agent finds wrong with a bot's work, and what it does not blame the bot for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fleet.config import ProviderSettings
from fleet.conversation import Message
from fleet.errors import (
    BadAnswer,
    BadRequest,
    InvalidTask,
    KeyRejected,
    NotSoon,
    OutOfTries,
    ProviderUnavailable,
)
from fleet.faults import Fault
from fleet.models import BotTask, Norms
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.schema import compiled
from fleet.waits import Ruling, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot import json_answer
from fleet.workers.bot.context import BotContext
from fleet.workers.context import count_message_tokens
from fleet.workers.gateway import Gateway, Route
from fleet.workers.providers import make_provider
from fleet.workers.providers.wire_schema import SchemaRefused
from tests.test_schema import PRICE
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of
from tests.workers.simulator.running import running, total

HERE = "tests.workers.test_faults"
QUESTION = "What does it cost?"
ASKED = BotTask(prompt=QUESTION)
PRICED = BotTask(prompt=QUESTION, answer_schema=PRICE)
LOOP = "and so it goes on and on, " * 20
REFUSAL = "I'm sorry, but I can't help with that."
USUAL = Norms(chars=1000.0, ran_ms=0.0, tasks=100)


def work(
    *replies: Any,
    task: BotTask = ASKED,
    limiter: FakeLimiter | None = None,
    provider: FakeProvider | None = None,
    norms: Norms | None = None,
    deadline_s_left: float = 5.0,
    wait: Wait | None = None,
    **pool: Any,
) -> Outcome:
    async def run() -> Outcome:
        breakers = FakeBreakers(rulings=[Ruling(wait, 0.0, counts=1.0)])
        gateway = a_gateway(limiter or FakeLimiter(), provider or FakeProvider(list(replies)), breakers=breakers)
        agent = Agent(gateway, settings_of(**pool), share=lambda: 0.0)
        return await agent.run(
            task, a_bot(), task_id="t1", deadline_s_left=deadline_s_left, norms=norms, before=NOTHING_BEFORE
        )

    return asyncio.run(run())


async def asks_once(task: BotTask, bot: BotContext) -> str:
    return await bot.chat(QUESTION)


async def copes(task: BotTask, bot: BotContext) -> str:
    try:
        return await bot.chat(QUESTION)
    except BadAnswer:
        return "an answer all the same"


async def raises(task: BotTask, bot: BotContext) -> str:
    raise ValueError


async def says_nothing(task: BotTask, bot: BotContext) -> str:
    return ""


async def disapproves(task: BotTask, bot: BotContext) -> str:
    raise BadAnswer("my own judgement")


@pytest.mark.parametrize(
    ("replies", "fault", "bad"),
    [
        (["4"], None, 0),
        (["", "4"], None, 1),
        (["", ""], Fault.EMPTY, 2),
        ([REFUSAL], Fault.REFUSED, 1),
        ([said("so", finish_reason="content_filter")], Fault.REFUSED, 1),
        ([LOOP], Fault.REPEATED, 1),
        ([said(LOOP, finish_reason="length")], Fault.REPEATED, 1),
        ([said("The answer is", finish_reason="length")], None, 0),
        ([ProviderUnavailable("503"), ""], Fault.EMPTY, 1),
        (["", ProviderUnavailable("503")], None, 1),
    ],
)
def test_an_unusable_answer_is_a_fault_of_the_bot_and_counted(replies: list[Any], fault: Fault | None, bad: int):
    outcome = work(*replies, max_attempts=2)
    assert (outcome.fault, outcome.bad_answers) == (fault, bad)
    assert (outcome.status == "failed") == (outcome.error is not None) == (outcome.answer is None)
    assert fault is None or type(outcome.error) is BadAnswer


@pytest.mark.parametrize(
    "reply", [ProviderUnavailable("503"), KeyRejected("401"), BadRequest("400"), ValueError("a bug")]
)
def test_what_a_provider_a_key_or_fleet_did_is_no_fault(reply: Any):
    outcome = work(reply, max_attempts=1, wait=Wait("outage", 1e10))
    assert (outcome.status, outcome.fault, outcome.bad_answers) == ("failed", None, 0)


def test_a_task_that_waits_or_ran_out_of_time_is_no_fault():
    waits = FakeLimiter(errors=[NotSoon(Wait("hold", 1e10))])
    parked = work("4", limiter=waits)
    assert parked.parking is not None and parked.fault is None
    assert work("4", deadline_s_left=0.0).fault is None


@pytest.mark.parametrize(
    ("function", "replies", "fault", "bad"),
    [
        ("raises", ["x"], Fault.CRASHED, 0),
        ("says_nothing", ["x"], Fault.EMPTY, 1),
        ("disapproves", ["x"], Fault.REJECTED, 0),
        ("asks_once", [REFUSAL], Fault.REFUSED, 1),
        ("asks_once", [BadRequest("400")], None, 0),
        ("copes", [REFUSAL], None, 1),
    ],
)
def test_a_bot_functions_failure_is_told_from_what_its_chats_met(
    function: str, replies: list[Any], fault: Fault | None, bad: int
):
    outcome = work(*replies, function=f"{HERE}:{function}")
    assert (outcome.fault, outcome.bad_answers) == (fault, bad)


def test_an_answer_far_shorter_than_usual_is_suspicious_but_stands():
    outcome = work("Done.", norms=USUAL)
    assert (outcome.status, outcome.answer, outcome.error) == ("ok", "Done.", None)
    assert (outcome.fault, outcome.bad_answers) == (Fault.TOO_SHORT, 0)
    assert work("Done. " + "x" * 100, norms=USUAL).fault is None
    assert work("Done.").fault is None
    assert work(REFUSAL, norms=USUAL).fault is Fault.REFUSED


def test_an_answer_that_the_task_itself_wants_short_is_not_suspicious():
    cut = said("Done and", finish_reason="length")
    assert (work(cut, norms=USUAL).status, work(cut, norms=USUAL).fault) == ("degraded", None)
    assert work("Done.", norms=USUAL, task=BotTask(prompt=QUESTION, max_output_tokens=9)).fault is None
    assert work("Done.", norms=USUAL, task=BotTask(prompt=QUESTION, max_output_tokens=90)).fault is Fault.TOO_SHORT


# -- answers in JSON


def test_a_json_answer_is_handed_back_bare_and_is_never_too_short():
    outcome = work('```json\n{"price": 3}\n```', task=PRICED, norms=USUAL)
    assert (outcome.status, outcome.answer) == ("ok", '{"price": 3}')
    assert (outcome.fault, outcome.bad_answers, outcome.attempts) == (None, 0, 1)


def test_the_schema_is_told_by_the_wire_and_not_by_the_prompt():
    provider = FakeProvider(['{"price": 3}'])
    assert work(task=PRICED, provider=provider).sent == {}
    (asked,) = provider.calls
    assert asked.wishes.schema is compiled(PRICE) and asked.wishes.form == "strict"
    assert asked.messages[0].content == a_bot().persona.system_prompt


def test_a_model_that_takes_no_schema_is_told_it_at_the_end_of_the_system_prompt():
    provider = FakeProvider([SchemaRefused("no", whole=True), '{"price": 3}'])
    outcome = work(task=PRICED, provider=provider)
    assert (outcome.status, outcome.sent, outcome.bad_answers) == ("ok", {"answer_schema": "prompt"}, 0)
    assert provider.calls[1].wishes.schema is None
    system, question = provider.calls[1].messages
    assert system.content.startswith(a_bot().persona.system_prompt)
    assert system.content.endswith(json.dumps(PRICE, separators=(",", ":")))
    assert question == Message(role="user", content=QUESTION)


def test_a_wrong_json_answer_is_repaired_once_by_the_same_bot():
    provider = FakeProvider(['{"price": "three"}', said('{"price": 3}')])
    outcome = work(task=PRICED, provider=provider)
    assert (outcome.status, outcome.answer, outcome.fault) == ("ok", '{"price": 3}', None)
    assert (outcome.bad_answers, outcome.attempts, outcome.usage.total_tokens) == (1, 2, 30)
    asked, again = provider.calls
    assert again.messages[1 : len(asked.messages)] == asked.messages[1:] and again.temperature == asked.temperature
    assert again.wishes == asked.wishes and again.messages[0].text.endswith(json.dumps(PRICE, separators=(",", ":")))
    answered, told = again.messages[len(asked.messages) :]
    assert answered == Message(role="assistant", content='{"price": "three"}')
    assert "$.price: 'three' is not of type 'number'" in told.content and "only" in told.content


def test_a_second_wrong_json_answer_fails_the_task():
    outcome = work("three", '{"price": "a secret"}', '{"price": 3}', task=PRICED)
    assert (outcome.status, outcome.answer, outcome.fault) == ("failed", None, Fault.SCHEMA)
    assert (outcome.bad_answers, outcome.attempts) == (2, 2)
    assert "'properties.price.type'" in str(outcome.error) and "secret" not in str(outcome.error)


def test_a_repair_that_is_refused_or_meets_no_provider_is_told_as_what_it_is():
    refused = work("three", REFUSAL, task=PRICED)
    assert (refused.fault, refused.bad_answers) == (Fault.REFUSED, 2)
    cut = work("three", ProviderUnavailable("503"), task=PRICED, max_attempts=2)
    assert (cut.fault, cut.bad_answers) == (None, 1) and isinstance(cut.error, OutOfTries)


def test_an_answer_that_was_cut_off_and_repaired_is_not_degraded():
    outcome = work(said('{"price": ', finish_reason="length"), '{"price": 3}', task=PRICED)
    assert (outcome.status, outcome.answer) == ("ok", '{"price": 3}')
    again = work(said('{"price": ', finish_reason="length"), task=PRICED)
    assert "raise max_output_tokens" in str(again.error)


def test_a_long_question_leaves_room_for_schema_and_repair_uncut():
    task = BotTask(prompt="long " * 5000 + "?", answer_schema=PRICE)
    provider = FakeProvider(["wrong " * 2000, '{"price": 3}'])
    outcome = work(task=task, provider=provider)
    assert outcome.status == "ok"
    window = a_bot().persona.context_window_tokens
    assert json.dumps(PRICE, separators=(",", ":")) in provider.calls[1].messages[0].content
    for call in provider.calls:
        assert count_message_tokens(call.messages) <= window - call.max_output_tokens
    assert (
        "[cut]" in provider.calls[1].messages[1].content and "it is not JSON" in provider.calls[1].messages[-1].content
    )


def test_a_schema_that_leaves_no_room_for_a_question_is_the_tasks_fault():
    provider = FakeProvider(["{}"])
    outcome = work(task=BotTask(prompt="x", answer_schema={"description": "long " * 3000}), provider=provider)
    assert isinstance(outcome.error, InvalidTask) and outcome.fault is None and provider.calls == []


@pytest.mark.parametrize(
    ("reply", "answer", "fault"), [('```\n{"price": 3}\n```', '{"price": 3}', None), ("three", None, Fault.SCHEMA)]
)
def test_what_a_bot_function_returns_must_fit_too_but_it_is_not_called_again(
    reply: str, answer: str | None, fault: Fault | None
):
    provider = FakeProvider([reply])
    outcome = work(task=PRICED, provider=provider, function=f"{HERE}:asks_once")
    assert (outcome.answer, outcome.fault, outcome.bad_answers) == (answer, fault, int(fault is not None))
    assert len(provider.calls) == 1
    assert provider.calls[0].messages[0].content == a_bot().persona.system_prompt


def test_answers_of_the_simulator_are_checked_and_repaired_over_http(tmp_path: Path):
    told = json_answer.repair("about three", json_answer.read("about three", compiled(PRICE))[1], 1000)[1].content
    lines = [
        {"question": QUESTION, "answer": "about three"},
        {"question": told, "answer": '```json\n{"price": 3}\n```'},
    ]
    recorded = tmp_path / "answers.jsonl"
    recorded.write_text("\n".join(map(json.dumps, lines)))

    async def run(url: str) -> Outcome:
        provider = make_provider(ProviderSettings(kind="simulator"), base_url=url)
        route = Route(provider, "simulator", "odd-refused-response-format", LIMIT, "any-key", 60.0, simulated=True)
        agent = Agent(
            Gateway(FakeLimiter(), {"research": route}, lambda model, usage, tier: 7, breakers=FakeBreakers()),
            settings_of(),
        )
        try:
            return await agent.run(PRICED, a_bot(), task_id="t1", deadline_s_left=30)
        finally:
            await provider.close()

    with running(answers=recorded) as url:
        outcome = asyncio.run(run(url))
        assert (total(url)["served"], outcome.attempts) == (2, 3)  # the first one was refused: no schema by the wire
    assert (outcome.answer, outcome.bad_answers, outcome.fault) == ('{"price": 3}', 1, None)
    assert outcome.cost_usd_picos == 14
