"""Streams under an SDK in every form that vendors send them: packed, as an array, a line each, or unasked."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD

from fleet.workers.frameworks.unpacking import JsonValues, unpacking
from fleet.workers.limited.asks import read_ask
from fleet.workers.limited.streams import StreamWatch
from fleet.workers.limited.transport import LimitedTransport
from tests.workers.fakes import FakeLimiter
from tests.workers.providers.test_streams import ANTHROPIC, OPENAI, events

GEMINI: list[dict[str, Any]] = [
    {"candidates": [{"content": {"parts": [{"text": "fo} ,{"}]}}],
     "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12}},
    {"candidates": [{"content": {"parts": [{"text": "ur"}]}, "finishReason": "STOP"}],
     "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 3, "totalTokenCount": 15}},
]  # fmt: skip
OLLAMA = [
    {"message": {"content": "four"}, "done": False},
    {"message": {"content": ""}, "done": True, "prompt_eval_count": 12, "eval_count": 3},
]
COHERE: list[Any] = [
    {"type": "content-delta", "delta": {"message": {"content": {"text": "four"}}}},
    {"type": "message-end", "delta": {"usage": {"tokens": {"input_tokens": 12, "output_tokens": 3}}}},
]
ARRAY = json.dumps(GEMINI, indent=1).encode()
LINES = "".join(json.dumps(one) + "\n" for one in OLLAMA).encode()
SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json; charset=UTF-8"
AT_GEMINI = "/v1beta/models/m:streamGenerateContent"


def packed(raw: bytes, name: str) -> bytes:
    if name == "gzip":
        return gzip.compress(raw)
    return zlib.compress(raw) if name == "deflate" else gzip.compress(zlib.compress(raw))


class Sends:
    """Streams a body in pieces of some bytes; a client of either kind may read them."""

    def __init__(self, raw: bytes, size: int, **headers: str) -> None:
        self._raw, self._size = raw, size
        self._headers = {name.replace("_", "-"): value for name, value in headers.items() if value}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=self._headers, content=self._parts())

    async def _parts(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._raw), self._size):
            yield self._raw[at : at + self._size]

    async def aclose(self) -> None:
        return None


def used(sends: Sends, path: str, body: dict[str, Any], *, at_most: int = 10**6) -> tuple[list[int], int, bytes]:
    """Stream one answer; return what was settled, what was reserved, and what the client read."""
    limiter = FakeLimiter()

    async def main() -> bytes:
        transport: Any = LimitedTransport(limiter, "api", sends, model="m")
        read = b""
        async with (
            httpx2.AsyncClient(transport=transport) as client,
            client.stream("POST", f"http://127.0.0.1:1{path}", json=body) as response,
        ):
            async for chunk in response.aiter_bytes():
                read += chunk
                if len(read) >= at_most:
                    break
        return read

    read = asyncio.run(main())
    assert limiter.is_settled_once
    return [tokens for _, tokens in limiter.settled], limiter.granted[0].reserved_tokens, read


FORMS: dict[str, tuple[bytes, str, str]] = {
    "OpenAI": (events(OPENAI), SSE, "/v1/chat/completions"),
    "OpenAI without its last line": (events(OPENAI[:-1])[:-2], SSE, "/v1/chat/completions"),
    "Anthropic": (events(ANTHROPIC), SSE, "/v1/messages"),
    "Gemini's events": (events(GEMINI), SSE, AT_GEMINI),
    "Gemini's array": (ARRAY, JSON, AT_GEMINI),
    "Ollama's lines": (LINES, NDJSON, "/api/chat"),
    "Cohere": (events(COHERE), SSE, "/v2/chat"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "deflate", "deflate, gzip"])
@pytest.mark.parametrize("size", [7, 10**6])
def test_a_stream_is_settled_by_its_own_usage_however_it_is_packed_and_cut(form: str, encoding: str, size: int) -> None:
    raw, kind, path = FORMS[form]
    sent = packed(raw, encoding) if encoding and encoding != "identity" else raw
    body = {"contents": [{"parts": [{"text": "x"}]}]} if path == AT_GEMINI else {"messages": [], "stream": True}
    settled, _, read = used(Sends(sent, size, content_type=kind, content_encoding=encoding), path, body)
    assert settled == [15] and read == raw  # the client gets all of it, as it was


def test_a_packed_stream_that_is_left_is_settled_by_what_came() -> None:
    packing = zlib.compressobj(wbits=31)
    parts = [packing.compress(events([one])) + packing.flush(zlib.Z_SYNC_FLUSH) for one in OPENAI[:4]]
    sends = Sends(b"".join(parts), 20, content_type=SSE, content_encoding="gzip")
    settled, reserved, _ = used(sends, "/v1/chat/completions", {"messages": [], "stream": True}, at_most=250)
    assert 0 < settled[0] < 20 < reserved


@pytest.mark.parametrize(
    "encoding", ["gzip", "dcb", "br" if not HAS_BROTLI else "dcb", "zstd" if not HAS_ZSTD else "dcb"]
)
def test_what_cannot_be_unpacked_counts_as_all_that_was_reserved(encoding: str) -> None:
    watch = StreamWatch(SSE, encoding)
    watch.feed(events(OPENAI))
    watch.close()
    assert watch.used(5) is None


def test_a_piece_that_unpacks_to_a_worker_memory_is_given_up() -> None:
    unpack = unpacking("gzip")
    assert unpack is not None
    watch = StreamWatch(SSE, "gzip")
    watch.feed(gzip.compress(events(OPENAI[:3]) + b":" * 50_000_000))
    assert watch.used(5) is None


def test_a_stream_that_nobody_asked_for_is_settled_by_its_usage_too() -> None:
    for raw, kind in ((events(OPENAI), SSE), (events(ANTHROPIC), ""), (ARRAY, JSON)):
        settled, _, _ = used(Sends(raw, 50, content_type=kind), "/v1/chat/completions", {"messages": []})
        assert settled == [15]


def test_geminis_longest_answer_is_reserved() -> None:
    asked = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"maxOutputTokens": 77}}
    ask = read_ask(json.dumps(asked).encode(), "m", 0)
    assert ask is not None and ask.output_tokens == 77


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_json_values_that_follow_each_other_are_cut_wherever_the_bytes_are(size: int) -> None:
    values = [{"a": '}{][,"ä'}, {"b": [{"c": {}}]}, {}]
    for raw in (json.dumps(values).encode(), "\r\n,".join(map(json.dumps, values)).encode()):
        reader = JsonValues()

        def parts(raw: bytes = raw) -> Iterator[bytes]:
            yield from (raw[at : at + size] for at in range(0, len(raw), size))

        found = [event for part in parts() for event in reader.feed(part)]
        assert [json.loads(event.data) for event in (*found, *reader.close())] == values
