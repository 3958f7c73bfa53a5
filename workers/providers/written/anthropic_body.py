"""The body of a request for Anthropic's messages, but for model, length and temperature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fleet.conversation import FilePart, ImagePart, Message, Part, TextPart, ThinkingPart, Tool, ToolCall
from fleet.errors import BadRequest
from fleet.workers.ports import PLAIN, Wishes
from fleet.workers.providers.wire_schema import anthropic_schema, loose_schema
from fleet.workers.providers.written.attachments import media_type_of
from fleet.workers.providers.written.wishes import add_extra, refuse_lacking

#: What this wire has no field for.
ABSENT = ("verbosity", "seed", "n")
#: Stands in for the user's turn when a conversation begins with the assistant's: the wire wants the user first.
OPENING = "(the conversation goes on)"
#: Roles whose text is the system's.
SYSTEM = ("system", "developer")
#: Schema of a tool that takes nothing.
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
#: Tiers by the words of the other wire.
_TIERS = {"standard": "standard_only", "default": "standard_only", "priority": "auto"}

Content = str | list[dict[str, Any]]


def split_messages(messages: Sequence[Message]) -> tuple[str, list[dict[str, Any]]]:
    """Return the system text and the turns as this wire wants them.

    System messages are lifted out wherever they stand, empty messages dropped, neighbours of one role joined (texts by
    a blank line), and spaces at the end of a closing assistant turn cut off, all because the API refuses them
    otherwise. Results of tools are the user's.

    Raises:
        BadRequest: When there is no user's turn at all.
    """
    system = "\n\n".join(message.text for message in messages if message.role in SYSTEM and message.text.strip())
    turns: list[dict[str, Any]] = []
    for message in messages:
        content = "" if message.role in SYSTEM else _content(message)
        if not content:
            continue
        role = "user" if message.role == "tool" else message.role
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _joined(turns[-1]["content"], content)
        else:
            turns.append({"role": role, "content": content})
    if not any(turn["role"] == "user" for turn in turns):
        raise BadRequest("expected at least one user message with text, got none: nothing was sent", blame="prompt")
    if turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": OPENING})
    if turns[-1]["role"] == "assistant":
        turns[-1]["content"] = _without_last_spaces(turns[-1]["content"])
    return system, turns


def _content(message: Message) -> Content:
    """Return what a message says: a text, or blocks; empty when it says nothing."""
    said = message.content
    if isinstance(said, str) and not message.calls_tools:
        return said if said.strip() else ""
    blocks = _blocks(said)
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _lone(blocks)}
        return [{**result, "is_error": True} if message.is_error else result]
    return blocks + [_call(call) for call in message.tool_calls]


def _blocks(said: str | tuple[Part, ...]) -> list[dict[str, Any]]:
    parts: tuple[Part, ...] = (TextPart(type="text", text=said),) if isinstance(said, str) else said
    thoughts_first = sorted(parts, key=lambda part: not isinstance(part, ThinkingPart))
    return [block for block in map(_block, thoughts_first) if block is not None]


def _block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text.strip() else None
    if isinstance(part, ThinkingPart):
        if part.data is not None:
            return {"type": "redacted_thinking", "data": part.data}
        return {"type": "thinking", "thinking": part.text, "signature": part.signature} if part.signature else None
    source = (
        {"type": "url", "url": part.url}
        if part.url is not None
        else {"type": "base64", "media_type": media_type_of(part), "data": part.data or ""}
    )
    if isinstance(part, ImagePart):
        return {"type": "image", "source": source}
    assert isinstance(part, FilePart)
    return {"type": "document", "source": source, **({"title": part.name} if part.name else {})}


def _lone(blocks: list[dict[str, Any]]) -> Content:
    """Return blocks as a text when they are one."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0]["type"] == "text" else blocks or ""


