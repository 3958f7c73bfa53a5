"""One HTTP request about a batch, over the session of its provider's adapter. Never repeats any.

What a refusal means: `refusals.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pydantic_core
from yarl import URL

from fleet.errors import ProviderUnavailable
from fleet.usage import Usage
from fleet.workers.providers.base import CONNECT_TIMEOUT_S, MAX_ANSWER_BYTES, HttpProvider
from fleet.workers.providers.batches.refusals import RefusedBatch, meaning_of
from fleet.workers.providers.bodies import MAX_BODY_BYTES
from fleet.workers.providers.usage import read_told_usage

#: Seconds for one request; an upload of a hundred MB is among them.
TIMEOUT_S = 120.0
#: Largest output that is read, in bytes: what a job of ours can come to. A line of it: as large as a call's answer.
MAX_OUTPUT_BYTES, MAX_LINE_BYTES = 1024 * 1024 * 1024, MAX_ANSWER_BYTES

_WHOLE = aiohttp.ClientTimeout(total=TIMEOUT_S)
_PIECES = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=TIMEOUT_S)


class BatchHttp:
    """Requests under one key.

    Args:
        provider: Its adapter.
        key: Returns the key as it is now.
    """

    def __init__(self, provider: HttpProvider, key: Any) -> None:
        self._provider, self._key = provider, key
        self.host = provider.host

    async def json(
        self, method: str, path: str, *, data: Any = None, missing_ok: bool = False, bodies: Sequence[bytes] = ()
    ) -> dict[str, Any]:
        """Send one request; return its answer, a JSON object, empty for a 404 where that is no error.

        Args:
            method: Of the request.
            path: Below the root of the API, with its query.
            data: Body: JSON, or a form.
            missing_ok: What is gone need not be there.
            bodies: Requests of a batch that it carries.

        Raises:
            FleetError: As `Provider.complete`.
        """
        async with self._sent(method, path, data) as response:
            if response.status == 404 and missing_ok:
                return {}
            await self._check(response, bodies)
            told = object_of(await self._read(response, MAX_ANSWER_BYTES))
        if told is None:
            raise self.unread("an object of JSON")
        return told

    async def lines(self, path: str) -> AsyncGenerator[bytes]:
        """Yield the lines of a file as they come, without the empty ones; b"" stands for one that is too long.

        Raises:
            FleetError: As `Provider.complete`; what was yielded before is what there is of it.
        """
        line, size, is_long = bytearray(), 0, False
        async with self._sent("GET", path, timeout=_PIECES) as response:
            await self._check(response, ())
            async for chunk in response.content.iter_any():
                left, size = MAX_OUTPUT_BYTES - size, size + len(chunk)
                for place, piece in enumerate(chunk[:left].split(b"\n")):
                    if place:
                        if is_long or line.strip():
                            yield b"" if is_long else bytes(line)
                        line, is_long = bytearray(), False
                    is_long = is_long or len(line) + len(piece) > MAX_LINE_BYTES
                    if not is_long:
                        line += piece
                if size > MAX_OUTPUT_BYTES:
                    raise self.unread(f"at most {MAX_OUTPUT_BYTES} bytes of output")
        if is_long or line.strip():
            yield b"" if is_long else bytes(line)

    def unread(self, expected: str) -> ProviderUnavailable:
        """Return the error of an answer that is none: the same request will hardly bring another one."""
        return ProviderUnavailable(f"{self.host}: expected {expected}, got something else", passes=False)

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, data: Any = None, timeout: aiohttp.ClientTimeout = _WHOLE
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        provider = self._provider
        headers = dict(provider._headers(self._key()))
        if isinstance(data, aiohttp.FormData):
            headers.pop("Content-Type", None)
        url = URL(f"{provider._root}{path}", encoded=True)
        try:
            async with provider._open().request(
                method, url, data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                yield response
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise provider._failure(TIMEOUT_S, error) from error

    async def _check(self, response: aiohttp.ClientResponse, bodies: Sequence[bytes]) -> None:
        """Raise what a refusal means."""
        if not 200 <= response.status < 300:
            refused = RefusedBatch(
                self.host, response.status, await self._read(response, MAX_BODY_BYTES), response.headers
            )
            raise meaning_of(refused, key=self._key(), bodies=bodies)

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        read = bytearray()
        async for chunk in response.content.iter_any():
            read += chunk
            if len(read) > most:
                raise self.unread(f"an answer of at most {most} bytes")
        return bytes(read)


def object_of(raw: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None: it is none."""
    try:
        told = pydantic_core.from_json(raw)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def inner(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the object in a field; an empty one when something else stands there."""
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def whole(told: Mapping[str, Any], name: str) -> int:
    """Return the count in a field; 0 when something else stands there."""
    found = told.get(name)
    return found if isinstance(found, int) and found > 0 else 0


def text(told: Mapping[str, Any], name: str) -> str:
    """Return the text in a field; an empty one when something else stands there."""
    found = told.get(name)
    return found if isinstance(found, str) else ""


def usage_of(body: Mapping[str, Any]) -> Usage:
    """Return what an answer says that it used; nothing where it does not say."""
    return read_told_usage(body.get("usage")) or Usage()
