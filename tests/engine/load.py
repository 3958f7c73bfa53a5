"""Tasks that are submitted all the time, while something else is tried."""

from __future__ import annotations

import threading
from typing import Any

from fleet.models import BotResult


class Load:
    """A thread that submits tasks until it is stopped.

    Args:
        pools: Each gets one at a time.
        every_s: Seconds between two rounds.
    """

    def __init__(self, *pools: str, every_s: float) -> None:
        self.handles: list[Any] = []
        self._pools, self._every_s = pools, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        from fleet import submit_task  # inside tests only

        while not self._stop.wait(self._every_s):
            self.handles += [submit_task.delay("What is 2+2?", pool=pool) for pool in self._pools]

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def results(self, *, within_s: float = 60) -> list[BotResult]:
        """Stop, and return what came of all."""
        self.stop()
        return [handle.get(timeout=within_s) for handle in self.handles]
