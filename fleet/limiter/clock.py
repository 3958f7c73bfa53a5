"""The clock of Redis as one process sees it: when a slot that Redis named has come."""

from __future__ import annotations

import asyncio
import math


class RedisClock:
    """How far this loop's clock is ahead of that of Redis, as well as replies can tell; seconds.

    Every reply was written after its question was sent and before it was heard, so the difference lies between the
    two (Cristian's algorithm, 1989). The smallest upper bound so far holds until a question contradicts it: then a
    clock was stepped or has drifted, and the newest reply counts. So a slot is never taken too early by more than the
    quickest reply took, and a reply that a busy loop reads late makes no call late.
    """

    __slots__ = ("_ahead_s",)

    def __init__(self) -> None:
        self._ahead_s = math.inf

    def local(self, redis_us: float, *, now_us: int, asked_at: float, heard_at: float) -> float:
        """Return the loop time of a time of Redis.

        Args:
            redis_us: The time of Redis to translate (us).
            now_us: Time of Redis when it replied (us).
            asked_at: Loop time just before the question was sent.
            heard_at: Loop time when the reply was read.
        """
        now_s = now_us / 1e6
        self._ahead_s = min(self._ahead_s, heard_at - now_s)
        if self._ahead_s < asked_at - now_s:
            self._ahead_s = heard_at - now_s
        return redis_us / 1e6 + self._ahead_s


def stood_s(loop: asyncio.AbstractEventLoop) -> float:
    """Return the seconds that a worker's loop has stood in all, which its own clock leaves out; 0 for other loops.

    Redis leaves nothing out: a slot that came while the loop stood is past, whatever `loop.time()` says.
    """
    stood: float = getattr(loop, "stood_s", 0.0)
    return stood
