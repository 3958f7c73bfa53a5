"""Clients of httpx and httpx2 that reach a tool API over the road of `tools.py`: asyncio's and blocking ones.

Neither library is imported before a client of it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Self

from fleet.errors import ConfigurationError, ToolFailed
from fleet.quoting import quote
from fleet.workers.frameworks.raw import REFUSAL
from fleet.workers.frameworks.tool_wire import ToolAnswer, ToolRequest

#: Libraries whose clients there are, in the order in which they are tried.
Library = Literal["httpx", "httpx2"]
LIBRARIES: tuple[Library, ...] = ("httpx2", "httpx")


def library(kind: Library | None) -> Any:
    """Return the module of a library; of the first one that is installed when none is named.

    Raises:
        ConfigurationError: When it is not installed, or there is no such one.
    """
    if kind is not None and kind not in LIBRARIES:
        raise ConfigurationError(f"kind: expected {' or '.join(LIBRARIES)}, got {quote(kind)}")
    for name in LIBRARIES if kind is None else (kind,):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    wanted = kind or " or ".join(LIBRARIES)
    raise ConfigurationError(f"expected {wanted} to be installed, got none: pip install {kind or LIBRARIES[0]}")


class AsyncToolTransport:
    """Transport of an asyncio client of one tool.

    Args:
        module: `httpx` or `httpx2`.
        misses: Tells why an address is none of the tool's; empty: it is.
        ask: Sends a request and returns the answer.
    """

    def __init__(
        self, module: Any, misses: Callable[[str], str], ask: Callable[[ToolRequest], Awaitable[ToolAnswer]]
    ) -> None:
        self._module, self._misses, self._ask = module, misses, ask

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request.

        Raises:
            RequestError: Of the library: it goes to another host, or (with `ToolFailed` as its cause) nobody knows what
                became of it.
            FleetError: As `ToolRun.ask`.
        """
        asked = _asked(self._module, self._misses, request, await request.aread())
        try:
            answer = await self._ask(asked)
        except ToolFailed as error:
            raise _lost(self._module, request, error) from error
        return _response(self._module, request, answer)

    async def aclose(self) -> None:
        """Do nothing: the connections are the process's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class BlockingToolTransport:
    """Transport of a blocking client of one tool. Arguments and errors as `AsyncToolTransport`."""

    def __init__(self, module: Any, misses: Callable[[str], str], ask: Callable[[ToolRequest], ToolAnswer]) -> None:
        self._module, self._misses, self._ask = module, misses, ask

    def handle_request(self, request: Any) -> Any:
        """Send one request."""
        asked = _asked(self._module, self._misses, request, request.read())
        try:
            answer = self._ask(asked)
        except ToolFailed as error:
            raise _lost(self._module, request, error) from error
        return _response(self._module, request, answer)

    def close(self) -> None:
        """Do nothing: the connections are the process's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _asked(module: Any, misses: Callable[[str], str], request: Any, body: bytes) -> ToolRequest:
    """Return what a request of a library asks for."""
    url = str(request.url)
    if wrong := misses(url):
        raise module.RequestError(wrong, request=request)
    headers = tuple((name.decode("latin-1"), text.decode("latin-1")) for name, text in request.headers.raw)
    timeout_s = request.extensions.get("timeout", {}).get("read")
    return ToolRequest(request.method.upper(), url.partition("#")[0], headers, body, timeout_s)


def _lost(module: Any, request: Any, error: ToolFailed) -> Exception:
    lost: Exception = module.ReadError(str(error), request=request)
    return lost


def _response(module: Any, request: Any, answer: ToolAnswer) -> Any:
    extensions = {"http_version": b"HTTP/1.1"} | ({} if answer.failed is None else {REFUSAL: answer.failed})
    headers = list(answer.headers)
    return module.Response(answer.status, headers=headers, content=answer.body, request=request, extensions=extensions)
