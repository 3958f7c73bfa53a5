"""The provider's clock: the real one, or one that runs faster from the start of the simulator on.

Windows, lives of files and caches, and the delays of batches are in its seconds. Limits (`--minute-s`) and latency
are not.
"""

from __future__ import annotations

import time


class Clock:
    """Unix time of the provider, in seconds.

    Args:
        speed: Its seconds in a real one.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._begun_wall_s, self._begun_s = time.time(), time.monotonic()

    def now_s(self) -> float:
        """Return the time; it never goes back."""
        return self._begun_wall_s + (time.monotonic() - self._begun_s) * self._speed
