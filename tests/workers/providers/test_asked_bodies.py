"""What both native adapters send for what a task asks, held against the vendors' own types, and what they read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from fleet.conversation import Message, ThinkingPart, Tool, ToolCall
from fleet.errors import BadRequest
from fleet.models import BotTask
from fleet.schema import compiled
from fleet.workers.calls import PLAIN, Call, Completion, Wishes
from fleet.workers.providers.wire_schema import SchemaRefused
from tests.test_asking import ANTHROPIC, PLACE
from tests.workers.providers.raw_server import KEY, call, provider, raw_server, response

#: Kept, for what they validate is checked as it is read.
VENDORS: dict[str, tuple[Any, TypeAdapter[Any]]] = {
    "openai": (CompletionCreateParamsNonStreaming, TypeAdapter(CompletionCreateParamsNonStreaming)),
    "anthropic": (MessageCreateParamsNonStreaming, TypeAdapter(MessageCreateParamsNonStreaming)),
}
SAID: dict[str, dict[str, Any]] = {
    "openai": {"choices": [{"message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}]},
    "anthropic": {"type": "message", "content": [{"type": "text", "text": "four"}], "stop_reason": "end_turn"},
}
TOOL = Tool(name="temperature", description="How warm.", parameters=PLACE)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}, "required": ["a"]}


def send(
    kind: str, *, wishes: Wishes = PLAIN, messages: tuple[Message, ...] | None = None, answer: object = None
) -> tuple[dict[str, Any], Completion, str]:
    """Return the body that was sent, what came of the answer, and the request's head."""

    async def run() -> tuple[dict[str, Any], Completion, str]:
        plain = call()
        asked = Call(plain.model, messages or plain.messages, 0.7, 2000, 5.0, wishes)
        async with raw_server(response(answer or SAID[kind])) as server, provider(server.url, kind) as adapter:
            completion = await adapter.complete(asked, api_key=KEY)
            return server.bodies[0], completion, server.heads[0]

    return asyncio.run(run())


def conforms(kind: str, body: dict[str, Any]) -> None:
    """Hold a body against the vendor's own types: every field is known, and every value fits."""
    kinds, adapter = VENDORS[kind]
    known = {name for one in (kinds, *kinds.__orig_bases__) for name in one.__annotations__}
    assert set(body) - {"temperature", "top_p"} <= known  # which the newest SDK of Anthropic has no more
    exhaust(adapter.validate_python(body))


def exhaust(value: Any) -> None:
    """Look at everything: pydantic checks what is iterable as it is read."""
    if isinstance(value, dict):
        for inner in value.values():
            exhaust(inner)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for inner in value:
            exhaust(inner)


ALL = {
    "openai": Wishes(
        schema=compiled(SCHEMA), tools=(TOOL,), tool_choice="temperature", parallel_tool_calls=False, effort="low",
        verbosity="high", seed=1, top_p=0.5, stop=("END",), tier="flex", n=2,
    ),
    "anthropic": Wishes(
        schema=compiled(SCHEMA), tools=(TOOL,), tool_choice="required", parallel_tool_calls=False, effort="low",
        thinking_tokens=1024, stop=("END",), tier="standard",
    ),
}  # fmt: skip


def test_all_that_can_be_asked_on_the_openai_wire() -> None:
    body, _, _ = send("openai", wishes=ALL["openai"])
    conforms("openai", body)
    function = {"name": "temperature", "description": "How warm.", "parameters": PLACE}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "temperature"}}
    told = ("parallel_tool_calls", "reasoning_effort", "verbosity", "seed", "top_p", "stop", "service_tier", "n")
    assert [body[name] for name in told] == [False, "low", "high", 1, 0.5, ["END"], "flex", 2]
    form = body["response_format"]["json_schema"]
    assert (body["response_format"]["type"], form["strict"]) == ("json_schema", True)
    assert form["schema"] == {**SCHEMA, "additionalProperties": False}


