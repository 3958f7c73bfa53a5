"""What each vendor's API answers, as its documentation shows it: the same answer on nine wires."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fleet.config import ProviderSettings
from fleet.workers.providers import make_provider
from fleet.workers.providers.models.adapter import Models

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
