"""When a task's time is over. It moves: what a neighbour holds up does not count."""

from __future__ import annotations

import asyncio
import contextlib


class Deadline:
    """The deadline of one task, on its event loop's clock; used on that loop only.

    Args:
        at: Loop time (s).

    Attributes:
        at: When it is now.
        stood_s: Seconds by which it was moved.
    """

    def __init__(self, at: float) -> None:
        self.at = at
        self.stood_s = 0.0
        self._scope: asyncio.Timeout | None = None

    @property
    def left_s(self) -> float:
        """Seconds until then; 0 or less when it has passed."""
        return self.at - asyncio.get_running_loop().time()

    def scope(self) -> asyncio.Timeout:
        """Return a block (`async with`) that cancels what runs in it at the deadline, wherever that is by then."""
        self._scope = asyncio.timeout_at(self.at)
        return self._scope

    def stand(self, seconds: float) -> None:
        """Move it: so long others have held the task up. One that has struck stays as it is."""
        scope = self._scope
        if scope is not None and scope.expired():
            return
        self.at += seconds
        self.stood_s += seconds
        if scope is not None:
            with contextlib.suppress(RuntimeError):  # the block has been left
                scope.reschedule(self.at)
