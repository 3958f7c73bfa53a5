"""One request of an SDK over an adapter's own session: no body is made or read here."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from yarl import URL

from fleet.workers.frameworks.raw import DROPPED, KEPT_BACK, OnHead, RawAnswer, RawRequest


async def send_raw(
    session: aiohttp.ClientSession,
    url: URL,
    request: RawRequest,
    *,
    own: Mapping[str, str],
    timeout: aiohttp.ClientTimeout,
    on_head: OnHead,
    most_bytes: int,
) -> RawAnswer:
    """Send one request and return its answer, of any status.

    Args:
        session: What to send with.
        url: Where to.
        request: What; its path is not looked at.
        own: Headers of the adapter: they win, and have the key.
        timeout: Of the whole.
        on_head: Decides whether the bytes are handed on as they come.
        most_bytes: Longest answer that is read.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError: There was no answer, or half of one.
    """
    taken = DROPPED | {name.lower() for name in own}
    headers = {name: value for name, value in request.headers.items() if name.lower() not in taken}
    sending = session.request(
        request.method, url, data=request.body or None, headers={**headers, **own}, timeout=timeout,
        allow_redirects=False,
    )  # fmt: skip
    async with sending as response:
        told = {name.lower(): value for name, value in response.headers.items() if name.lower() not in KEPT_BACK}
        take, size, parts = on_head(response.status, told), 0, list[bytes]()
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > most_bytes:
                raise aiohttp.ClientPayloadError(f"expected at most {most_bytes} bytes")
            (parts.append if take is None else take)(chunk)
        return RawAnswer(response.status, told, b"".join(parts))
