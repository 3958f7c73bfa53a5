"""A simulated provider beside real workers, whose behaviour changes while they work."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.server import Simulator


class Api:
    """A simulated provider in a thread, whose options can be changed while it runs."""

    def __init__(self, *, latency_ms: float = 50) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.simulator = Simulator(SimulatorOptions(rpm=10**6, tpm=10**9, latency_ms=latency_ms))
        self.url = self._run(self.simulator.start())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def change(self, **options: Any) -> None:
        self.simulator.options = replace(self.simulator.options, **options)

    @property
    def calls(self) -> dict[str, int]:
        """What became of all calls, by the ledger."""
        return dict(self.simulator.ledger.report()["total"])

    def stop(self) -> None:
        self._run(self.simulator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
