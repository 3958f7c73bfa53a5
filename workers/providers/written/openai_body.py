"""The body of a request for chat completions, but for model, length and temperature."""

from __future__ import annotations

import json
from typing import Any

from fleet.conversation import FilePart, ImagePart, Message, TextPart, ThinkingPart, Tool, ToolCall
from fleet.workers.calls import PLAIN, Wishes
from fleet.workers.providers.wire_schema import openai_schema
from fleet.workers.providers.written.attachments import address_of
from fleet.workers.providers.written.wishes import add_extra, refuse_lacking

#: What this wire has no field for.
ABSENT = ("thinking_tokens",)
#: Name that answers in a schema's form go by.
ANSWER = "answer"
#: Fields that are spelt here as they are there, but for the name.
_SAME = {
    "effort": "reasoning_effort", "verbosity": "verbosity", "seed": "seed", "top_p": "top_p",
}  # fmt: skip


def write_message(message: Message) -> dict[str, Any]:
    """Return a message as this wire wants it; texts alone as one, for not every server takes parts."""
    content = message.content
    if type(content) is str and not message.tool_calls and message.role != "tool":
        return {"role": message.role, "content": content}
    is_text = isinstance(content, str) or all(isinstance(part, TextPart | ThinkingPart) for part in content)
    said = message.text if is_text else [part for part in map(_part, content) if part is not None]
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": said}
    written: dict[str, Any] = {"role": message.role, "content": said}
    if message.tool_calls:
        written |= {"content": said or None, "tool_calls": [_call(call) for call in message.tool_calls]}
    return written


def _part(part: object) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": address_of(part), **detail}}
    if isinstance(part, FilePart):
        name = part.name or ("file.pdf" if part.data else None)
        return {"type": "file", "file": {"file_data": address_of(part), **({"filename": name} if name else {})}}
    return None  # thoughts are signed for another wire


def _call(call: ToolCall) -> dict[str, Any]:
    extra = {"extra_content": call.extra_content} if call.extra_content is not None else {}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}, **extra}


def _tool(tool: Tool) -> dict[str, Any]:
    told = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {
        "type": "function",
        "function": {"name": tool.name, **{k: v for k, v in told.items() if v not in ("", None)}},
    }


def add_wishes(body: dict[str, Any], wishes: Wishes) -> None:
    """Put into a request's body what is asked of the model.

    Raises:
        BadRequest: When the task asks for what this wire has no field for.
    """
    if wishes is PLAIN:
        return
    refuse_lacking(wishes, ABSENT, "the OpenAI wire")
    body |= {there: value for here, there in _SAME.items() if (value := getattr(wishes, here)) is not None}
    if wishes.tools:
        body["tools"] = [_tool(tool) for tool in wishes.tools]
        if wishes.tool_choice is not None:
            named = {"type": "function", "function": {"name": wishes.tool_choice}}
            body["tool_choice"] = wishes.tool_choice if wishes.tool_choice in ("auto", "none", "required") else named
        if wishes.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = wishes.parallel_tool_calls
    if wishes.stop:
        body["stop"] = list(wishes.stop)
    if wishes.tier is not None:
        body["service_tier"] = "default" if wishes.tier == "standard" else wishes.tier
    if wishes.n > 1:
        body["n"] = wishes.n
    if wishes.schema is not None:
        is_strict = wishes.form == "strict"
        told = {"schema": openai_schema(wishes.schema.text, strict=is_strict)}
        form = {"strict": True, **told} if is_strict else told
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": ANSWER, **form}}
    add_extra(body, wishes)


def read_tool_calls(message: dict[str, Any]) -> tuple[ToolCall, ...]:
    """Return the calls of tools in an answer's message; what is no call of a function is passed over."""
    told = message.get("tool_calls")
    legacy = message.get("function_call")
    if not told and isinstance(legacy, dict):
        told = [{"id": "call_0", "function": legacy}]
    calls = []
    for number, call in enumerate(told if isinstance(told, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(name := function.get("name"), str) and name:
            calls.append(_read_call(call, function, name, number))
    return tuple(calls)


def _read_call(call: dict[str, Any], function: dict[str, Any], name: str, number: int) -> ToolCall:
    arguments, called = function.get("arguments"), call.get("id")
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = json.dumps(arguments if arguments is not None else {})
    return ToolCall.model_construct(
        id=called if isinstance(called, str) and called else f"call_{number}",  # some name none
        name=name,
        arguments=arguments or "{}",
        extra_content=call.get("extra_content"),
    )
