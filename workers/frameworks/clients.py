"""Clients of httpx and httpx2 that send nothing themselves: each request crosses over to its bot's gateway.

The two libraries are twins: one code serves both, by the module that is asked for. Timeouts of a client mean nothing
here, as the deadline of the task and the provider's own timeout do the same.
"""

from __future__ import annotations

import asyncio
import importlib
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from fleet.errors import BotFunctionFailed, ConfigurationError
from fleet.quoting import quote
from fleet.workers.bot.quiet import quieten
from fleet.workers.frameworks.raw import REFUSAL, Chunks, RawAnswer, RawRequest

#: The libraries, the one that is taken first where nobody asks for one.
KINDS = ("httpx2", "httpx")


def async_client(send: Callable[[RawRequest], Awaitable[RawAnswer]], kind: str | None = None) -> Any:
    """Return an `AsyncClient` that sends with `send`.

    Raises:
        ConfigurationError: The library is not installed.
    """
    library = _library(kind)
    transport = _transport_class(library, "AsyncBaseTransport", _AsyncTransport)()
    transport.library, transport.send = library, send
    return library.AsyncClient(transport=transport, trust_env=False, timeout=None)


def blocking_client(send: Callable[[RawRequest], RawAnswer], kind: str | None = None) -> Any:
    """Return a `Client` that sends with `send`, and blocks its thread meanwhile.

    Raises:
        ConfigurationError: The library is not installed.
    """
    library = _library(kind)
    transport = _transport_class(library, "BaseTransport", _BlockingTransport)()
    transport.library, transport.send = library, send
    return library.Client(transport=transport, trust_env=False, timeout=None)


def _library(kind: str | None) -> ModuleType:
    quieten()
    if kind is not None and kind not in KINDS:
        raise BotFunctionFailed(f"bot.http_client(): expected kind httpx or httpx2, got {quote(str(kind))}")
    for name in KINDS if kind is None else (kind,):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    wanted = kind or "httpx2"
    raise ConfigurationError(f"bot.http_client(): expected {wanted} to be installed, got none: pip install {wanted}")


@lru_cache
def _transport_class(library: ModuleType, base: str, made: type[Any]) -> type[Any]:
    return type(made.__name__, (made, getattr(library, base)), {})


@lru_cache
def _stream_class(library: ModuleType, base: str, made: type[Any]) -> type[Any]:
    return type(made.__name__, (made, getattr(library, base)), {})


def _raw(request: Any, body: bytes) -> RawRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return RawRequest(request.method, request.url.raw_path.decode("ascii"), headers, body)


def _response(library: ModuleType, request: Any, answer: RawAnswer, stream: Any) -> Any:
    told = {} if answer.refusal is None else {REFUSAL: answer.refusal}
    return library.Response(
        answer.status, headers=dict(answer.headers), request=request, extensions=told,
        **({"content": answer.body} if stream is None else {"stream": stream}),
    )  # fmt: skip


class _AsyncTransport:
    library: ModuleType
    send: Callable[[RawRequest], Awaitable[RawAnswer]]

    async def handle_async_request(self, request: Any) -> Any:
        answer = await self.send(_raw(request, await request.aread()))
        stream = None
        if answer.chunks is not None:
            stream = _stream_class(self.library, "AsyncByteStream", _AsyncStream)()
            stream.chunks = answer.chunks
        return _response(self.library, request, answer, stream)


class _BlockingTransport:
    library: ModuleType
    send: Callable[[RawRequest], RawAnswer]

    def handle_request(self, request: Any) -> Any:
        answer = self.send(_raw(request, request.read()))
        stream = None
        if answer.chunks is not None:
            stream = _stream_class(self.library, "SyncByteStream", _BlockingStream)()
            stream.chunks = answer.chunks
        return _response(self.library, request, answer, stream)


class _AsyncStream:
    chunks: Chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop, more = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(more.set)

        self.chunks.wake = wake
        while True:
            more.clear()
            try:
                piece = self.chunks.next(waits=False)
            except queue.Empty:
                await more.wait()
                continue
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        self.chunks.leave()


class _BlockingStream:
    chunks: Chunks

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self.chunks.next(waits=True)) is not None:
            yield piece

    def close(self) -> None:
        self.chunks.leave()
