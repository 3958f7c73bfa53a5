"""OpenAI's background responses with a completion window, told in the words of chat completions, and of batches.

There is no list of them: who loses the reply to a creation cannot learn whether there is one, and says so.
https://developers.openai.com/api/docs/guides/background
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pydantic_core

from fleet.batches import BatchAnswer, VendorBatch
from fleet.workers.providers.base import encode_json
from fleet.workers.providers.batches.http import text, usage_of
from fleet.workers.providers.batches.openai_api import OpenAIBatchApi

#: Ids of responses begin so; those of batches do not.
RESPONSE = "resp_"
#: Field of a chat completion -> field of a response; those of a response that are in another field, by both names.
_SAME = ("model", "temperature", "top_p", "prompt_cache_key")
_LIMITS = ("max_completion_tokens", "max_tokens")
_KNOWN = frozenset({*_SAME, *_LIMITS, "messages", "reasoning_effort", "verbosity", "response_format"})
#: What a response is called that is not over.
_RUNNING = frozenset({"queued", "in_progress"})
#: Why a response is incomplete -> finish reason of a chat completion.
_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


class LaterApi(OpenAIBatchApi):
    """OpenAI's batches and background responses under one key; implements `BackgroundApi`, too.

    Args:
        http: Requests under its key.
    """

    def takes(self, body: bytes) -> bool:
        """True when a chat completion can be asked as a response: plain text, one answer, no tools."""
        chat = pydantic_core.from_json(body)
        return chat.keys() <= _KNOWN and all(
            one.keys() <= {"role", "content"} and isinstance(one.get("content"), str) for one in chat["messages"]
        )

    async def begin(self, body: bytes, window: str) -> str:
        """Let a chat completion be answered in the background; return the response's id. This is what costs."""
        asked = encode_json(response_of(body, window))
        told = await self._http.json("POST", "/responses", data=asked, bodies=(body,))
        if not text(told, "id").startswith(RESPONSE):
            raise self._http.unread("a response with an `id`")
        return text(told, "id")

    async def look(self, batch: str) -> VendorBatch:
        """Return how a batch or a response stands."""
        if not batch.startswith(RESPONSE):
            return await super().look(batch)
        told = await self._http.json("GET", f"/responses/{batch}")
        status = text(told, "status")
        if not status:
            raise self._http.unread("a response with a `status`")
        return VendorBatch(batch, "running" if status in _RUNNING else "ended", (), int(status == "completed"))

    async def cancel(self, batch: str) -> None:
        """Let nothing more of it run."""
        if not batch.startswith(RESPONSE):
            await super().cancel(batch)
            return
        await self._http.json("POST", f"/responses/{batch}/cancel", data=b"{}", missing_ok=True)

    async def answers(self, sent: VendorBatch) -> AsyncGenerator[BatchAnswer]:
        """Yield what came; of a response under its own id."""
        if not sent.id.startswith(RESPONSE):
            async for one in super().answers(sent):
                yield one
            return
        chat = completion_of(await self._http.json("GET", f"/responses/{sent.id}"))
        yield BatchAnswer(sent.id, b"" if chat is None else encode_json(chat), usage_of(chat or {}))

    async def delete(self, sent: VendorBatch) -> None:
        """Delete what the vendor keeps of it."""
        if not sent.id.startswith(RESPONSE):
            await super().delete(sent)
            return
        await self._http.json("DELETE", f"/responses/{sent.id}", missing_ok=True)


def response_of(body: bytes, window: str) -> dict[str, Any]:
    """Return the background response that asks what a chat completion does.

    Args:
        body: Of the chat completion, as `LaterApi.takes` it.
        window: `2h` or `8h`.
    """
    chat: dict[str, Any] = pydantic_core.from_json(body)
    asked = {name: chat[name] for name in _SAME if name in chat}
    if (limit := next((chat[name] for name in _LIMITS if name in chat), None)) is not None:
        asked["max_output_tokens"] = limit
    if "reasoning_effort" in chat:
        asked["reasoning"] = {"effort": chat["reasoning_effort"]}
    words: dict[str, Any] = {"verbosity": chat["verbosity"]} if "verbosity" in chat else {}
    if (form := chat.get("response_format")) is not None:
        words["format"] = {"type": form.get("type"), **(form.get("json_schema") or {})}
    if words:
        asked["text"] = words
    return {
        **asked, "input": [{"role": one["role"], "content": one["content"]} for one in chat["messages"]],
        "background": True, "background_options": {"completion_window": window}, "store": True,
    }  # fmt: skip


def completion_of(response: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the chat completion that a response is; None where it has no answer."""
    if response.get("status") not in ("completed", "incomplete"):
        return None
    parts = [
        part for item in response.get("output") or () if item.get("type") == "message"
        for part in item.get("content") or ()
    ]  # fmt: skip
    said = "".join(part.get("text") or "" for part in parts if part.get("type") == "output_text")
    refusal = "".join(part.get("refusal") or "" for part in parts if part.get("type") == "refusal")
    reason = _REASONS.get(str((response.get("incomplete_details") or {}).get("reason")), "stop")
    used = response.get("usage") or {}
    given, made = used.get("input_tokens_details") or {}, used.get("output_tokens_details") or {}
    return {
        "id": response.get("id"), "object": "chat.completion", "created": response.get("created_at"),
        "model": response.get("model"),
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": said, "refusal": refusal or None},
            "finish_reason": reason,
        }],
        "usage": {
            "prompt_tokens": used.get("input_tokens", 0), "completion_tokens": used.get("output_tokens", 0),
            "total_tokens": used.get("total_tokens", 0),
            "prompt_tokens_details": {name: given.get(name, 0) for name in ("cached_tokens", "cache_write_tokens")},
            "completion_tokens_details": {"reasoning_tokens": made.get("reasoning_tokens", 0)},
        },
    }  # fmt: skip
