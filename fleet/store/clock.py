"""The clock of Redis as this process knows it: what is due, expired or alive goes by it, not by this host's clock.

It costs no round trip: whoever hears the time of Redis anyway says so, in a worker every two seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fleet.quoting import duration

#: Round trips longer than this tell little, in seconds: Redis may have answered at their start or at their end. One is
#: believed only while none was shorter.
LONGEST_TRIP_S = 0.5
#: Seconds between this host's clock and that of Redis from which a person is told.
NAMED_FROM_S = 2.0


class HostClock:
    """How far this host's clock is from that of Redis. Right within half a round trip; 0 until it is heard.

    Args:
        wall: Unix time of this host in seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        #: Seconds that this host's clock is ahead.
        self.ahead_s = 0.0
        self._is_sure = False

    def now_s(self) -> float:
        """Return Unix time in seconds by the clock of Redis."""
        return self._wall() - self.ahead_s

    def hear(self, redis_s: float, *, asked_s: float) -> None:
        """Note what Redis said just now, when asked at `asked_s` (`time.monotonic`)."""
        trip_s = time.monotonic() - asked_s
        is_quick = trip_s <= LONGEST_TRIP_S
        if is_quick or not self._is_sure:
            self._is_sure = self._is_sure or is_quick
            self.ahead_s = self._wall() - trip_s / 2 - redis_s

    @property
    def is_off(self) -> bool:
        """True when a person should hear of it."""
        return abs(self.ahead_s) >= NAMED_FROM_S


#: The one of this process.
CLOCK = HostClock()


def told(ahead_s: float) -> str:
    """Return how far a clock is off, as people say it."""
    return f"{duration(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} the clock of Redis"
