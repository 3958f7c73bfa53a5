"""Turns with tools, in both vendors' conversations: results must follow their calls, and how far a run has got."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.quoting import quote
from fleet.workers.context import count_tokens
from fleet.workers.simulator.rich.wanted import MAX_CALLS, ToolTurns, WireError, read_list_at, read_object_at

_encode = json.JSONEncoder(separators=(",", ":")).encode


def openai_tool_turns(messages: Sequence[Mapping[str, Any]], turns: Sequence[tuple[str, str]]) -> ToolTurns:
    """Return how far a chat completion's conversation is; `turns` has the text of each message."""
    made = 0
    for message, (role, text) in zip(reversed(messages), reversed(turns), strict=True):
        if role == "user":
            return ToolTurns(text.strip(), made)
        made += bool(message.get("tool_calls"))
    return ToolTurns("", made)


def anthropic_tool_turns(messages: Sequence[Mapping[str, Any]], turns: Sequence[tuple[str, str]]) -> ToolTurns:
    """Return how far a conversation of messages is. There the user's side brings the results: that is no question."""
    made = 0
    for message, (role, text) in zip(reversed(messages), reversed(turns), strict=True):
        if role == "user" and not holds_results(message):
            return ToolTurns(text.strip(), made)
        made += bool(_ids(message, "tool_use", "id"))
    return ToolTurns("", made)


def check_openai_turns(messages: Sequence[Mapping[str, Any]]) -> int:
    """Check that each result of a tool follows its call, and return the tokens of the calls. Raises `WireError`."""
    tokens, open_ids = 0, set[str]()
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_ids:
                raise WireError(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    param=f"messages.[{i}].role",
                )
            open_ids.discard(message["tool_call_id"])
            continue
        _all_answered(open_ids, i)
        for j, call in enumerate(read_list_at(message.get("tool_calls"), f"messages[{i}].tool_calls", most=MAX_CALLS)):
            where = f"messages[{i}].tool_calls[{j}]"
            function = read_object_at(read_object_at(call, where).get("function"), f"{where}.function")
            open_ids.add(str(call.get("id")))
            tokens += count_tokens(f"{function.get('name')}{function.get('arguments')}")
    _all_answered(open_ids, len(messages))
    return tokens


def _all_answered(open_ids: set[str], i: int) -> None:
    if open_ids:
        raise WireError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(sorted(open_ids))}",
            param=f"messages.[{i}].role",
        )


def check_anthropic_turns(messages: Sequence[Mapping[str, Any]]) -> int:
    """Check that each result of a tool follows its call, and return the tokens of the calls. Raises `WireError`."""
    tokens, asked = 0, list[str]()
    for i, message in enumerate(messages):
        results = set(_ids(message, "tool_result", "tool_use_id"))
        for found in results.difference(asked):
            raise WireError(
                f"messages.{i}.content: unexpected `tool_use_id` found in `tool_result` blocks: {quote(found)}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if missing := [one for one in asked if one not in results]:
            raise WireError(
                f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        asked = _ids(message, "tool_use", "id")
        if asked:
            calls = [block for block in message["content"] if block.get("type") == "tool_use"]
            tokens += sum(count_tokens(f"{call.get('name')}{_encode(call.get('input'))}") for call in calls)
    return tokens


def holds_results(message: Mapping[str, Any]) -> bool:
    """True for a message of the user's side that brings results of tools."""
    return bool(_ids(message, "tool_result", "tool_use_id"))


def _ids(message: Mapping[str, Any], kind: str, name: str) -> list[str]:
    blocks = message.get("content")
    if not isinstance(blocks, list):
        return []
    return [str(block.get(name)) for block in blocks if block.get("type") == kind]