def _call(call: ToolCall) -> dict[str, Any]:
    """Return a call as a block; arguments that are no JSON object, which this wire has not, in one that holds them."""
    try:
        told = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        told = call.arguments
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": told if isinstance(told, dict) else {"arguments": told},
    }


def _joined(first: Content, second: Content) -> Content:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return _as_blocks(first) + _as_blocks(second)


def _as_blocks(content: Content) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _without_last_spaces(content: Content) -> Content:
    if isinstance(content, str):
        return content.rstrip()
    last = content[-1]
    return [*content[:-1], {**last, "text": last["text"].rstrip()}] if last["type"] == "text" else content


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    strict = {"strict": tool.strict} if tool.strict is not None else {}
    return {"name": tool.name, **described, "input_schema": tool.parameters or _NOTHING, **strict}


def _choice(wishes: Wishes) -> dict[str, Any] | None:
    choice, parallel = wishes.tool_choice, wishes.parallel_tool_calls
    if choice is None and parallel is not False:
        return None
    known = {None: "auto", "auto": "auto", "none": "none", "required": "any"}
    told = {"type": known[choice]} if choice in known else {"type": "tool", "name": choice}
    return told if parallel is not False or choice == "none" else {**told, "disable_parallel_tool_use": True}


def thinks(wishes: Wishes) -> bool:
    """True when a number of tokens is given for thinking: then this wire refuses any temperature."""
    return bool(wishes.thinking_tokens)


def add_wishes(body: dict[str, Any], wishes: Wishes) -> None:
    """Put into a request's body what is asked of the model.

    Raises:
        BadRequest: When the task asks for what this wire has no field for.
    """
    if wishes is PLAIN:
        return
    refuse_lacking(wishes, ABSENT, "Anthropic's wire")
    if wishes.tools:
        body["tools"] = [_tool(tool) for tool in wishes.tools]
        if (choice := _choice(wishes)) is not None:
            body["tool_choice"] = choice
    if wishes.thinking_tokens:
        body["thinking"] = {"type": "enabled", "budget_tokens": wishes.thinking_tokens}
    elif wishes.thinking_tokens == 0 or wishes.effort == "none":
        body["thinking"] = {"type": "disabled"}
    config: dict[str, Any] = {}
    if wishes.effort not in (None, "none"):
        config["effort"] = "low" if wishes.effort == "minimal" else wishes.effort
    if wishes.schema is not None:
        schema = anthropic_schema if wishes.form == "strict" else loose_schema
        config["format"] = {"type": "json_schema", "schema": schema(wishes.schema.text)}
    if config:
        body["output_config"] = config
    if wishes.top_p is not None:
        body["top_p"] = wishes.top_p
    if wishes.stop:
        body["stop_sequences"] = list(wishes.stop)
    if wishes.tier is not None:
        body["service_tier"] = _TIERS.get(wishes.tier, wishes.tier)
    add_extra(body, wishes)


def read_tool_calls(blocks: Sequence[Any]) -> tuple[ToolCall, ...]:
    """Return the calls of tools among an answer's blocks."""
    found = (
        b for b in blocks if isinstance(b, dict) and b.get("type") == "tool_use" and isinstance(b.get("name"), str)
    )
    return tuple(
        ToolCall.model_construct(
            id=str(block.get("id") or f"call_{number}"),
            name=block["name"],
            arguments=json.dumps(block.get("input") or {}),
        )
        for number, block in enumerate(found)
    )


def read_thoughts(blocks: Sequence[Any]) -> tuple[ThinkingPart, ...]:
    """Return the signed thoughts among an answer's blocks: this wire wants them back with the results of its calls."""
    found = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "thinking" and isinstance(block.get("signature"), str):
            text = block.get("thinking")
            told = text if isinstance(text, str) else ""
            found.append(ThinkingPart(type="thinking", text=told, signature=block["signature"]))
        elif kind == "redacted_thinking" and isinstance(block.get("data"), str):
            found.append(ThinkingPart(type="thinking", data=block["data"]))
    return tuple(found)
