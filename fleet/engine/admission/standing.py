"""When the next try of what waits is due, and waiting for it in a slot, for who cannot leave it."""

from __future__ import annotations

import asyncio
import random

from fleet.store.clock import CLOCK
from fleet.waits import Wait

#: Seconds that a task waits when nobody knows for how long.
UNKNOWN_S = 60.0
#: The same for what opens when somebody raises a budget, which lets it go at once: this is for who did it elsewhere.
RAISED_S = 900.0
#: Seconds that it waits at least: what is due at once, and fails at once, would go round without an end.
SOONEST_S = 0.25
#: Longest step in seconds of a task that waits in its slot: then it looks whether it still has to.
STEP_S = 60.0


async def stand(wait: Wait) -> None:
    """Wait in a slot, a step at most: for a task that cannot leave it."""
    left_s = min(STEP_S, due_at(wait) - CLOCK.now_s())
    await asyncio.sleep(left_s + random.random() * min(1.0, left_s / 10))


def due_at(wait: Wait) -> float:
    """Return when the next try is due, as Unix time: what is said, after a while where nobody knows, never at once."""
    now_s = CLOCK.now_s()
    unknown_s = RAISED_S * random.uniform(0.8, 1.2) if wait.cause == "budget" else UNKNOWN_S
    return max(now_s + SOONEST_S, now_s + unknown_s if wait.opens_at is None else wait.opens_at)
