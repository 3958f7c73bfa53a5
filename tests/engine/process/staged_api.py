"""A simulated provider beside real workers, whose behaviour changes while they work."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fleet import config
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


def use(
    monkeypatch: pytest.MonkeyPatch, apis: Mapping[str, Api], *, has_ladders: bool = False, **provider: Any
) -> None:
    """Let this process and its workers have a provider and a pool of 20 bots for each API; nothing judges the bots.

    Args:
        monkeypatch: Of the test.
        apis: By the name of provider and pool.
        has_ladders: Each pool falls back to all other APIs.
        provider: Further settings of each provider.
    """
    below = {name: [{"provider": other, "model": "m-1"} for other in apis if other != name] for name in apis}
    for name, table in {
        "PROVIDERS": {name: {"kind": "simulator", "base_url": api.url, **provider} for name, api in apis.items()},
        "POOLS": {
            name: {"bots": 20, "provider": name, "model": "m-1", "fallback": below[name] if has_ladders else []}
            for name in apis
        },
        "HEALTH": {"watch": False},
        "DIVERSITY": {"watch": False},
    }.items():
        monkeypatch.setenv(f"FLEET_{name}", json.dumps(table))
    config.current.cache_clear()
