"""Agents over the vendors' own SDKs against the simulator: runaways are ended, honest ones are let be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.config import PoolSettings, ProviderSettings, Settings
from fleet.errors import CapReached, NoProgress
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.workers.agent import Agent
from fleet.workers.bot.elsewhere import LoopBotContext
from fleet.workers.bot.persona import bot_of
from fleet.workers.gateway import Gateway, Route
from fleet.workers.providers import make_provider
from tests.every import every
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter
from tests.workers.simulator.running import running

HERE = "tests.workers.frameworks.test_watched_sdks"
SCHEMA = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
NAMES = ("search", "read", "note", "check")
FUNCTIONS = ("over_chat", "over_a_stream", "over_responses", "over_messages", "by_chat")


def used(name: str, arguments: object) -> str:
    """What a tool says: always the same of the same."""
    return f"{name} found nothing for {json.dumps(arguments, sort_keys=True)}"


async def over_chat(task: BotTask, bot: LoopBotContext, *, streams: bool = False) -> str:
    client = bot.openai()
    talk: list[Any] = [{"role": "user", "content": task.prompt}]
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
    said: Any
    while True:
        if streams:
            async with client.chat.completions.stream(model="any", messages=talk, tools=tools) as stream:
                said = (await stream.get_final_completion()).choices[0].message
        else:
            said = (await client.chat.completions.create(model="any", messages=talk, tools=tools)).choices[0].message
        if not said.tool_calls:
            return str(said.content)
        talk.append(said.model_dump(include={"role", "content", "tool_calls"}))
        for call in said.tool_calls:
            content = used(call.function.name, json.loads(call.function.arguments))
            talk.append({"role": "tool", "tool_call_id": call.id, "content": content})


async def over_a_stream(task: BotTask, bot: LoopBotContext) -> str:
    return await over_chat(task, bot, streams=True)


async def over_responses(task: BotTask, bot: LoopBotContext) -> str:
    client = bot.openai()
    tools: Any = [{"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in NAMES]
    new: Any = str(task.prompt)
    last: str | None = None
    while True:
        answer = await client.responses.create(model="any", input=new, tools=tools, previous_response_id=last)
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return str(answer.output_text)
        last = answer.id
        new = [
            {"type": "function_call_output", "call_id": call.call_id, "output": used(call.name, call.arguments)}
            for call in calls
        ]


async def over_messages(task: BotTask, bot: LoopBotContext) -> str:
    client = bot.anthropic()
    talk: list[Any] = [{"role": "user", "content": task.prompt}]
    tools: Any = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
    while True:
        answer = await client.messages.create(model="any", max_tokens=20_000, messages=talk, tools=tools)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            return "".join(block.text for block in answer.content if block.type == "text")
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": used(call.name, call.input)} for call in calls
        ]
        talk += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]


async def by_chat(task: BotTask, bot: LoopBotContext) -> str:
    talk: list[Any] = [{"role": "user", "content": task.prompt}]
    while True:
        reply = await bot.chat(talk, tools=[{"name": name, "parameters": SCHEMA} for name in NAMES])
        if not reply.tool_calls:
            return reply
        talk.append(reply.message)
        for call in reply.tool_calls:
            content = used(call.name, call.arguments)
            talk.append({"role": "tool", "tool_call_id": call.id, "content": content})


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    with running(latency_ms=1) as url:
        yield url


def work(url: str, function: str, model: str, *, tasks: int = 1, **pool: Any) -> list[Outcome]:
    """Let so many bots work with a model of the simulator."""

    async def run() -> list[Outcome]:
        provider = make_provider(ProviderSettings(kind="simulator", base_url=url))
        route = Route(provider, "simulator", model, LIMIT, "none", 60.0, simulated=True)
        settings = Settings(
            pools={"p": PoolSettings.model_validate({"bots": 20, "function": f"{HERE}:{function}", **pool})}
        )
        gateway = Gateway(FakeLimiter(), {"p": route}, lambda *_: None, breakers=FakeBreakers())
        agent = Agent(gateway, settings)
        try:
            return await asyncio.gather(*(
                agent.run(BotTask(prompt=f"task {n}"), bot_of(f"p-{n + 1:03}", settings), task_id=f"t{n}",
                          deadline_s_left=20)
                for n in range(tasks)
            ))  # fmt: skip
        finally:
            await agent.close()
            await provider.close()

    return asyncio.run(run())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("model", "turns"), [("agent-loop", 4), ("agent-loop-4", 16)])
def test_an_agent_in_a_circle_is_ended_and_the_error_is_found_behind_the_sdks_own(
    simulator: str, function: str, model: str, turns: int
) -> None:
    (outcome,) = work(simulator, function, model)
    assert isinstance(outcome.error, NoProgress), outcome.error
    if function == "over_responses":  # the simulator takes the warning for its user's wish, and goes round with another
        turns += 3 * turns // 4
    assert (outcome.fault, outcome.attempts) == (Fault.CIRCLING, turns)
    assert outcome.sent["warned"].startswith("3 rounds of the same ")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_turn_that_fans_out_is_ended_before_a_tool_is_called(simulator: str, function: str) -> None:
    (outcome,) = work(simulator, function, "agent-fan-200", max_output_tokens=20_000)
    assert isinstance(outcome.error, CapReached), outcome.error
    assert (outcome.fault, outcome.attempts) == (Fault.FAN_OUT, 1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_turns_of_a_run_are_capped(simulator: str, function: str) -> None:
    (outcome,) = work(simulator, function, "agent-9", max_turns=3)
    assert isinstance(outcome.error, CapReached) and outcome.error.cap == "max_turns"
    assert (outcome.fault, outcome.attempts) == (None, 3)


def test_of_twenty_in_circles_all_are_ended_and_of_thirty_honest_ones_none_is_accused(simulator: str) -> None:
    circling = [work(simulator, name, model, tasks=2) for name in FUNCTIONS for model in ("agent-loop", "agent-loop-3")]
    assert [type(one.error) for pair in circling for one in pair] == [NoProgress] * 20
    honest = [work(simulator, name, "agent-8", tasks=6) for name in FUNCTIONS]
    assert sum(map(len, honest)) == 30
    assert every(one.status == "ok" and one.fault is None and "warned" not in one.sent for lot in honest for one in lot)
