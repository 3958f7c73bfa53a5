"""The simulator as `benchmarks.storm` needs it: it fails in a given way for so long, and keeps a log of every call."""

from __future__ import annotations

import asyncio
import contextlib
import json
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

    Kinds: refuse (no connection), 5xx, 529, hang (no answer, ever), key (401), burst, slow, hour (one 429 with an hour
    of Retry-After). In the log a call that hangs has status 0.
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
        if self._kind == "hang" and time.monotonic() < self._until:
            self._calls.append((sent_at, 0, is_critical))
            await asyncio.Event().wait()
        response = await self._stormy(request)
        self._calls.append((sent_at, response.status, is_critical))
        return response

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
        if kind == "refuse":
            self._return = asyncio.ensure_future(self._away(seconds))
        return web.json_response({"at": time.time()})

    async def _away(self, seconds: float) -> None:
        """Stop listening and cut every connection, for so long."""
        await asyncio.sleep(0.05)  # the answer to who asked for it
        end = time.monotonic() + seconds
        await self.stop()
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        await self.start(port=urlsplit(self._url).port or 0)


def _error(status: int, headers: dict[str, str]) -> web.Response:
    told = {"error": {"message": "simulated storm", "type": "invalid_api_key" if status == 401 else "server_error"}}
    return web.json_response(told, status=status, headers=headers)


async def _serve(options: dict[str, Any]) -> None:
    print(await StormSimulator(SimulatorOptions(**options)).open(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(json.loads(sys.argv[1])))
