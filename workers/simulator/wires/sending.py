"""How an answer reaches the client: whole, cut in the middle, or event by event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from fleet.workers.simulator.wires.wire import encode_json

#: On every answer, so that nobody takes it for a real provider's.
MARK = {"x-fleet-simulator": "true", "Content-Type": "application/json"}


def respond(status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
    """Return an answer of a known status."""
    return web.Response(status=status, body=body, headers=headers)


class Sending:
    """Sends one answer.

    Attributes:
        response: What the handler returns.
        share: Of the answer: what the client got of it, and pays for. What is cut on purpose was made whole.
        is_whole: All of it was sent.
    """

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str]) -> None:
        self._request = request
        self._headers = headers
        self.response: web.StreamResponse = web.Response(headers=headers)
        self.share = 1.0
        self.is_whole = False

    async def whole(self, values: Mapping[str, Any], *, is_cut: bool) -> None:
        """Send a body at once, or half of it."""
        body = encode_json(values).encode("ascii")
        if is_cut:
            await self.cut(body)
        else:
            self.response = web.Response(body=body, headers=self._headers)
            self.is_whole = True

    async def cut(self, body: bytes) -> web.StreamResponse:
        """Send half of the body, then close the connection."""
        self.response = web.StreamResponse(headers=self._headers)
        self.response.content_length = len(body)
        await self.response.prepare(self._request)
        await self.response.write(body[: len(body) // 2])
        self._close()
        return self.response

    async def stream(
        self, events: Sequence[bytes], *, over_s: float, is_cut: bool, broken: Mapping[str, Any] | None
    ) -> None:
        """Send events one by one; `share` tells at any time how many of them were sent.

        Args:
            events: All that there are.
            over_s: Seconds that they take together.
            is_cut: The connection closes after half of them.
            broken: An error that comes after half of them, and ends the stream.
        """
        self.share = 0.0
        self.response = web.StreamResponse(headers={**self._headers, "Content-Type": "text/event-stream"})
        await self.response.prepare(self._request)
        for number, event in enumerate(events[: len(events) // 2] if is_cut or broken else events, 1):
            if over_s:
                await asyncio.sleep(over_s / len(events))
            await self.response.write(event)
            self.share = number / len(events)
            self.is_whole = number == len(events)  # at once: clients leave at the last event, which ends this handler
        if broken is not None:
            await self.response.write(f"event: error\ndata: {encode_json(broken)}\n\n".encode("ascii"))
        if is_cut:
            self._close()

    def _close(self) -> None:
        if self._request.transport is not None:
            self._request.transport.close()
