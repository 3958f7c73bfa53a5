"""What a worker says as it stops: how many tasks still finished, how many went back, what it leaves running.

Celery ends a worker after Ctrl-C with 1, as if it had failed. A warm stop is what was asked for: it ends with 0.
"""

from __future__ import annotations

import sys
from typing import Any

from celery import signals
from celery.platforms import EX_FAILURE

from fleet.engine.transport import leases
from fleet.quoting import counted
from fleet.store.private.service import still_running

WARM = "Warm"
CTRL_C = "SIGINT"


class Farewell:
    """Counts from the signal that stops a worker to its end. One per process.

    Attributes:
        finished: Tasks that have ended with a result, since the start.
        stranded: Tasks that could not be given back to their queues, since the start: Redis was away.
    """

    def __init__(self) -> None:
        self.finished = 0
        self.stranded = 0
        self._before: tuple[int, int] | None = None
        self._by_hand = False
        self._is_warm = True
        self._worker: Any = None

    def listen(self) -> None:
        """Hear from now on of the signals that stop the worker."""
        signals.worker_ready.connect(self._meet, weak=False)
        signals.worker_shutting_down.connect(self._note, weak=False)
        signals.worker_shutdown.connect(self._end_well, weak=False)

    def cut_short(self) -> None:
        """Note that the stop is not a warm one: Celery's own signal for that may come too late."""
        self._is_warm = False
        if self._worker is not None:
            self._worker.exitcode = EX_FAILURE  # Celery forgets it when the second signal comes quickly

    def begin(self) -> None:
        """Count from now on, unless a signal has begun it."""
        if self._before is None:
            self._before = self.finished, _handed_back()

    def say(self) -> None:
        """Print what came of the tasks, and after Ctrl-C what runs on."""
        self.begin()
        finished, handed_back = self._before or (0, 0)
        line = told(self.finished - finished, _handed_back() - handed_back, self.stranded)
        print(f"fleet: {line}", file=sys.stderr)
        left = still_running() if self._by_hand else None
        if left is not None:
            print(f"fleet: {left}", file=sys.stderr)
        sys.stderr.flush()

    def _note(self, sig: str, how: str, **_: Any) -> None:
        """Runs in the handler of the signal."""
        self.begin()
        self._by_hand |= sig == CTRL_C
        self._is_warm &= how == WARM

    def _meet(self, sender: Any, **_: Any) -> None:
        self._worker = sender.controller

    def _end_well(self, sender: Any, **_: Any) -> None:
        if self._by_hand and self._is_warm:
            sender.exitcode = 0


def _handed_back() -> int:
    return sum(holdings.handed_back for holdings in leases.all_holdings())


def told(finished: int, handed_back: int, stranded: int) -> str:
    """Return what became of the tasks that were under way."""
    if not finished and not handed_back and not stranded:
        return "stopped; no task was under way"
    went = f"{handed_back:,} went back to {'its queue' if handed_back == 1 else 'their queues'}"
    line = f"stopped; {counted(finished, 'task')} finished, {went}"
    if not stranded:
        return line
    return f"{line}; {stranded:,} could not go back, for Redis is away: any worker has them soon after its return"