def test_all_that_can_be_asked_on_anthropics_wire() -> None:
    body, completion, _ = send("anthropic", wishes=ALL["anthropic"])
    conforms("anthropic", body)
    assert body["tools"] == [{"name": "temperature", "description": "How warm.", "input_schema": PLACE}]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert (body["stop_sequences"], body["service_tier"]) == (["END"], "standard_only")
    integer = {"type": "integer", "description": "(minimum: 1)"}
    schema = {"type": "object", "properties": {"a": integer}, "required": ["a"], "additionalProperties": False}
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    assert "temperature" not in body and completion.left_out == ("temperature",)  # refused beside a number of tokens


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_conversation_with_a_tool_and_an_image_is_written_as_the_vendor_does(kind: str) -> None:
    image = {"type": "image", "data": "iVBORw0KGgo=", "media_type": None}
    shown = {"role": "user", "content": [{"type": "text", "text": "Like this?"}, image]}
    task = BotTask.parse(messages=[*ANTHROPIC, shown])
    body, _, _ = send(kind, messages=task.conversation())
    conforms(kind, body)
    if kind == "openai":
        assert [message["role"] for message in body["messages"]] == ["developer", "user", "assistant", "tool", "user"]
        assert body["messages"][2]["content"] is None
        assert body["messages"][4]["content"][1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    else:
        assert body["system"] == "Be brief."
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text", "image"]


def test_an_address_of_an_image_or_a_file_is_handed_on() -> None:
    parts = [{"type": "image", "url": "https://x.y/a.png"}, {"type": "file", "url": "https://x.y/a.pdf", "name": "a"}]
    task = BotTask.parse(messages=[{"role": "user", "content": parts}])
    body, _, _ = send("anthropic", messages=task.conversation())
    conforms("anthropic", body)
    assert [block["source"] for block in body["messages"][0]["content"]] == [
        {"type": "url", "url": "https://x.y/a.png"},
        {"type": "url", "url": "https://x.y/a.pdf"},
    ]
    body, _, _ = send("openai", messages=task.conversation())
    conforms("openai", body)
    assert body["messages"][0]["content"][0]["image_url"] == {"url": "https://x.y/a.png"}


def test_tool_calls_and_the_tier_that_answered_are_read_from_both_wires() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": '{"place":"Rome"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [called]}
    answer = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "service_tier": "flex"}
    _, openai, _ = send("openai", answer=answer)
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    block = {"type": "tool_use", "id": "c1", "name": "temperature", "input": {"place": "Rome"}}
    usage = {"input_tokens": 3, "output_tokens": 4, "service_tier": "priority"}
    answer = {"type": "message", "content": [thought, block], "stop_reason": "tool_use", "usage": usage}
    _, anthropic, _ = send("anthropic", answer=answer)
    assert openai.tool_calls == (ToolCall(id="c1", name="temperature", arguments='{"place":"Rome"}'),)
    assert anthropic.tool_calls == (ToolCall(id="c1", name="temperature", arguments='{"place": "Rome"}'),)
    assert (openai.finish_reason, anthropic.finish_reason) == ("tool_calls", "tool_calls")
    assert (openai.tier, anthropic.tier) == ("flex", "priority")
    assert anthropic.thoughts == (ThinkingPart(type="thinking", text="hm", signature="s"),)


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"tool_calls": [{"function": {"name": "a", "arguments": {"x": 1}}}]}, [("call_0", "a", '{"x": 1}')]),
        ({"tool_calls": [{"id": "", "function": {"name": "a", "arguments": ""}}]}, [("call_0", "a", "{}")]),
        ({"function_call": {"name": "a", "arguments": "{}"}}, [("call_0", "a", "{}")]),
        ({"tool_calls": [{"id": "c"}, None, 3, {"function": {"name": 5}}]}, []),
        ({"tool_calls": "none"}, []),
    ],
)
def test_odd_tool_calls_are_read_as_far_as_they_are_calls(
    message: dict[str, Any], read: list[tuple[str, str, str]]
) -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "x", **message}, "finish_reason": "stop"}]}
    _, completion, _ = send("openai", answer=answer)
    assert [(call.id, call.name, call.arguments) for call in completion.tool_calls] == read


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "array", "items": {"type": "integer"}}, [1, 2]),
        ({"type": "integer"}, 7),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"$ref": "#/$defs/list", "$defs": {"list": {"type": "array", "items": {"type": "string"}}}}, ["ä"]),
    ],
)
def test_an_answer_that_is_no_object_is_asked_for_in_one_on_the_openai_wire(schema: Any, value: Any) -> None:
    content = json.dumps({"answer": value})
    answer = {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    for form in ("strict", "loose"):
        body, completion, _ = send("openai", wishes=Wishes(schema=compiled(schema), form=form), answer=answer)
        conforms("openai", body)
        told = body["response_format"]["json_schema"]["schema"]
        assert told["type"] == "object" and not compiled(told).misfits({"answer": value})
        assert json.loads(completion.text) == value
    _, bare, _ = send("openai", wishes=Wishes(schema=compiled(schema)), answer=SAID["openai"])
    assert bare.text == "four"


def test_the_other_answers_come_with_the_first() -> None:
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in ("a", "b", "c")]
    _, completion, _ = send("openai", wishes=Wishes(n=3), answer={"choices": choices})
    assert (completion.text, completion.others) == ("a", ("b", "c"))


