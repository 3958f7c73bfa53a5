"""The body of a request for Anthropic's messages, but for model, length and temperature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fleet.conversation import (
    MOST_MARKS,
    FilePart,
    ImagePart,
    Kept,
    Message,
    Part,
    TextPart,
    ThinkingPart,
    Tool,
    ToolCall,
    marks_of,
)
from fleet.errors import BadRequest
from fleet.workers.calls import PLAIN, Wishes
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


def split_messages(messages: Sequence[Message]) -> tuple[Content, list[dict[str, Any]]]:
    """Return what the system says and the turns as this wire wants them.

    System messages are lifted out wherever they stand, empty messages dropped, neighbours of one role joined (texts by
    a blank line), and spaces at the end of a closing assistant turn cut off, all because the API refuses them
    otherwise. Results of tools are the user's.

    Raises:
        BadRequest: When there is no user's turn at all.
    """
    told = [message for message in messages if message.role in SYSTEM and message.text.strip()]
    system: Content = "\n\n".join(message.text for message in told)
    if any(True for message in told for _ in message.marks):
        system = [block for message in told for block in _marked(_blocks(message.content), message.cache)]
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
    if isinstance(said, str) and not message.calls_tools and message.cache is None:
        return said if said.strip() else ""
    blocks = _blocks(said)
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _lone(blocks)}
        failed = {"is_error": True} if message.is_error else {}
        return [{**result, **failed, **_control(message.cache)}]
    return _marked(blocks + [_call(call) for call in message.tool_calls], message.cache)


def _control(mark: Kept | None) -> dict[str, Any]:
    """Return what marks a place for the cache, which keeps it for 5 minutes unless it is told."""
    if mark is None:
        return {}
    return {"cache_control": {"type": "ephemeral"} if mark == "5m" else {"type": "ephemeral", "ttl": mark}}


def _marked(blocks: list[dict[str, Any]], mark: Kept | None) -> list[dict[str, Any]]:
    """Return blocks whose last is marked, as far as there is one that may be: thoughts may not."""
    if mark is None or not blocks or blocks[-1]["type"] in ("thinking", "redacted_thinking"):
        return blocks
    return [*blocks[:-1], {**blocks[-1], **_control(mark)}]


def with_documents_kept(messages: Sequence[Message], wishes: Wishes) -> Sequence[Message]:
    """Return messages whose documents, which stand first, are marked for the cache, if a call has any and that pays.

    Where the task itself marks a place for an hour, so are they: what is kept for longer must stand first.
    """
    first = messages[0] if messages else None
    if not wishes.prefix or wishes.keep is None or first is None or not isinstance(first.content, tuple):
        return messages
    mark: Kept = "1h" if "1h" in marks_of(messages, wishes.tools) else wishes.keep
    documents, *rest = first.content
    marked = documents.model_copy(update={"cache": mark})
    return (first.model_copy(update={"content": (marked, *rest)}), *messages[1:])


def bound_marks(body: dict[str, Any]) -> None:
    """Take the first marks off that are more than this wire takes: the last ones keep most.

    Args:
        body: A request of whose parts some are marked; its blocks are changed.
    """
    system = body.get("system")
    turns = [block for turn in body["messages"] if isinstance(turn["content"], list) for block in turn["content"]]
    inner = [part for block in turns if isinstance(block.get("content"), list) for part in block["content"]]
    marked = [
        block
        for block in (*body.get("tools", ()), *(system if isinstance(system, list) else ()), *inner, *turns)
        if "cache_control" in block
    ]
    beyond = len(marked) - MOST_MARKS + ("cache_control" in body)
    for block in marked[: max(0, beyond)]:
        del block["cache_control"]


def _blocks(said: str | tuple[Part, ...]) -> list[dict[str, Any]]:
    parts: tuple[Part, ...] = (TextPart(type="text", text=said),) if isinstance(said, str) else said
    thoughts_first = sorted(parts, key=lambda part: not isinstance(part, ThinkingPart))
    return [block for block in map(_block, thoughts_first) if block is not None]


def _block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text, **_control(part.cache)} if part.text.strip() else None
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
        return {"type": "image", "source": source, **_control(part.cache)}
    assert isinstance(part, FilePart)
    title = {"title": part.name} if part.name else {}
    return {"type": "document", "source": source, **title, **_control(part.cache)}


def _lone(blocks: list[dict[str, Any]]) -> Content:
    """Return blocks as a text when they are one, and nothing more."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} else blocks or ""


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
    schema = {"input_schema": tool.parameters or _NOTHING}
    return {"name": tool.name, **described, **schema, **strict, **_control(tool.cache)}


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
            arguments=told if isinstance(told := block.get("input"), str) and told else json.dumps(told or {}),
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
