"""A whole answer as the stream of events that an SDK waits for, from a server that does not stream. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.workers.frameworks.readable import as_delta

#: Where blocks of a message have what comes in pieces, and the names of these pieces.
_PIECES = (("text", "text_delta"), ("thinking", "thinking_delta"), ("signature", "signature_delta"))


def event_bytes(told: Mapping[str, Any]) -> bytes:
    """Return an event as it is sent: named by its type, where its wire gives it one."""
    kind = told.get("type")
    name = f"event: {kind}\n" if isinstance(kind, str) else ""
    return f"{name}data: {json.dumps(told)}\n\n".encode("ascii")


def in_pieces(endpoint: str, answer: dict[str, Any], *, tells_usage: bool) -> bytes | None:
    """Return an answer as its events; None where the wire has none.

    Args:
        endpoint: Of which it is.
        answer: Whole.
        tells_usage: The client has asked for the usage.
    """
    if endpoint == "messages":
        return b"".join(map(event_bytes, _of_message(answer)))
    if endpoint == "responses":
        return b"".join(map(event_bytes, _of_response(answer)))
    if endpoint in ("chat/completions", "completions"):
        return b"".join(map(event_bytes, _of_completion(answer, tells_usage=tells_usage))) + b"data: [DONE]\n\n"
    return None


def _of_completion(answer: dict[str, Any], *, tells_usage: bool) -> Iterator[dict[str, Any]]:
    head = {name: value for name, value in answer.items() if name != "usage"}
    if answer.get("object") == "chat.completion":
        head["object"] = "chat.completion.chunk"
    yield head | {"choices": [as_delta(choice) if "message" in choice else choice for choice in answer["choices"]]}
    if tells_usage and answer.get("usage"):
        yield head | {"choices": [], "usage": answer["usage"]}


def _of_message(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": answer | {"content": [], "stop_reason": None, "stop_sequence": None}}
    for index, block in enumerate(answer["content"]):
        yield from _of_block(index, block)
    ended = {"stop_reason": answer.get("stop_reason") or "end_turn", "stop_sequence": answer.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": answer.get("usage") or {"output_tokens": 0}}
    yield {"type": "message_stop"}


def _of_block(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    pieces = [(name, kind) for name, kind in _PIECES if isinstance(block.get(name), str)]
    begun = block | {name: "" for name, _ in pieces}
    deltas: list[dict[str, Any]] = [{"type": kind, name: block[name]} for name, kind in pieces]
    if block.get("type") in ("tool_use", "server_tool_use"):
        begun["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": json.dumps(block.get("input") or {})})
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _of_response(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    events = _told_by_response(answer)
    for number, event in enumerate(events):
        yield event | {"sequence_number": number}


def _told_by_response(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": answer | {"output": [], "status": "in_progress"}}
    for index, item in enumerate(answer["output"]):
        if not isinstance(item, dict):
            continue
        parts = item.get("content") if item.get("type") == "message" else None
        parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        yield {"type": "response.output_item.added", "output_index": index, "item": item | _begun(item)}
        for at, part in enumerate(parts):
            if isinstance(text := part.get("text"), str):
                yield from _of_text(part, text, {"item_id": item.get("id"), "output_index": index, "content_index": at})
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    is_cut = answer.get("status") == "incomplete"
    yield {"type": "response.incomplete" if is_cut else "response.completed", "response": answer}


def _begun(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an item has not said yet when it begins."""
    return {"content": [], "status": "in_progress"} if item.get("type") == "message" else {}


def _of_text(part: dict[str, Any], text: str, place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}
    yield {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}
