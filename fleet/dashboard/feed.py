"""One reading of the fleet for all who watch it: at most one a second however many pages are open, none when none is.

With a thousand pools or 100,000 bots it is one every two to four seconds: Flower keeps three quarters of a core.

Reading happens on a thread, so that a Redis that hangs never stops Flower; pages then see how old their figures are.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fleet.dashboard.frames import Frame, frame_of
from fleet.errors import FleetError
from fleet.signals.view import FleetView

logger = logging.getLogger("fleet.dashboard")

#: Seconds for which a reading serves everybody.
FRESH_S = 1.0
#: Seconds of CPU of this process that a second of a page may take: a reading that takes more is made less often.
MOST_SHARE = 0.25
#: Seconds that a page waits for a reading before it is answered with the last one.
PATIENCE_S = 2.0
#: Frames kept, so that a page that comes a little late still gets only what changed. 10,000 bots take 4 MB each.
KEPT = 4


class Feed:
    """Reads the fleet when somebody asks. Lives on Flower's loop.

    Args:
        read: Reads the fleet; called on a thread of its own, never twice at once.
    """

    def __init__(self, read: Callable[[], FleetView]) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet-feed")
        self._frames: deque[Frame] = deque(maxlen=KEPT)
        self._bodies: dict[str, str] = {}  # what is sent of the newest frame, by the version that a page shows
        self._reading: asyncio.Task[None] | None = None
        self._read_at_s = -math.inf  # of the monotonic clock
        self._started_at_s = -math.inf
        self._fresh_s = FRESH_S
        self._epoch = secrets.token_hex(4)
        self._count = 0
        #: Why the last reading failed; None when it did not.
        self.trouble: str | None = None

    @property
    def age_s(self) -> float:
        """Seconds since the last good reading."""
        return time.monotonic() - self._read_at_s

    def expire(self) -> None:
        """Let the next page get a new reading: somebody has just changed something."""
        self._started_at_s = -math.inf

    def begin(self) -> None:
        """Begin a reading, unless one is under way or still serves everybody. Needs a running loop."""
        if self._reading is None and time.monotonic() - self._started_at_s >= self._fresh_s:
            self._started_at_s = time.monotonic()
            self._reading = asyncio.create_task(self._refresh())

    async def latest(self) -> Frame | None:
        """Return the newest frame, after at most `PATIENCE_S`; None when there never was one.

        A reading that had begun before somebody changed something is waited for, and then one more.
        """
        end_s = time.monotonic() + PATIENCE_S
        self.begin()
        while self._reading is not None:
            await asyncio.wait([self._reading], timeout=max(0.0, end_s - time.monotonic()))
            if self._reading is not None:
                self.trouble = self.trouble or "Redis is slow to answer"
                break
            if self._started_at_s == -math.inf:
                self.begin()
        return self._frames[-1] if self._frames else None

    def body(self, shown: str) -> str | None:
        """Return the newest frame as JSON for a page that shows version `shown`; None when that is the newest.

        Made once for all pages that show the same.
        """
        newest = self._frames[-1]
        old = next((frame for frame in self._frames if frame.version == shown), None)
        if old is newest:
            return None
        key = old.version if old else ""
        if key not in self._bodies:
            self._bodies[key] = newest.since(old) if old else newest.whole()
        return self._bodies[key]

    async def _refresh(self) -> None:
        started_at_s = time.monotonic()
        try:
            frame = await asyncio.get_running_loop().run_in_executor(self._thread, self._make)
        except FleetError as error:
            self.trouble = str(error)
        except Exception as error:  # the page must say so, not stop
            logger.exception("the fleet cannot be read")
            self.trouble = f"the fleet cannot be read: {type(error).__name__}"
        else:
            self._frames.append(frame)
            self._bodies.clear()
            self._read_at_s, self.trouble = started_at_s, None
        finally:
            self._reading = None

    def _make(self) -> Frame:
        began_s = time.thread_time()
        view = self._read()
        self._count += 1
        frame = frame_of(view, f"{self._epoch}-{self._count}")
        self._fresh_s = max(FRESH_S, (time.thread_time() - began_s) / MOST_SHARE)
        return frame
