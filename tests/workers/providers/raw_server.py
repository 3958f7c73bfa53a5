"""A server that answers with given bytes, right or wrong, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fleet.config import ProviderSettings
from fleet.conversation import Message
from fleet.workers.calls import Call
from fleet.workers.providers import make_provider
from fleet.workers.providers.base import HttpProvider

KEY = "sk-secret-0123456789"


@dataclass
class RawServer:
    """What came in so far."""

    url: str = ""
    heads: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def raw_server(*answers: bytes | None) -> AsyncIterator[RawServer]:
    """Serve the answers one request each, the last one for ever.

    An answer is the whole HTTP response, after which the connection is closed; None never answers and waits until
    the client is gone.
    """
    seen = RawServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lengths = (int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
            length = next(lengths, 0)
            answer = answers[min(len(seen.heads), len(answers) - 1)]
            seen.heads.append(head)
            seen.bodies.append(json.loads(await reader.readexactly(length) or b"{}"))
            if answer is None:
                assert await reader.read() == b""
                seen.left.set()
            else:
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield seen


def response(
    body: object, *, status: int = 200, length: int | None = None, headers: dict[str, str] | None = None
) -> bytes:
    """Return an HTTP response; a body that is not bytes becomes JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Length: {len(raw) if length is None else length}",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + raw


@asynccontextmanager
async def provider(url: str, kind: str = "openai") -> AsyncIterator[HttpProvider]:
    """Give an adapter for a server, closed at the end."""
    made = make_provider(ProviderSettings.model_validate({"kind": kind}), base_url=url)
    assert isinstance(made, HttpProvider)
    try:
        yield made
    finally:
        await made.close()


def call(
    prompt: str = "What is 2+2?", *, timeout_s: float = 5.0, model: str = "simulated-1", max_output_tokens: int = 100
) -> Call:
    """Return a call of two messages."""
    messages = (Message(role="system", content="You are an analytical bot."), Message(role="user", content=prompt))
    return Call(model, messages, temperature=0.7, max_output_tokens=max_output_tokens, timeout_s=timeout_s)