def test_thoughts_go_back_to_anthropic_before_the_call_and_nowhere_else() -> None:
    thoughts = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
    turn = ANTHROPIC[2]
    messages = [*ANTHROPIC[:2], {**turn, "content": [*turn["content"], *thoughts]}, ANTHROPIC[3]]
    told = BotTask.parse(messages=messages).conversation()
    body, _, _ = send("anthropic", messages=told)
    conforms("anthropic", body)
    kinds = [block["type"] for block in body["messages"][1]["content"]]
    assert kinds == ["thinking", "redacted_thinking", "tool_use"]
    body, _, _ = send("openai", messages=told)
    conforms("openai", body)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("openai", "thinking_tokens", 9),
        ("anthropic", "seed", 1),
        ("anthropic", "verbosity", "low"),
        ("anthropic", "n", 2),
    ],
)
def test_what_a_wire_has_no_field_for(kind: str, field: str, value: Any) -> None:
    own = Wishes(**{field: value}, asked=frozenset({field}))
    with pytest.raises(BadRequest, match=rf"{field}: expected a task without it.*drop_params"):
        send(kind, wishes=own)
    body, completion, _ = send(kind, wishes=replace(own, drop_params=True))
    assert completion.left_out == (field,) and field not in body
    _, completion, _ = send(kind, wishes=replace(own, asked=frozenset()))  # the pool's or the persona's
    assert completion.left_out == (field,)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_further_fields_and_headers_are_sent_and_never_over_fleets_own(kind: str) -> None:
    wishes = Wishes(extra_body={"user": "me"}, extra_headers={"X-Trace": "1"})
    body, _, head = send(kind, wishes=wishes)
    assert body["user"] == "me" and "X-Trace: 1" in head and KEY in head
    with pytest.raises(BadRequest, match=r"extra_body.model: expected a field that Fleet does not set"):
        send(kind, wishes=Wishes(extra_body={"model": "other"}))


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_refused_schema_is_told_from_a_refused_request(kind: str) -> None:
    async def run(body: object) -> None:
        asked = replace(call(), wishes=Wishes(schema=compiled(SCHEMA)))
        async with raw_server(response(body, status=400)) as server, provider(server.url, kind) as adapter:
            await adapter.complete(asked, api_key=KEY)

    with pytest.raises(SchemaRefused) as caught:
        asyncio.run(run({"error": {"message": "Invalid schema for response_format 'answer'"}}))
    assert not caught.value.whole
    with pytest.raises(BadRequest):
        asyncio.run(run({"error": {"message": "top_p must be at most 1"}}))
