"""Lines of OpenAI's and Anthropic's batch files, and messages in parts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.cli.run.entries import FileTask, LineFormat, entry_of, read_question
from fleet.cli.run.recognition import Occurrences

HI = [{"role": "user", "content": "hi"}]


def entry(value: Any, reading: LineFormat | None = None) -> FileTask:
    reading = reading or LineFormat()
    return entry_of(read_question(7, json.dumps(value).encode(), reading, Occurrences()), reading)


def said(found: FileTask) -> list[tuple[str, str]]:
    assert found.task is not None, found.error
    return [(message.role, message.content) for message in found.task.conversation()]


def openai(**body: Any) -> dict[str, Any]:
    return {"custom_id": "b1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", **body}}


def test_a_line_of_openai_is_a_task_with_its_id_its_messages_and_its_longest_answer() -> None:
    reading = LineFormat()
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    found = entry(openai(messages=HI, max_tokens=7, response_format=form, temperature=0), reading)
    assert (found.id, said(found)) == ("b1", [("user", "hi")])
    assert found.task is not None
    assert (found.task.max_output_tokens, found.task.answer_schema) == (7, schema)
    told = reading.told_unused()
    assert told is not None and "body.model, body.temperature" in told


def test_a_line_of_anthropic_brings_its_system_prompt() -> None:
    params = {"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "be brief"}], "messages": HI}
    found = entry({"custom_id": "a1", "params": params})
    assert (found.id, said(found)) == ("a1", [("system", "be brief"), ("user", "hi")])
    assert found.task is not None and found.task.max_output_tokens == 9


def test_lines_for_other_endpoints_of_openai() -> None:
    responses = {"input": "hi", "instructions": "be brief", "max_output_tokens": 5}
    found = entry({"custom_id": "r", "url": "/v1/responses", "body": responses})
    assert said(found) == [("system", "be brief"), ("user", "hi")]
    assert said(entry({"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "hi"}})) == [("user", "hi")]
    assert "url" in str(entry({"custom_id": "e", "url": "/v1/embeddings", "body": {"input": "hi"}}).error)


def test_fleets_own_options_stand_beside_the_request() -> None:
    found = entry({**openai(messages=HI, max_tokens=7), "pool": "review", "max_output_tokens": 3})
    assert found.task is not None
    assert (found.task.pool, found.task.max_output_tokens) == ("review", 3)


def test_text_parts_are_joined_and_developers_stay_developers() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    assert said(entry({"messages": messages})) == [("developer", "be brief"), ("user", "one\ntwo")]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        (openai(messages=[*HI, {"role": "user", "content": [{"type": "input_audio"}]}]), "body.messages.1.content.0"),
        (openai(messages=HI, tools=[{"type": "function"}]), "tools.0.name"),
        (openai(messages=HI, tools=[{"type": "web_search"}]), "body.tools.0.type"),
        (openai(), "body.messages"),
        (openai(messages=HI, max_tokens="many"), "max_output_tokens"),
        ({"custom_id": "x", "body": "text"}, "custom_id, body"),
    ],
)
def test_what_a_task_cannot_carry_fails_the_line_and_is_named(value: Any, field: str) -> None:
    found = entry(value)
    assert found.task is None
    assert field in str(found.error)


PLACE = {"type": "object", "properties": {"place": {"type": "string"}}}
ANSWER = {"type": "object", "properties": {"a": {"type": "integer"}}}


def asked(found: FileTask) -> dict[str, Any]:
    assert found.task is not None, found.error
    return found.task.model_dump(exclude_defaults=True, exclude={"messages", "prompt", "max_output_tokens"})


def test_what_a_line_of_openai_asks_is_asked() -> None:
    body = {
        "messages": HI, "tools": [{"type": "function", "function": {"name": "t", "parameters": PLACE}}],
        "tool_choice": {"type": "function", "function": {"name": "t"}}, "parallel_tool_calls": False,
        "reasoning_effort": "low", "verbosity": "high", "seed": 3, "top_p": 0.5, "stop": "END",
        "service_tier": "default", "n": 2, "max_completion_tokens": 9,
    }  # fmt: skip
    reading = LineFormat()
    assert asked(entry(openai(**body), reading)) == {
        "tools": ({"name": "t", "parameters": PLACE},), "tool_choice": "t", "parallel_tool_calls": False,
        "effort": "low", "verbosity": "high", "seed": 3, "top_p": 0.5, "stop": ("END",), "tier": "standard", "n": 2,
    }  # fmt: skip
    assert reading.told_unused() is not None and "'body.model'" in str(reading.told_unused())


def test_what_a_line_of_the_responses_api_asks_is_asked() -> None:
    form = {"type": "json_schema", "name": "a", "schema": ANSWER}
    body = {
        "input": "hi", "reasoning": {"effort": "high", "summary": "auto"}, "text": {"format": form, "verbosity": "low"},
        "tools": [{"type": "function", "name": "t", "parameters": PLACE}],
    }  # fmt: skip
    reading = LineFormat()
    found = asked(entry({"custom_id": "r", "url": "/v1/responses", "body": body}, reading))
    assert (found["effort"], found["verbosity"], found["answer_schema"]) == ("high", "low", ANSWER)
    assert found["tools"][0]["name"] == "t" and "body.reasoning.summary" in str(reading.told_unused())


def test_what_a_line_of_anthropic_asks_is_asked() -> None:
    params = {
        "model": "m", "max_tokens": 2000, "messages": HI, "tools": [{"name": "t", "input_schema": PLACE}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "service_tier": "standard_only",
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": ANSWER}},
    }  # fmt: skip
    assert asked(entry({"custom_id": "a", "params": params})) == {
        "tools": ({"name": "t", "parameters": PLACE},), "tool_choice": "required", "parallel_tool_calls": False,
        "stop": ("END",), "thinking_tokens": 1024, "tier": "standard", "effort": "low", "answer_schema": ANSWER,
    }  # fmt: skip


def test_images_and_tool_calls_of_a_line_are_no_longer_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.y/a.png"}}
    call = {"id": "c", "type": "function", "function": {"name": "t", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "a cat"},
    ]
    for line in (openai(messages=messages), {"id": "x", "messages": messages}):
        found = entry(line)
        assert found.task is not None, found.error
        roles = [message.role for message in found.task.conversation()]
        assert roles == ["user", "assistant", "tool"] and found.task.conversation()[0].text == "look"


def test_the_older_functions_of_openai_are_tools() -> None:
    found = asked(
        entry(openai(messages=HI, functions=[{"name": "t", "parameters": PLACE}], function_call={"name": "t"}))
    )
    assert found == {"tools": ({"name": "t", "parameters": PLACE},), "tool_choice": "t"}
