"""Streamed answers over real HTTP: pieces, the whole, its usage; and what comes instead."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import pytest

from fleet.errors import BadRequest, FleetError, KeyRejected, ProviderUnavailable, RateLimited
from fleet.workers.ports import Completion, Delta
from tests.every import every
from tests.workers.providers.raw_server import KEY, RawServer, call, provider, raw_server, response


def chunk(content: str | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


OPENAI: list[Any] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    chunk("fo"),
    chunk("ur"),
    chunk(finish="stop"),
    {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}, "service_tier": "flex"},
    "[DONE]",
]
ANTHROPIC: list[Any] = [
    {"type": "message_start", "message": {"type": "message", "role": "assistant", "content": [], "stop_reason": None,
     "usage": {"input_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "fo"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ur"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]  # fmt: skip
STREAMS = {"openai": OPENAI, "anthropic": ANTHROPIC}


def events(said: list[Any]) -> bytes:
    return "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in said).encode()


def streamed(said: list[Any], *, missing: int = 0) -> bytes:
    """An HTTP response with these events; `missing` bytes more are announced than come."""
    raw = events(said)
    return response(raw, headers={"Content-Type": "text/event-stream"}, length=len(raw) + missing)


def ask(kind: str, answer: bytes) -> tuple[list[Delta | Completion], FleetError | None, RawServer]:
    """Stream one call; give what came, the error at its end, and what the server saw: one request."""

    async def main() -> tuple[list[Delta | Completion], FleetError | None, RawServer]:
        came: list[Delta | Completion] = []
        failure = None
        async with raw_server(answer) as server, provider(server.url, kind) as adapter:
            try:
                async with aclosing(adapter.stream(call(), api_key=KEY)) as pieces:
                    async for piece in pieces:
                        came.append(piece)
            except FleetError as error:
                failure = error
        assert len(server.heads) == 1
        return came, failure, server

    return asyncio.run(main())


def text_of(came: list[Delta | Completion]) -> str:
    return "".join(piece.text for piece in came if isinstance(piece, Delta))


@pytest.mark.parametrize("kind", STREAMS)
def test_an_answer_comes_in_pieces_and_whole_with_the_usage_of_its_last_event(kind: str):
    came, failure, server = ask(kind, streamed(STREAMS[kind]))
    assert failure is None and server.bodies[0]["stream"] is True
    assert ("stream_options" in server.bodies[0]) == (kind == "openai")
    whole = came[-1]
    assert isinstance(whole, Completion)
    assert text_of(came) == whole.text == "four"
    assert "".join(piece.reasoning for piece in came[:-1]) == whole.reasoning == "hm"
    assert (whole.finish_reason, whole.usage.input_tokens, whole.usage.output_tokens) == ("stop", 12, 3)


def test_what_the_provider_tells_at_the_beginning_is_known_at_once():
    came, *_ = ask("anthropic", streamed(ANTHROPIC[:8]))
    told = [piece.usage for piece in came if piece.usage is not None]
    assert [(usage.input_tokens, usage.output_tokens) for usage in told] == [(12, 1)]


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_without_an_end_is_an_answer_that_broke_off(kind: str):
    for missing in (0, 10):
        came, failure, _ = ask(
            kind, streamed(STREAMS[kind][:4] if kind == "openai" else ANTHROPIC[:9], missing=missing)
        )
        assert text_of(came) == "four" and isinstance(failure, ProviderUnavailable) and failure.sent
        assert every(not isinstance(piece, Completion) for piece in came)


def test_an_answer_whose_last_words_came_is_whole_though_its_usage_was_lost():
    came, failure, _ = ask("openai", streamed(OPENAI[:5], missing=10))
    assert failure is None and isinstance(came[-1], Completion) and came[-1].usage.input_tokens > 0


def test_a_server_that_does_not_stream_is_believed():
    body = {"choices": [{"message": {"content": "four"}, "finish_reason": "stop"}], "usage": None}
    came, failure, _ = ask("openai", response(body, headers={"Content-Type": "application/json; charset=utf-8"}))
    assert failure is None and [piece.text for piece in came] == ["four"]


ERRORS: dict[str, tuple[str, Any, type[FleetError]]] = {
    "a code": ("openai", {"error": {"message": "slow down", "code": 429}}, RateLimited),
    "a code as text": ("openai", {"error": {"message": "bad gateway", "code": "502"}}, ProviderUnavailable),
    "no code": ("openai", {"error": {"message": "oops"}}, ProviderUnavailable),
    "no money": ("openai", {"error": {"message": "x", "code": "insufficient_quota"}}, KeyRejected),
    "a type": ("openai", {"error": {"message": "bad", "type": "invalid_request_error"}}, BadRequest),
    "a status by name": ("openai", {"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}, RateLimited),
    "overloaded": ("anthropic", {"type": "error", "error": {"type": "overloaded_error"}}, ProviderUnavailable),
    "too many": ("anthropic", {"type": "error", "error": {"type": "rate_limit_error"}}, RateLimited),
    "no JSON": ("openai", "<html>", ProviderUnavailable),
    "nothing but a detail": ("openai", {"detail": "slow down", "status": 429}, RateLimited),
    "an error in the choice": ("openai", chunk("x", error={"code": 502, "message": "upstream"}), ProviderUnavailable),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("before", [0, 4])
def test_an_error_within_a_stream_is_one_like_any_other(name: str, before: int):
    kind, event, expected = ERRORS[name]
    _, failure, _ = ask(kind, streamed([*STREAMS[kind][:before], event]))
    assert isinstance(failure, expected)


@pytest.mark.parametrize(("status", "expected"), [(429, RateLimited), (401, KeyRejected), (503, ProviderUnavailable)])
def test_a_status_before_the_stream_is_an_error_like_any_other(status: int, expected: type[FleetError]):
    came, failure, _ = ask("openai", response({"error": {"message": "no"}}, status=status))
    assert came == [] and type(failure) is expected


def test_leaving_a_stream_closes_the_connection():
    async def main() -> None:
        async with raw_server(None) as server, provider(server.url) as adapter:
            pieces = adapter.stream(call(), api_key=KEY)
            first = asyncio.ensure_future(anext(pieces))
            while not server.heads:
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.wait([first])
            await pieces.aclose()
            await asyncio.wait_for(server.left.wait(), 5)

    asyncio.run(main())
