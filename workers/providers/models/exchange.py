"""What one call sends and gets over HTTP, seen from inside the clients of foreign SDKs; and those clients.

A hook of our client writes it down, because no SDK hands out status, headers and body of every answer. The hook also
keeps the law: what would be a second request of one call is not sent.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2

from fleet.workers.providers.base import CONNECT_TIMEOUT_S, KEEPALIVE_S, MAX_ANSWER_BYTES

#: Bytes of a streamed answer that are kept: an error is its last event.
MOST_TAIL_BYTES = 64 * 1024


class Forbidden(Exception):
    """An SDK wanted to do what it must not: send a second request, fetch a URL, read an endless answer."""


def _anything(fields: Mapping[str, Any]) -> None:
    """Let everything be sent."""


@dataclass(slots=True)
class Exchange:
    """One HTTP request and its answer.

    Attributes:
        requests: How many were handed to the client: at most one.
        asked: The body that was sent.
        status: Of the answer; None until there is one.
        headers: Of the answer.
        raw: The answer's body; of one that comes in pieces, the end so far.
        is_streamed: True when the answer is asked for in pieces.
        extra: Headers to send beside the SDK's own.
        check: Looks at what is about to be sent, and may raise instead.
    """

    requests: int = 0
    asked: bytes = b""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""
    is_streamed: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] = _anything

    @property
    def is_json(self) -> bool:
        """True when the answer says that it is one piece of JSON."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"

    def send(self, body: bytes) -> None:
        """Note a request that is about to be sent.

        Raises:
            Forbidden: When it is not the first.
            FleetError: As `check` does.
        """
        if self.requests:
            raise Forbidden("expected one request, got a second")
        self.asked = body
        self.check(self.asked_fields())
        self.requests = 1

    def take(self, piece: bytes, before: int) -> int:
        """Note a piece of a streamed answer, of which so many bytes had come; return how many have now.

        Raises:
            Forbidden: When it is endless.
        """
        if before + len(piece) > MAX_ANSWER_BYTES:
            raise Forbidden(f"expected at most {MAX_ANSWER_BYTES} bytes")
        self.raw = (self.raw + piece)[-MOST_TAIL_BYTES:]
        return before + len(piece)

    def asked_fields(self) -> dict[str, Any]:
        """Return the fields that were sent, at any depth, by name; none when the body is not JSON.

        Of what stands in the conversation only the marks for a cache.
        """
        try:
            found = dict(_fields(json.loads(self.asked)))
        except (ValueError, RecursionError):
            return {}
        return found | {name: True for name in MARKS if f'"{name}"'.encode() in self.asked}


def _fields(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            if name not in ("messages", "contents", "input", "tools"):  # what was said, not what was asked for
                yield from _fields(inner)


#: What marks places of a conversation for a cache on the wires of vendors.
MARKS = ("cache_control", "cachePoint", "prompt_cache_breakpoint")
_CURRENT: ContextVar[Exchange | None] = ContextVar("fleet_models_exchange", default=None)


@contextlib.contextmanager
def exchanging(
    extra: Mapping[str, str], check: Callable[[Mapping[str, Any]], None], *, is_streamed: bool = False
) -> Iterator[Exchange]:
    """Write down what is sent and got inside, also in threads that inherit this context.

    Args:
        extra: Headers to send beside the SDK's own.
        check: Looks at the fields that are about to be sent, and may raise instead.
        is_streamed: True when the answer is asked for in pieces.
    """
    exchange = Exchange(extra=extra, check=check, is_streamed=is_streamed)
    token = _CURRENT.set(exchange)
    try:
        yield exchange
    finally:
        _CURRENT.reset(token)


class Clients:
    """The HTTP clients of one provider: one for SDKs on httpx2, one for those still on httpx. For one event loop.

    Args:
        direct: True: no proxy of the environment's, for an API on this host.
    """

    def __init__(self, *, direct: bool) -> None:
        self._direct = direct
        self._new: httpx2.AsyncClient | None = None
        self._old: httpx.AsyncClient | None = None

    @property
    def httpx2(self) -> httpx2.AsyncClient:
        if self._new is None:
            self._new = httpx2.AsyncClient(
                timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
                limits=httpx2.Limits(keepalive_expiry=KEEPALIVE_S),  # how many is the limiter's business
                trust_env=not self._direct,
                event_hooks={"request": [_sending], "response": [_answered]},
            )
        return self._new

    @property
    def httpx(self) -> httpx.AsyncClient:
        if self._old is None:
            self._old = httpx.AsyncClient(
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
                limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
                trust_env=not self._direct,
                event_hooks={"request": [_sending], "response": [_answered]},
            )
        return self._old

    async def close(self) -> None:
        """Close both."""
        clients, self._new, self._old = (self._new, self._old), None, None
        for client in clients:
            if client is not None:
                await client.aclose()


async def _sending(request: Any) -> None:
    """Note the request, and bound the time for a connection: SDKs give one number for everything."""
    exchange = _CURRENT.get()
    if exchange is None:
        return
    timeouts = request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        request.extensions["timeout"] = {**timeouts, "connect": CONNECT_TIMEOUT_S, "pool": None}
    request.headers.update(exchange.extra)
    if exchange.is_streamed:
        request.headers["Accept-Encoding"] = "identity"  # what comes is read on its way
    exchange.send(await request.aread())


async def _answered(response: Any) -> None:
    """Note the answer: whole, or each piece of it as it comes."""
    exchange = _CURRENT.get()
    if exchange is None:
        return
    exchange.status, exchange.headers = response.status_code, response.headers
    if _is_too_long(response.headers.get("content-length")):
        raise Forbidden(f"expected at most {MAX_ANSWER_BYTES} bytes")
    if exchange.is_streamed and response.is_success and not exchange.is_json:
        response.stream = _Overheard(response.stream, exchange)
    else:
        exchange.raw = await response.aread()


class _Overheard(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """An answer's body in which each piece is noted as it comes."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size = self._exchange.take(piece, size)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_too_long(length: str | None) -> bool:
    return length is not None and length.isdecimal() and int(length) > MAX_ANSWER_BYTES


def watch_botocore(client: Any) -> None:
    """Write down the exchanges of a boto3 client too; its requests run in threads that inherit the context."""

    def sending(request: Any, **_: Any) -> None:
        if (exchange := _CURRENT.get()) is not None:
            body = request.body
            exchange.send(body if isinstance(body, bytes) else str(body or "").encode("utf-8", "replace"))

    def answered(response_dict: Mapping[str, Any] | None = None, **_: Any) -> None:
        if (exchange := _CURRENT.get()) is not None and response_dict is not None:
            exchange.status = response_dict["status_code"]
            exchange.headers = {name.lower(): value for name, value in response_dict["headers"].items()}
            body = response_dict["body"]
            exchange.raw = body if isinstance(body, bytes) else b""

    client.meta.events.register("before-send.bedrock-runtime", sending)
    client.meta.events.register("response-received.bedrock-runtime", answered)
