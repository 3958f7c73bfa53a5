"""Answers as server-sent events: what both vendors would have sent piece by piece, made from the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.workers.simulator.rich.wanted import Wanted

#: Pieces of one text at most, and characters of a piece at least.
MOST_PIECES = 40
LEAST_CHARS = 16

_encode = json.JSONEncoder(separators=(",", ":")).encode


def openai_events(answer: Mapping[str, Any], wanted: Wanted) -> list[bytes]:
    """Return the events of a chat completion: chunks, if wanted one with the usage, and the word that it is done.

    Args:
        answer: The body that a request without `stream` would get; an error in it is an event as well.
        wanted: What was asked.
    """
    if "error" in answer:
        return [data_event(answer), b"data: [DONE]\n\n"]
    head = {name: answer[name] for name in ("id", "created", "model", "system_fingerprint") if name in answer}
    head["object"] = "chat.completion.chunk"
    if "service_tier" in answer:
        head["service_tier"] = answer["service_tier"]
    usage = {"usage": None} if wanted.tells_usage else {}
    events = []
    for choice in answer.get("choices") or ():
        for delta, ends in _openai_deltas(choice):
            told = {"index": choice.get("index", 0), "delta": delta, "logprobs": None, "finish_reason": None, **ends}
            events.append(data_event({**head, "choices": [told], **usage}))
    if wanted.tells_usage:
        events.append(data_event({**head, "choices": [], "usage": answer.get("usage")}))
    return [*events, b"data: [DONE]\n\n"]


def anthropic_events(answer: Mapping[str, Any]) -> list[bytes]:
    """Return the events of a message; an error instead of one is a single event.

    Args:
        answer: The body that a request without `stream` would get.
    """
    if answer.get("type") != "message":
        return [named_event("error", answer)]
    usage = answer.get("usage") or {}
    begun = {**answer, "content": [], "stop_reason": None, "stop_sequence": None}
    if usage:
        begun["usage"] = {**usage, "output_tokens": 1}
    events = [named_event("message_start", {"message": begun}), named_event("ping", {})]
    for index, block in enumerate(answer["content"]):
        empty, deltas = _anthropic_block(block)
        events.append(named_event("content_block_start", {"index": index, "content_block": empty}))
        events += [named_event("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        events.append(named_event("content_block_stop", {"index": index}))
    ends = {name: answer.get(name) for name in ("stop_reason", "stop_sequence")}
    events.append(named_event("message_delta", {"delta": ends, "usage": usage or {"output_tokens": 0}}))
    return [*events, named_event("message_stop", {})]


def _openai_deltas(choice: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield what each chunk adds to a choice, and how it ends it."""
    message = choice.get("message") or {}
    yield {"role": "assistant", "content": None if message.get("content") is None else "", "refusal": None}, {}
    for name in ("reasoning_content", "content", "refusal"):
        for piece in pieces(message.get(name) or ""):
            yield {name: piece}, {}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        named = {"name": function["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": named}]}, {}
        for piece in pieces(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, {}
    ends = {name: choice[name] for name in ("finish_reason", "error") if name in choice}
    yield {}, ends


def _anthropic_block(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it begins, and what is added to it."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, [*deltas, signed]
        case "tool_use":
            told = pieces(_encode(block["input"]))
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in told]
    return dict(block), []


def pieces(text: str) -> list[str]:
    """Return a text in pieces, as models make it."""
    size = max(LEAST_CHARS, -(-len(text) // MOST_PIECES))
    return [text[begin : begin + size] for begin in range(0, len(text), size)]


def data_event(value: Mapping[str, Any]) -> bytes:
    """Return an event without a name."""
    return f"data: {_encode(value)}\n\n".encode("ascii")


def named_event(name: str, value: Mapping[str, Any]) -> bytes:
    """Return an event with a name, which is its type too if it has none."""
    typed = value if "type" in value else {"type": name, **value}
    return f"event: {name}\ndata: {_encode(typed)}\n\n".encode("ascii")
