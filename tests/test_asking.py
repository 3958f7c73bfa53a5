"""What a task may ask of its model: the spellings that are understood, and what is refused in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.config import PoolSettings, Settings
from fleet.conversation import FilePart, ImagePart, Message, TextPart, ToolCall
from fleet.engine.messages.envelope import task_body
from fleet.engine.messages.pool_choice import candidates
from fleet.errors import InvalidTask
from fleet.models import BotTask

PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
CALL = {"id": "c1", "type": "function", "function": {"name": "temperature", "arguments": '{"place": "Rome"}'}}
OPENAI = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "How warm is Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None, "annotations": [], "audio": None},
    {"role": "tool", "tool_call_id": "c1", "name": "temperature", "content": "21"},
]
RESPONSES = [
    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How warm is Rome?"}]},
    {"type": "function_call", "call_id": "c1", "name": "temperature", "arguments": '{"place": "Rome"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "21"},
]
ANTHROPIC = [
    {"role": "developer", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "How warm is Rome?", "cache_control": None}],
    },
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "c1", "name": "temperature", "input": {"place": "Rome"}}],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "21"}]},
]
MEANT = (
    Message(role="developer", content="Be brief."),
    Message(role="user", content="How warm is Rome?"),
    Message(role="assistant", tool_calls=(ToolCall(id="c1", name="temperature", arguments='{"place": "Rome"}'),)),
    Message(role="tool", content="21", tool_call_id="c1"),
)


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidTask) as caught:
        BotTask.parse(**{"prompt": "x", **fields})
    assert len(str(caught.value).encode()) <= 1000
    return str(caught.value)


@pytest.mark.parametrize("messages", [OPENAI, RESPONSES, ANTHROPIC], ids=["openai", "responses", "anthropic"])
def test_a_conversation_with_a_tool_means_the_same_in_every_vendors_spelling(messages: list[dict[str, Any]]) -> None:
    task = BotTask.parse(messages=messages)
    assert task.messages == MEANT
    arrived = json.loads(task_body(task, "research"))[1]
    assert BotTask.parse(**arrived).messages == MEANT  # as it travels, it is known again


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "temperature", "description": "How warm.", "parameters": PLACE},
        {"name": "temperature", "description": "How warm.", "input_schema": PLACE},
        {"type": "custom", "name": "temperature", "description": "How warm.", "input_schema": PLACE},
        {"type": "function", "name": "temperature", "description": "How warm.", "parameters": PLACE},
        {"type": "function", "function": {"name": "temperature", "description": "How warm.", "parameters": PLACE}},
    ],
)
def test_a_tool_means_the_same_in_every_vendors_spelling(tool: dict[str, Any]) -> None:
    (read,) = BotTask.parse("x", tools=[tool]).tools
    assert (read.name, read.description, read.parameters) == ("temperature", "How warm.", PLACE)


@pytest.mark.parametrize(
    ("choice", "read"),
    [
        ("auto", "auto"),
        ("any", "required"),
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "temperature"}, "temperature"),
        ({"type": "function", "function": {"name": "temperature"}}, "temperature"),
        ({"type": "function", "name": "temperature"}, "temperature"),
        ({"type": "none"}, "none"),
    ],
)
def test_a_choice_of_tools_means_the_same_in_every_vendors_spelling(choice: Any, read: str) -> None:
    assert BotTask.parse("x", tools=[{"name": "temperature"}], tool_choice=choice).tool_choice == read


@pytest.mark.parametrize(
    ("part", "meant"),
    [
        ({"type": "text", "text": "a"}, TextPart(type="text", text="a")),
        ({"type": "image_url", "image_url": {"url": "https://x.y/a.png", "detail": "low"}},
         ImagePart(type="image", url="https://x.y/a.png", detail="low")),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}},
         ImagePart(type="image", data="iVBOR", media_type="image/png")),
        ({"type": "input_image", "image_url": "http://x.y/a.png"}, ImagePart(type="image", url="http://x.y/a.png")),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"}},
         ImagePart(type="image", data="iVBOR", media_type="image/png")),
        ({"type": "image", "source": {"type": "url", "url": "https://x.y/a"}}, ImagePart(type="image", url="https://x.y/a")),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi"}},
         FilePart(type="file", data="JVBERi", media_type="application/pdf", name="a.pdf")),
        ({"type": "input_file", "filename": "a.pdf", "file_url": "https://x.y/a.pdf"},
         FilePart(type="file", url="https://x.y/a.pdf", name="a.pdf")),
        ({"type": "document", "title": "a", "citations": {"enabled": False}, "context": None,
          "source": {"type": "base64", "media_type": "text/html", "data": "J"}},
         FilePart(type="file", data="J", media_type="text/html", name="a")),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
         TextPart(type="text", text="words")),
    ],
)  # fmt: skip
def test_a_part_means_the_same_in_every_vendors_spelling(part: dict[str, Any], meant: Any) -> None:
    beside = {"type": "image", "url": "https://x.y/other"}
    task = BotTask.parse(messages=[{"role": "user", "content": [part, beside]}])
    assert task.messages is not None and task.messages[0].content == (meant, ImagePart(**beside))
    arrived = json.loads(task_body(task, "research"))[1]
    assert BotTask.parse(**arrived).messages == task.messages


def test_several_results_in_one_turn_of_the_user_become_as_many_messages_before_the_text() -> None:
    calls = [{"type": "tool_use", "id": i, "name": "t", "input": {}} for i in ("a", "b")]
    results = [{"type": "tool_result", "tool_use_id": i, "content": [{"type": "text", "text": i}]} for i in ("a", "b")]
    said = {"type": "text", "text": "and now?"}
    task = BotTask.parse(
        messages=[
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "text", "text": "well"}, *calls]},
            {"role": "user", "content": [results[0], {**results[1], "is_error": True}, said]},
        ]
    )
    assert task.messages is not None
    assert [message.role for message in task.messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [message.is_error for message in task.messages] == [False, False, False, True, False]
    assert task.messages[1].text == "well" and len(task.messages[1].tool_calls) == 2


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"role": "tool", "tool_call_id": "c9", "content": "21"}], "0.tool_call_id: expected the id of a call"),
        ([*OPENAI[:2], OPENAI[3]], "2.tool_call_id"),
        ([{"role": "tool", "content": "21"}], "tool_call_id: expected the id of a call, got none"),
        ([{"role": "user", "content": "x", "tool_calls": [CALL]}], "0.tool_calls: expected role `assistant`"),
        (
            [{"role": "user", "content": [{"type": "video", "url": "https://x"}]}],
            "0.content.0: expected a part of type",
        ),
        ([{"role": "user", "content": [{"type": "image", "url": "file:///etc/passwd"}]}], "http(s) or data URL"),
        ([{"role": "user", "content": [{"type": "image", "url": "s3://b/k"}]}], "http(s) or data URL"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "0.content.0.image_url.url"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}], "id of an uploaded file"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}] * 1001}], "at most 1,000 parts"),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "document", "citations": {"enabled": True}, "source": {"type": "base64", "data": "J"}}
                    ],
                }
            ],
            "0.content.0.citations: expected an image or a file without it",
        ),
        ([{"type": "reasoning", "summary": []}], "0.type: expected a message or a call of a tool"),
        ([{"role": "boss", "content": "x"}], "messages.0.role"),
    ],
)
def test_a_conversation_that_makes_no_sense_is_refused_by_name(messages: Any, told: str) -> None:
    assert told in refused(prompt=None, messages=messages)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools: 0.type: expected a function"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, "tools: expected tools of different names"),
        ({"tools": [{"name": "a b"}]}, "tools.0.name"),
        ({"tools": [{"name": f"t{i}"} for i in range(129)]}, "at most 128 tools"),
        ({"tools": [{"name": "a", "description": "x" * 200_000}]}, "tools: expected at most 131,072 bytes"),
        ({"tool_choice": "auto"}, "tool_choice: expected `tools` beside it"),
        ({"tools": [{"name": "a"}], "tool_choice": "b"}, "tool_choice: expected auto, none, required or a, got 'b'"),
        (
            {"tools": [{"name": "a"}], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            "parallel_tool",
        ),
        ({"effort": "very high"}, "effort"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n: "),
        ({"thinking_tokens": -1}, "thinking_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x" * 257]}, "stop"),
        ({"extra_body": {"model": "other"}}, "extra_body: expected fields that Fleet does not set, got model"),
        ({"extra_body": {"max_tokens": 10**6}}, "got max_tokens"),
        ({"extra_body": {"a": "x" * 20_000}}, "extra_body: expected at most 16,384 bytes"),
        ({"extra_headers": {"Authorization": "Bearer s3cret"}}, "expected headers that Fleet does not set"),
        ({"extra_headers": {"X-API-KEY": "s3cret"}}, "expected headers that Fleet does not set"),
        ({"extra_headers": {"hOst": "evil"}}, "expected headers that Fleet does not set"),
        ({"extra_headers": {"a": "b\r\nHost: evil"}}, "a: expected printable ASCII"),
        ({"extra_headers": {"a: b": "c"}}, "expected names of HTTP headers"),
        ({"efort": "low"}, "efort: unknown field, the nearest known one is `effort`"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name_and_quotes_no_secret(fields: dict[str, Any], told: str) -> None:
    text = refused(**fields)
    assert told in text and "s3cret" not in text


def test_base64_counts_toward_the_size_of_a_prompt() -> None:
    image = {"type": "image", "data": "A" * 4_000_001, "media_type": "image/png"}
    assert "at most 4,000,000 characters" in refused(prompt=None, messages=[{"role": "user", "content": [image]}])


def test_what_is_not_asked_takes_no_room_in_a_message() -> None:
    assert task_body(BotTask(prompt="x"), "p").startswith(b'[[],{"prompt":"x","pool":"p"}')


def test_a_task_sets_only_further_fields_that_its_pool_allows() -> None:
    pools = {"shut": PoolSettings(), "open": PoolSettings(allow=("user", "X-Trace"))}
    settings = Settings(pools=pools)
    asked = BotTask.parse("x", extra_body={"user": "me"}, extra_headers={"x-trace": "1"})
    assert candidates(asked, settings) == ["open"]
    assert candidates(BotTask(prompt="x"), settings) == ["shut", "open"]
    with pytest.raises(
        InvalidTask, match=r"extra_body: expected names that its pool allows, got user; .*\[pools.shut\]"
    ):
        candidates(BotTask.parse("x", pool="shut", extra_body={"user": "me"}), settings)
    with pytest.raises(InvalidTask, match="extra_headers: expected names that its pool allows, got x-other"):
        candidates(BotTask.parse("x", pool="open", extra_headers={"x-other": "1"}), settings)


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ({"allow": ("Authorization",)}, "allow: expected names that Fleet does not set"),
        ({"extra_headers": {"x-api-key": "k"}}, "expected headers that Fleet does not set"),
        ({"extra_body": {"stream": True}}, "expected fields that Fleet does not set"),
        ({"thinking_tokens": 512}, "expected fewer than max_output_tokens"),
    ],
)
def test_a_pool_cannot_set_what_fleet_sets(pool: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PoolSettings.model_validate(pool)
