"""Agents of every kind against the simulator, without Fleet in between: the vendors' SDKs, pydantic-ai, openai-agents.

What they are told that they have used must be what the ledger has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.every import every
from tests.workers.simulator.running import chat, running, send, total

ANTHROPIC = {"anthropic-version": "2023-06-01"}
SEARCH = {
    "name": "search",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["query", "limit"],
        "additionalProperties": False,
    },
}
CHAT_TOOL: dict[str, Any] = {"type": "function", "function": SEARCH}
RESPONSES_TOOL: dict[str, Any] = {"type": "function", **SEARCH, "strict": False}
ANTHROPIC_TOOL: dict[str, Any] = {"name": "search", "input_schema": SEARCH["parameters"]}


class Verdict(BaseModel):
    verdict: str
    score: int


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(seed=3) as address:
        yield address


def spent(url: str, run: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    """Return what a run returns, and what the ledger has of it."""
    before = total(url)
    found = run()
    return found, {name: value - before[name] for name, value in total(url).items()}


# -- the vendors' SDKs


def test_a_loop_over_the_openai_sdks_stream_runs_to_its_answer_and_the_bill_is_exact(url: str) -> None:
    def run() -> tuple[int, int, int, str]:
        messages: list[Any] = [{"role": "user", "content": "Tell me of bridges"}]
        given = made = turns = 0
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            while True:
                with client.chat.completions.stream(
                    model="agent-3",
                    messages=messages,
                    tools=[CHAT_TOOL],  # type: ignore[list-item]
                    stream_options={"include_usage": True},
                ) as stream:
                    done = stream.get_final_completion()
                assert done.usage is not None
                given, made = given + done.usage.prompt_tokens, made + done.usage.completion_tokens
                message = done.choices[0].message
                if not message.tool_calls:
                    return turns, given, made, message.content or ""
                turns += 1
                messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
                for call in message.tool_calls:
                    assert 1 <= json.loads(call.function.arguments)["limit"] <= 9
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": "a bridge"})

    (turns, given, made, text), billed = spent(url, run)
    assert turns == 3 and text
    assert (billed["served"], billed["input_tokens"], billed["output_tokens"]) == (4, given, made)


def test_a_loop_over_the_anthropic_sdks_stream_runs_to_its_answer_and_the_bill_is_exact(url: str) -> None:
    def run() -> tuple[int, int, int, str]:
        messages: list[Any] = [{"role": "user", "content": "Tell me of bridges"}]
        given = made = turns = 0
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
            while True:
                with client.messages.stream(
                    model="agent-3",
                    max_tokens=2000,
                    messages=messages,
                    tools=[ANTHROPIC_TOOL],  # type: ignore[list-item]
                ) as stream:
                    done = stream.get_final_message()
                given, made = given + done.usage.input_tokens, made + done.usage.output_tokens
                calls = [block for block in done.content if block.type == "tool_use"]
                if not calls:
                    return turns, given, made, "".join(block.text for block in done.content if block.type == "text")
                turns += 1
                messages.append({"role": "assistant", "content": done.content})
                results = [{"type": "tool_result", "tool_use_id": one.id, "content": "a bridge"} for one in calls]
                messages.append({"role": "user", "content": results})

    (turns, given, made, text), billed = spent(url, run)
    assert turns == 3 and text
    assert (billed["served"], billed["input_tokens"], billed["output_tokens"]) == (4, given, made)


def test_the_responses_api_goes_on_from_a_response_that_it_keeps(url: str) -> None:
    def run() -> tuple[int, int, int, str]:
        given = made = turns = 0
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            said: Any = "Tell me of bridges"
            before: str | None = None
            while True:
                done = client.responses.create(
                    model="agent-3",
                    input=said,
                    previous_response_id=before,
                    tools=[RESPONSES_TOOL],  # type: ignore[list-item]
                )
                Response.model_validate(done.model_dump(warnings=False))
                assert done.usage is not None and done.previous_response_id == before
                assert client.responses.retrieve(done.id).output_text == done.output_text
                given, made = given + done.usage.input_tokens, made + done.usage.output_tokens
                calls = [item for item in done.output if item.type == "function_call"]
                if not calls:
                    return turns, given, made, done.output_text
                turns, before = turns + 1, done.id
                said = [{"type": "function_call_output", "call_id": one.call_id, "output": "a bridge"} for one in calls]

    (turns, given, made, text), billed = spent(url, run)
    assert turns == 3 and text
    assert (billed["served"], billed["input_tokens"], billed["output_tokens"]) == (4, given, made)


def test_a_response_that_is_not_kept_cannot_be_gone_on_from() -> None:
    with running() as url, openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        kept = client.responses.create(model="m", input="Hello")
        other = client.responses.create(model="m", input="Hello", store=False)
        client.responses.delete(kept.id)
        for gone in (kept.id, other.id, "resp_none"):
            with pytest.raises(openai.BadRequestError) as refused:
                client.responses.create(model="m", input="And now?", previous_response_id=gone)
            assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(gone)
        mine = client.responses.create(model="m", input="Hello")
        stranger = client.with_options(api_key="other")
        with pytest.raises(openai.NotFoundError):
            stranger.responses.retrieve(mine.id)


def test_a_loop_over_geminis_wire_runs_to_its_answer_and_the_bill_is_exact(url: str) -> None:
    def run() -> tuple[int, int, int, str]:
        contents: list[Any] = [{"role": "user", "parts": [{"text": "Tell me of bridges"}]}]
        tools = [{"functionDeclarations": [{"name": "search", "parametersJsonSchema": SEARCH["parameters"]}]}]
        given = made = turns = 0
        while True:
            body = {"contents": contents, "tools": tools}
            done = send(url, "/v1beta/models/agent-3:generateContent", body).json
            given += done["usageMetadata"]["promptTokenCount"]
            made += done["usageMetadata"]["candidatesTokenCount"]
            said = done["candidates"][0]["content"]
            calls = [part["functionCall"] for part in said["parts"] if "functionCall" in part]
            if not calls:
                return turns, given, made, said["parts"][0]["text"]
            turns += 1
            back = [{"functionResponse": {"name": one["name"], "response": {"found": "a bridge"}}} for one in calls]
            contents += [said, {"role": "user", "parts": back}]

    (turns, given, made, text), billed = spent(url, run)
    assert turns == 3 and text
    assert (billed["served"], billed["input_tokens"], billed["output_tokens"]) == (4, given, made)


def test_a_loop_makes_the_same_call_whatever_comes_back_on_every_wire(url: str) -> None:
    def chat_turn(made: int) -> tuple[str, str]:
        call = {"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}
        back = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]
        messages = [{"role": "user", "content": "Go"}, *back * made]
        body = {"model": "agent-loop", "messages": messages, "tools": [CHAT_TOOL]}
        (found,) = send(url, "/v1/chat/completions", body).json["choices"][0]["message"]["tool_calls"]
        return found["function"]["name"], found["function"]["arguments"]

    def message_turn(made: int) -> tuple[str, str]:
        call = {"type": "tool_use", "id": "c", "name": "search", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "c", "content": "x"}
        back = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        messages = [{"role": "user", "content": "Go"}, *back * made]
        body = {"model": "agent-loop", "max_tokens": 500, "messages": messages, "tools": [ANTHROPIC_TOOL]}
        (found,) = send(url, "/v1/messages", body, **ANTHROPIC).json["content"]
        return found["name"], json.dumps(found["input"])

    for turn in (chat_turn, message_turn):
        first = turn(0)
        assert first[0] == "search" and every(turn(made) == first for made in (1, 2, 40))


def test_a_share_of_the_bots_loops_when_it_is_switched_on() -> None:
    with running(agents=True, loop_share=0.3, seed=5) as url:
        call = {"id": "c", "type": "function", "function": {"name": "search", "arguments": "{}"}}
        back = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "x"}]

        def loops(bot: int) -> bool:
            messages = [{"role": "system", "content": f"Bot {bot}"}, {"role": "user", "content": "Go"}, *back * 20]
            body = {"model": "any", "messages": messages, "tools": [CHAT_TOOL]}
            return bool(send(url, "/v1/chat/completions", body).json["choices"][0]["message"].get("tool_calls"))

        found = [loops(bot) for bot in range(60)]
        assert 9 <= sum(found) <= 27 and found == [loops(bot) for bot in range(60)]


def test_a_fan_of_hundreds_comes_whole_and_in_pieces_and_its_results_are_taken(url: str) -> None:
    body = {"model": "agent-fan", "messages": [{"role": "user", "content": "Go"}], "tools": [CHAT_TOOL]}
    answer = send(url, "/v1/chat/completions", body).json
    calls = answer["choices"][0]["message"]["tool_calls"]
    assert len({call["id"] for call in calls}) == 300
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
        client.chat.completions.stream(**body) as stream,
    ):
        assert len(stream.get_final_completion().choices[0].message.tool_calls or ()) == 300
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls]
    told = {**body, "messages": [*body["messages"], {"role": "assistant", "tool_calls": calls}, *results]}  # type: ignore[misc]
    assert send(url, "/v1/chat/completions", told).json["choices"][0]["message"]["content"]


def test_an_allowance_that_ends_within_the_calls_cuts_one_and_leaves_out_the_rest(url: str) -> None:
    reply = chat(url, "Go", model="agent-fan", tools=[CHAT_TOOL], max_tokens=60).json
    (choice,) = reply["choices"]
    *whole, cut = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 60)
    assert 1 <= len(whole) < 10 and every(bool(json.loads(one["function"]["arguments"])) for one in whole)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut["function"]["arguments"])


def test_a_name_of_no_agent_is_a_bad_request_where_tools_are_offered(url: str) -> None:
    reply = chat(url, model="agent-lop", tools=[CHAT_TOOL])
    assert (reply.status, reply.json["error"]["param"]) == (400, "model")


# -- pydantic-ai


@asynccontextmanager
async def model_of(url: str, wire: str, name: str) -> AsyncIterator[Model]:
    if wire == "messages":
        async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as theirs:
            yield AnthropicModel(name, provider=AnthropicProvider(anthropic_client=theirs))
        return
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        kind = OpenAIResponsesModel if wire == "responses" else OpenAIChatModel
        yield kind(name, provider=OpenAIProvider(openai_client=client))


def agent_of(model: Model, output: Any, seen: list[str]) -> Agent[None, Any]:
    agent: Agent[None, Any] = Agent(model, output_type=output, instructions="Be brief.", retries=3)

    @agent.tool_plain
    def search(query: str, limit: int) -> list[str]:
        seen.append("search")
        if len(seen) == 1:
            raise ModelRetry("another query, please")
        return [query] * (limit % 3)

    @agent.tool_plain
    def weather(city: str) -> str:
        seen.append("weather")
        return f"rain in {city}"

    return agent


@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
@pytest.mark.parametrize("output", [str, Verdict])
def test_a_pydantic_ai_agent_runs_whole_and_streamed_and_its_usage_is_the_ledgers(
    url: str, wire: str, output: type
) -> None:
    seen: list[str] = []

    async def run() -> list[Any]:
        async with model_of(url, wire, "agent-4") as model:
            agent, pieces = agent_of(model, output, seen), 0
            whole = await agent.run("Tell me of bridges")
            async with agent.iter("Tell me of rivers") as steps:
                async for node in steps:
                    if Agent.is_model_request_node(node):
                        async with node.stream(steps.ctx) as stream:
                            pieces += len([event async for event in stream])
        assert pieces > 20 and steps.result is not None
        return [whole, steps.result]

    results, billed = spent(url, lambda: asyncio.run(run()))
    assert every(isinstance(one.output, output) for one in results)
    assert [one.usage.requests for one in results] == [5, 5] and len(seen) >= 8
    assert sum(one.usage.input_tokens for one in results) == billed["input_tokens"]
    assert sum(one.usage.output_tokens for one in results) == billed["output_tokens"]


# -- openai-agents, where it is installed


@pytest.mark.parametrize("wire", ["chat", "responses", "stateful"])
@pytest.mark.parametrize("output", [None, Verdict])
def test_an_openai_agents_agent_runs_and_its_usage_is_the_ledgers(url: str, wire: str, output: type | None) -> None:
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)

    @agents.function_tool
    def search(query: str, limit: int) -> str:
        """Search."""
        return query * (limit % 3)

    async def run() -> list[Any]:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        kind = agents.OpenAIChatCompletionsModel if wire == "chat" else agents.OpenAIResponsesModel
        agent = agents.Agent(
            name="reader",
            model=kind("agent-3", openai_client=client),
            model_settings=agents.ModelSettings(include_usage=True),
            tools=[search],
            output_type=output,
        )
        more = {"auto_previous_response_id": True} if wire == "stateful" else {}
        whole = await agents.Runner.run(agent, "Tell me of bridges", **more)
        streamed = agents.Runner.run_streamed(agent, "Tell me of rivers", **more)
        async for _ in streamed.stream_events():
            pass
        await client.close()
        return [whole, streamed]

    results, billed = spent(url, lambda: asyncio.run(run()))
    assert every(isinstance(one.final_output, output or str) for one in results)
    used = [one.context_wrapper.usage for one in results]
    assert [one.requests for one in used] == [4, 4] and billed["served"] == 8
    assert sum(one.input_tokens for one in used) == billed["input_tokens"]
    assert sum(one.output_tokens for one in used) == billed["output_tokens"]
