"""What each vendor's API answers, as its documentation shows it: the same answer on nine wires."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fleet.config import ProviderSettings
from fleet.workers.providers import make_provider
from fleet.workers.providers.models.adapter import Models
from tests.workers.providers.raw_server import response

_CHAT: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25},
}
#: Model -> a good answer of 20 tokens in and 5 out.
GOOD: Mapping[str, dict[str, Any]] = {
    "openai-chat:gpt-5.4-mini": _CHAT,
    "openai-responses:gpt-5.4-mini": {
        "id": "r1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5.4-mini",
        "status": "completed",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {
                "type": "message",
                "id": "m1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "4", "annotations": []}],
            }
        ],
        "usage": {
            "input_tokens": 20,
            "output_tokens": 5,
            "total_tokens": 25,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    },
    "anthropic:claude-haiku-4-5": {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "4"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 20, "output_tokens": 5},
    },
    "google:gemini-3-flash-preview": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "4"}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 20, "candidatesTokenCount": 5, "totalTokenCount": 25},
        "modelVersion": "gemini-3-flash-preview",
        "responseId": "r1",
    },
    "groq:llama-3.3-70b-versatile": _CHAT,
    "mistral:mistral-small-latest": _CHAT,
    "cohere:command-a-03-2025": {
        "id": "c1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
        "usage": {"tokens": {"input_tokens": 20, "output_tokens": 5}},
    },
    "huggingface:Qwen/Qwen3-32B": {**_CHAT, "system_fingerprint": "f"},
    "bedrock:amazon.nova-lite-v1:0": {
        "output": {"message": {"role": "assistant", "content": [{"text": "4"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 20, "outputTokens": 5, "totalTokens": 25},
        "metrics": {"latencyMs": 1},
    },
}
#: What a vendor's own variables must say where it takes no key of ours.
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_REGION": "us-east-1",
               "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip


@asynccontextmanager
async def models(url: str) -> AsyncIterator[Models]:
    """Give an adapter for a server, closed at the end."""
    made = make_provider(ProviderSettings(kind="pydantic-ai", base_url=url))
    assert isinstance(made, Models)
    try:
        yield made
    finally:
        await made.close()


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


_CHUNKS: list[Any] = [
    _chunk({"role": "assistant", "content": ""}), _chunk({"content": "fo"}), _chunk({"content": "ur"}),
    _chunk({}, "stop", usage=_CHAT["usage"], x_groq={"id": "r1", "usage": _CHAT["usage"]}),
]  # fmt: skip
_RESPONSE: dict[str, Any] = GOOD["openai-responses:gpt-5.4-mini"]
_ITEM: dict[str, Any] = {"type": "message", "id": "m1", "role": "assistant", "status": "in_progress", "content": []}
_AT = {"item_id": "m1", "output_index": 0, "content_index": 0}
#: The wire of a model's vendor -> the events of the answer "four", of 20 tokens in and 5 out: those before its text,
#: its text, and its end.
PIECES: Mapping[str, list[Any]] = {
    **dict.fromkeys(("openai-chat", "groq", "mistral", "huggingface"), _CHUNKS),
    "openai-responses": [
        {"type": "response.created", "sequence_number": 0,
         "response": {**_RESPONSE, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": _ITEM},
        {"type": "response.output_text.delta", "sequence_number": 2, **_AT, "delta": "fo", "logprobs": []},
        {"type": "response.output_text.delta", "sequence_number": 3, **_AT, "delta": "ur", "logprobs": []},
        {"type": "response.completed", "sequence_number": 4, "response": _RESPONSE},
    ],
    "anthropic": [
        {"type": "message_start", "message": {**GOOD["anthropic:claude-haiku-4-5"], "content": [], "stop_reason": None,
         "usage": {"input_tokens": 20, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fo"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ur"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ],
    "google": [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "fo"}]}, "index": 0}], "responseId": "r1"},
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "ur"}]}, "finishReason": "STOP", "index": 0}],
         "usageMetadata": GOOD["google:gemini-3-flash-preview"]["usageMetadata"], "responseId": "r1"},
    ],
    "cohere": [
        {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "fo"}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "ur"}}}},
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE",
         "usage": {"tokens": {"input_tokens": 20, "output_tokens": 5}}}},
    ],
    "bedrock": [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "fo"}}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "ur"}}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": {"inputTokens": 20, "outputTokens": 5, "totalTokens": 25}, "metrics": {"latencyMs": 1}}},
    ],
}  # fmt: skip


def streamed(vendor: str, said: list[Any], *, missing: int = 0) -> bytes:
    """An HTTP response with these events; `missing` bytes more are announced than come."""
    if vendor == "bedrock":
        raw = b"".join(_frame(*next(iter(event.items()))) for event in said)
        kind = "application/vnd.amazon.eventstream"
    else:
        names = [f"event: {event['type']}\n" if "type" in event else "" for event in said]
        raw = "".join(f"{name}data: {json.dumps(event)}\n\n" for name, event in zip(names, said, strict=True)).encode()
        kind = "text/event-stream"
    return response(raw, headers={"Content-Type": kind}, length=len(raw) + missing)


def _frame(name: str, body: Mapping[str, Any]) -> bytes:
    """One event on Bedrock's wire: lengths, headers and body, each with a checksum."""
    kind = "exception" if name.endswith("Exception") else "event"
    told = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/json"}
    heads = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for key, value in told.items()
    )
    raw = json.dumps(body).encode()
    lengths = struct.pack(">II", 16 + len(heads) + len(raw), len(heads))
    frame = lengths + struct.pack(">I", zlib.crc32(lengths)) + heads + raw
    return frame + struct.pack(">I", zlib.crc32(frame))
