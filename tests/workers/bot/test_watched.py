"""Runs of bot functions that call tools by `chat()`: caps, circles, and whom they are charged to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fleet.conversation import Message, ToolCall
from fleet.errors import CapReached, NoProgress, ProviderUnavailable, TooExpensive
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.usage import Usage
from fleet.waits import Ruling
from fleet.workers.agent import Agent
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.calls import Completion
from tests.workers.fakes import FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, settings_of

HERE = "tests.workers.bot.test_watched"
TOOL = {"name": "lookup", "parameters": {"type": "object"}}
ASKED = BotTask(prompt="find the tide")
CAUGHT = "an answer all the same"


def calls(number: int, *arguments: str) -> Completion:
    """A turn of the model that calls the tool with each of these."""
    made = tuple(ToolCall(id=f"call_{number}_{n}", name="lookup", arguments=told) for n, told in enumerate(arguments))
    return Completion("", "tool_calls", Usage(input_tokens=10, output_tokens=5), tool_calls=made)


async def acts(task: BotTask, bot: LoopBotContext) -> str:
    """An agent: asks, looks things up, and asks again."""
    talk: list[Message] = list(task.conversation())
    while True:
        reply = await bot.chat(talk, tools=[TOOL])
        if not reply.tool_calls:
            return reply
        talk += [reply.message, *(_looked_up(call) for call in reply.tool_calls)]


def acts_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    talk: list[Message] = list(task.conversation())
    while (reply := bot.chat(talk, tools=[TOOL])).tool_calls:
        talk += [reply.message, *(_looked_up(call) for call in reply.tool_calls)]
    return reply


async def gives_in(task: BotTask, bot: LoopBotContext) -> str:
    try:
        return await acts(task, bot)
    except (CapReached, NoProgress):
        return CAUGHT


async def asks_many(task: BotTask, bot: LoopBotContext) -> str:
    return " ".join(await asyncio.gather(*(bot.chat(f"part {n}") for n in range(7))))


def _looked_up(call: ToolCall) -> Message:
    return Message(role="tool", tool_call_id=call.id, content=f"{call.arguments}: nothing found")


def work(
    replies: Sequence[Completion | Exception | str], *, task: BotTask = ASKED, **pool: Any
) -> tuple[Outcome, FakeProvider]:
    async def run() -> Outcome:
        breakers = FakeBreakers(rulings=[Ruling(None, 0.0, counts=0.0)])
        gateway = a_gateway(FakeLimiter(), provider, breakers=breakers, price=lambda *_: 10**9)
        agent = Agent(gateway, settings_of(**pool), share=lambda: 0.0)
        return await agent.run(task, a_bot(), task_id="t1", deadline_s_left=20, before=NOTHING_BEFORE)

    provider = FakeProvider(list(replies))
    return asyncio.run(run()), provider


@pytest.mark.parametrize("function", ["acts", "acts_in_a_thread"])
def test_an_agent_in_a_circle_is_warned_and_ended_and_its_bot_is_at_fault(function: str) -> None:
    outcome, provider = work([calls(n, '{"q": "tide"}') for n in range(20)], function=f"{HERE}:{function}")
    assert isinstance(outcome.error, NoProgress) and outcome.fault is Fault.CIRCLING
    assert (len(provider.calls), outcome.attempts, outcome.bad_answers) == (4, 4, 1)
    assert outcome.sent["warned"] == "3 rounds of the same tool calls (lookup)"
    last = [call.messages[-1].text for call in provider.calls]
    assert ["3 times in a row" in text for text in last] == [False, False, False, True]


def test_an_agent_that_gets_out_of_it_is_not_accused() -> None:
    outcome, _ = work([*(calls(n, "{}") for n in range(3)), "It comes at noon."], function=f"{HERE}:acts")
    assert (outcome.status, outcome.fault, outcome.bad_answers) == ("ok", None, 0)
    assert "warned" in outcome.sent


def test_an_agent_that_does_something_else_each_time_is_neither_warned_nor_accused() -> None:
    outcome, _ = work([*(calls(n, f'{{"page": {n}}}') for n in range(30)), "noon"], function=f"{HERE}:acts")
    assert (outcome.status, outcome.attempts, outcome.sent) == ("ok", 31, {})


def test_792_calls_in_one_turn_are_ended_before_one_is_made() -> None:
    fan = calls(0, *(f'{{"page": {n}}}' for n in range(792)))
    outcome, provider = work([fan], function=f"{HERE}:acts")
    assert isinstance(outcome.error, CapReached) and outcome.error.cap == "max_tool_calls_per_turn"
    assert (outcome.fault, outcome.bad_answers, len(provider.calls)) == (Fault.FAN_OUT, 1, 1)


def test_a_pool_without_a_function_caps_the_calls_of_its_one_turn() -> None:
    task = BotTask.parse("find the tide", tools=[TOOL])
    outcome, _ = work([calls(0, *["{}"] * 9)], task=task, max_tool_calls_per_turn=8)
    assert isinstance(outcome.error, CapReached) and outcome.fault is Fault.FAN_OUT
    fine, _ = work([calls(0, *["{}"] * 8)], task=task, max_tool_calls_per_turn=8)
    assert fine.status == "ok" and len(fine.tool_calls) == 8


def test_the_last_turn_and_the_last_call_are_the_pools_and_accuse_no_bot() -> None:
    pages = [calls(n, f'{{"page": {n}}}') for n in range(30)]
    outcome, provider = work(pages, function=f"{HERE}:acts", max_turns=5)
    assert isinstance(outcome.error, CapReached) and outcome.error.cap == "max_turns"
    assert (outcome.fault, outcome.error.blame, len(provider.calls)) == (None, "prompt", 5)
    outcome, provider = work(pages, function=f"{HERE}:acts", max_tool_calls=7)
    assert isinstance(outcome.error, CapReached) and outcome.error.cap == "max_tool_calls"
    assert (outcome.fault, len(provider.calls)) == (None, 8)


def test_chats_at_once_are_turns_too() -> None:
    outcome, provider = work(["so"], function=f"{HERE}:asks_many", max_turns=6)
    assert isinstance(outcome.error, CapReached) and len(provider.calls) <= 6
    assert work(["so"], function=f"{HERE}:asks_many", max_turns=7)[0].status == "ok"


def test_a_function_may_catch_it_and_its_bot_is_at_fault_all_the_same() -> None:
    outcome, _ = work([calls(n, "{}") for n in range(20)], function=f"{HERE}:gives_in")
    assert (outcome.status, outcome.answer, outcome.bad_answers) == ("ok", CAUGHT, 1)
    outcome, _ = work([calls(n, f'{{"n": {n}}}') for n in range(20)], function=f"{HERE}:gives_in", max_turns=3)
    assert (outcome.status, outcome.answer, outcome.bad_answers) == ("ok", CAUGHT, 0)


def test_calls_that_fail_and_are_repeated_are_no_turns() -> None:
    down = ProviderUnavailable("503", retry_after_s=0.0)
    outcome, provider = work([down, down, "noon"], function=f"{HERE}:acts", max_turns=1)
    assert (outcome.status, len(provider.calls)) == ("ok", 3)


def test_turns_about_tools_that_the_task_brings_along_are_history() -> None:
    old: list[Message] = [Message(role="user", content="find the tide")]
    for number in range(5):
        call = ToolCall(id=f"old_{number}", name="lookup", arguments="{}")
        old += [Message(role="assistant", tool_calls=(call,)), _looked_up(call)]
    task = BotTask(messages=tuple(old))
    outcome, _ = work([calls(0, "{}"), calls(1, "{}"), "noon"], task=task, function=f"{HERE}:acts")
    assert (outcome.status, outcome.sent) == ("ok", {})


def test_a_pool_may_say_what_its_tasks_cost_at_most() -> None:
    outcome, provider = work(
        [calls(n, f'{{"n": {n}}}') for n in range(30)], function=f"{HERE}:acts", max_cost_usd=0.003
    )
    assert isinstance(outcome.error, TooExpensive) and len(provider.calls) == 3
    dearer = BotTask(prompt="find the tide", max_cost_usd=0.005)
    outcome, provider = work(
        [calls(n, f'{{"n": {n}}}') for n in range(30)], task=dearer, function=f"{HERE}:acts", max_cost_usd=0.003
    )
    assert isinstance(outcome.error, TooExpensive) and len(provider.calls) == 5
