"""OpenAI's Responses API and Gemini's wire, read by the vendors' own types, and by pydantic-ai's road."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import openai
import pydantic
import pytest
from google.genai.types import GenerateContentResponse
from openai.types.responses import Response, ResponseStreamEvent

from fleet.conversation import ImagePart, Message, Tool
from fleet.errors import BadRequest, NotServed, ProviderUnavailable, RateLimited, Relearnt
from fleet.schema import compiled
from fleet.workers.calls import Call, Completion, Delta, Wishes
from tests.every import every
from tests.workers.providers.models.vendors import models
from tests.workers.providers.raw_server import call as a_call
from tests.workers.simulator.running import running, send, total

RESPONSES, GOOGLE = "openai-responses:gpt-5.4-mini", "google:gemini-3-flash-preview"
BOTH = pytest.mark.parametrize("model", [RESPONSES, GOOGLE])
EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)
WEATHER = Tool(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
                "additionalProperties": False},
)  # fmt: skip
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 4, "maximum": 9}}, "required": ["n"],
          "additionalProperties": False}  # fmt: skip


@pytest.fixture
def url() -> Iterator[str]:
    with running(seed=3) as address:
        yield address


def asking(model: str, prompt: str = "What is 2+2?", **wishes: Any) -> Call:
    return replace(
        a_call(prompt, model=model, timeout_s=120.0, max_output_tokens=6000), temperature=None, wishes=Wishes(**wishes)
    )


def answers(url: str, *calls: Call) -> list[Completion]:
    async def main() -> list[Completion]:
        async with models(url) as adapter:
            return [await adapter.complete(one, api_key="test-key") for one in calls]

    return asyncio.run(main())


@BOTH
def test_an_answer_and_its_usage_are_those_of_the_ledger_whole_or_in_pieces(url: str, model: str) -> None:
    async def main() -> tuple[Completion, list[Delta | Completion]]:
        async with models(url) as adapter:
            whole = await adapter.complete(asking(model), api_key="test-key")
            async with aclosing(adapter.stream(asking(model, "Tell me of bridges"), api_key="test-key")) as pieces:
                return whole, [piece async for piece in pieces]

    whole, (*pieces, last) = asyncio.run(main())
    assert isinstance(last, Completion)
    assert (whole.text, whole.finish_reason, last.finish_reason) == ("4", "stop", "stop")
    assert len(pieces) > 3 and "".join(piece.text for piece in pieces) == last.text
    billed = total(url)
    assert billed["calls"] == 2
    assert whole.usage.input_tokens + last.usage.input_tokens == billed["input_tokens"]
    assert whole.usage.output_tokens + last.usage.output_tokens == billed["output_tokens"]


@BOTH
def test_schemas_thoughts_tools_and_parts_come_as_they_were_asked(url: str, model: str) -> None:
    image = ImagePart(type="image", data="aGVsbG8=", media_type="image/png")
    seen = replace(asking(model), messages=(Message(role="user", content=(image,)),))
    formed, thought, called, cut, looked = answers(
        url,
        asking(model, "Pick a number", schema=compiled(SCHEMA)),
        asking(model, "Tell me of bridges", effort="low"),
        asking(model, "Please get_weather in Bonn", tools=(WEATHER,)),
        replace(asking(model, "Tell me of bridges"), max_output_tokens=16),
        seen,
    )
    assert 4 <= json.loads(formed.text)["n"] <= 9
    assert thought.usage.reasoning_tokens > 10 and thought.usage.output_tokens > thought.usage.reasoning_tokens
    (made,) = called.tool_calls
    assert made.name == "get_weather" and json.loads(made.arguments)["city"]
    assert cut.finish_reason == "length" and cut.usage.output_tokens == 16
    assert looked.text and looked.usage.input_tokens > 100
    turns = (Message(role="user", content="Please get_weather in Bonn"), Message(role="assistant", tool_calls=(made,)),
             Message(role="tool", tool_call_id=made.id, content="it rains"))  # fmt: skip
    (told,) = answers(url, replace(asking(model, tools=(WEATHER,)), messages=turns))
    assert told.text and not told.tool_calls
    used = [one.usage for one in (formed, thought, called, cut, looked, told)]
    billed = total(url)
    assert sum(one.input_tokens for one in used) == billed["input_tokens"]
    assert sum(one.output_tokens for one in used) == billed["output_tokens"]
    assert sum(one.reasoning_tokens for one in used) == billed["thinking_tokens"]


@BOTH
def test_a_limit_says_when_to_come_again_gemini_in_its_body(model: str) -> None:
    with running(rpm=1, tpm=10**9) as url, pytest.raises(RateLimited) as refused:
        answers(url, asking(model), asking(model))
    assert refused.value.retry_after_s is not None and 30 < refused.value.retry_after_s <= 61
    told = [reading.limit for reading in refused.value.rates or ()]
    assert (1 in told) == (model == RESPONSES)


def test_failures_have_the_vendors_own_shape() -> None:
    with running(error_rate=1.0) as url:
        with pytest.raises(ProviderUnavailable, match="simulated failure"):
            answers(url, asking(GOOGLE))
        reply = send(url, "/v1beta/models/m:generateContent?key=k", {"contents": []})
        assert (reply.status, reply.json["error"]["code"], reply.json["error"]["status"]) == (
            400,
            400,
            "INVALID_ARGUMENT",
        )
        assert send(url, "/v1beta/models/m:countTokens", {}).status == 404
        assert send(url, "/v1/responses", {"model": "m", "input": [{"type": "nonsense"}]}).json["error"]["param"] == (
            "input[0].type"
        )


@pytest.mark.parametrize(
    ("odd", "expected"),
    [("refused-temperature", Relearnt), ("no-such-model", NotServed), ("moderated", BadRequest),
     ("overloaded-529", ProviderUnavailable), ("error-in-the-stream", ProviderUnavailable)],
)  # fmt: skip
@pytest.mark.parametrize("vendor", ["openai-responses", "google"])
def test_odd_behaviour_meets_the_other_wires_too(url: str, vendor: str, odd: str, expected: type[Exception]) -> None:
    async def main() -> None:
        one = replace(asking(f"{vendor}:odd-{odd}", "Tell me of bridges"), temperature=0.5)
        async with models(url) as adapter, aclosing(adapter.stream(one, api_key="test-key")) as pieces:
            async for _ in pieces:
                pass

    with pytest.raises(expected):
        asyncio.run(main())


# -- by the vendors' own types, which the road above reads leniently


FULL: list[dict[str, Any]] = [
    {"input": "Tell me of bridges"},
    {"input": "Tell me of bridges", "reasoning": {"effort": "low"}, "max_output_tokens": 4000},
    {"input": "get_weather in Bonn", "tools": [{"type": "function", "name": "get_weather", "strict": True,
                                                "parameters": WEATHER.parameters}]},
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Tell me"}]}], "max_output_tokens": 16},
]  # fmt: skip


@pytest.mark.parametrize("body", FULL)
def test_each_response_and_each_event_is_one_of_the_openai_sdks_types(url: str, body: dict[str, Any]) -> None:
    reply = send(url, "/v1/responses", {"model": "m", **body})
    whole = Response.model_validate(reply.json)
    assert whole.status == ("incomplete" if body.get("max_output_tokens") == 16 else "completed")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        events = list(client.responses.create(model="m", stream=True, **body))
    for event in events:
        EVENT.validate_python(event.model_dump(exclude_unset=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == f"response.{whole.status}"


def test_each_answer_of_gemini_is_one_of_the_google_sdks_type(url: str) -> None:
    contents = [{"role": "user", "parts": [{"text": "Tell me of bridges"}]}]
    config = {"maxOutputTokens": 4000, "thinkingConfig": {"thinkingBudget": 100, "includeThoughts": True},
              "candidateCount": 2}  # fmt: skip
    for more in ({}, {"generationConfig": config}, {"tools": [{"functionDeclarations": [{"name": "bridges"}]}]}):
        reply = send(url, "/v1beta/models/m:generateContent", {"contents": contents, **more})
        answer = GenerateContentResponse.model_validate(reply.json)
        assert answer.candidates and every(one.finish_reason == "STOP" for one in answer.candidates)
        told = answer.usage_metadata
        assert told is not None and told.total_token_count == (told.prompt_token_count or 0) + (
            told.candidates_token_count or 0
        ) + (told.thoughts_token_count or 0)
    assert send(url, "/v1beta/models").json["models"][0]["name"] == "models/simulated-1"
