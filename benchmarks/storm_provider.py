"""The simulator as `benchmarks.storm` needs it: it fails in a given way for so long, and keeps a log of every call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
import warnings
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.server import Simulator

#: What stands in the prompt of a critical task.
CRITICAL = b"critical"
#: Status by the name of a storm in which every call is answered with an error.
STATUSES = {"5xx": 503, "529": 529, "key": 401}
#: Share of calls that fail in a burst of errors, and how much longer answers take in a brown-out.
BURST_SHARE, SLOWER = 0.3, 15.0
#: What the one call that is refused for an hour is told, in seconds.
HOUR_S = 3600


class StormSimulator(Simulator):
    """A simulator with `POST /storm?kind=5xx&s=10` and `GET /calls`.

    Kinds: refuse (no connection), accept (connections are taken, and nobody reads from them), hang (a call is read,
    and nothing is said, ever), half (headers and half of an answer), tenth (one of ten calls is answered, the others
    hang), 5xx, 529, key (401), burst, slow, hour (one 429 with an hour of Retry-After). A call that hangs
    has status 0 in the log; what comes while nobody reads is not there.
    """

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._kind, self._until = "", 0.0
        self._calls: list[tuple[float, int, bool]] = []
        self._count = 0
        self._url = ""
        self._return: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Listen, and return the address."""
        self._url = await self.start()
        return self._url

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/storm":
            return self._begin(request.query["kind"], float(request.query["s"]))
        if request.path == "/calls":
            return web.json_response(self._calls)
        if request.method != "POST" or request.path != "/v1/chat/completions":
            return await super()._handle(request)
        sent_at, raw = time.time(), await request.content.read()
        with warnings.catch_warnings(action="ignore"):
            request.content.unread_data(raw)  # the simulator reads it anew
        is_critical = CRITICAL in raw
        if self._hangs():
            self._calls.append((sent_at, 0, is_critical))
            if self._kind == "half":
                await self._half(request)
            await asyncio.Event().wait()
        response = await self._stormy(request)
        self._calls.append((sent_at, response.status, is_critical))
        return response

    def _hangs(self) -> bool:
        """Return whether a call that has come is never answered, or not to its end."""
        if self._kind not in ("hang", "half", "tenth") or time.monotonic() >= self._until:
            return False
        self._count += 1
        return self._kind != "tenth" or self._count % 10 > 0

    async def _half(self, request: web.BaseRequest) -> None:
        """Begin an answer."""
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "400"})
        await response.prepare(request)
        await response.write(b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "message": {')

    async def _stormy(self, request: web.BaseRequest) -> web.StreamResponse:
        if time.monotonic() >= self._until:
            return await super()._handle(request)
        self._count += 1
        if self._kind == "hour":
            self._until = 0.0
            return _error(429, {"retry-after": str(HOUR_S)})
        if self._kind in STATUSES or (self._kind == "burst" and self._count * BURST_SHARE % 1 < BURST_SHARE):
            return _error(STATUSES.get(self._kind, 503), {})
        if self._kind == "slow":
            await asyncio.sleep(SLOWER * self.options.latency_ms / 1000)
        return await super()._handle(request)

    def _begin(self, kind: str, seconds: float) -> web.Response:
        self._kind, self._until, self._count = kind, time.monotonic() + seconds, 0
        if kind in ("refuse", "accept"):
            self._return = asyncio.ensure_future(self._away(seconds, is_deaf=kind == "accept"))
        return web.json_response({"at": time.time()})

    async def _away(self, seconds: float, *, is_deaf: bool) -> None:
        """Stop listening and cut every connection, for so long; if it `is_deaf`, take new ones and read nothing."""
        await asyncio.sleep(0.05)  # the answer to who asked for it
        end, port = time.monotonic() + seconds, urlsplit(self._url).port or 0
        await self.stop()
        deaf = socket.socket()
        try:
            if is_deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                deaf.bind(("127.0.0.1", port))
                deaf.listen(1024)
            await asyncio.sleep(max(0.0, end - time.monotonic()))
        finally:
            deaf.close()  # cuts what was taken
        await self.start(port=port)


def _error(status: int, headers: dict[str, str]) -> web.Response:
    told = {"error": {"message": "simulated storm", "type": "invalid_api_key" if status == 401 else "server_error"}}
    return web.json_response(told, status=status, headers=headers)


async def _serve(options: dict[str, Any]) -> None:
    print(await StormSimulator(SimulatorOptions(**options)).open(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(json.loads(sys.argv[1])))
