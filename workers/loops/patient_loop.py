"""An event loop whose clock stands while the loop stands: a stall of ours is nobody's delay.

A stopped process, a sleeping machine or a C function that holds the GIL freezes every timer of the loop. On the usual
clock all of them are due at once afterwards, before the answers that came meanwhile are read: deadlines and provider
timeouts would blame others for our own stall. On this clock they go on where they stood.
"""

from __future__ import annotations

import asyncio
import time

#: Seconds between two turns that the loop takes also when there is nothing to do: a longer gap is a stall.
TICK_S = 0.25
#: Seconds without a turn that count as a stall. A busy machine is late by less.
STALL_S = 1.0


class PatientLoop(asyncio.SelectorEventLoop):
    """A loop that leaves its stalls out of `time()`. Durations on it are those in which it turned.

    Weakness: a callback that asks for the time while it blocks the loop makes its own block no stall. That is right
    for one that waits for `loop.time()` to pass, which must not stand still before its eyes.

    Attributes:
        stood_s: Seconds that it has stood in all.
        beat_at: Monotonic time of its last turn. May be read from any thread; `time()` may not.
    """

    def __init__(self) -> None:
        self.stood_s = 0.0
        self.beat_at = self._seen_at = time.monotonic()
        self._ticking: asyncio.TimerHandle | None = None
        super().__init__()

    def time(self) -> float:
        """Return the seconds of the monotonic clock in which this loop did not stand."""
        now = time.monotonic()
        gap_s = now - self._seen_at
        if gap_s > STALL_S:
            self.stood_s += gap_s - TICK_S
        self._seen_at = now
        return now - self.stood_s

    def run_forever(self) -> None:
        """Run until `stop()`."""
        if self._ticking is not None:
            self._ticking.cancel()
        self._tick()
        super().run_forever()

    def _tick(self) -> None:
        self.beat_at = time.monotonic()
        self._ticking = self.call_later(TICK_S, self._tick)
