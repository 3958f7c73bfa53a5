"""The simulator as the limiter's benchmark needs it: it can be told to have an outage (429 for everybody)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from aiohttp import web

from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.server import Simulator


class OutageSimulator(Simulator):
    """A simulator that answers `POST /outage?s=1.5` by refusing every call for so long."""

    def __init__(self, options: SimulatorOptions) -> None:
        super().__init__(options)
        self._until = 0.0

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        left_s = self._until - time.monotonic()
        if request.path == "/outage":
            self._until = time.monotonic() + float(request.query["s"])
            return web.Response(text="ok")
        if left_s > 0:
            headers = {"retry-after": f"{left_s:.3f}", "retry-after-ms": str(round(left_s * 1000))}
            return web.Response(status=429, headers=headers)
        return await super()._handle(request)


async def _serve(options: dict[str, Any]) -> None:
    print(await OutageSimulator(SimulatorOptions(**options)).start(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(json.loads(sys.argv[1])))
