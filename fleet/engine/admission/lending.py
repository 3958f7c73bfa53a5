"""Lending: slots of tasks that have begun and wait in them, beyond a share for each pool, are lent to other pools.

Which tasks wait is the agent's to know; how many may be taken for them is the transport's (`leases.py: Holdings.lent`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from fleet.engine.transport import leases
from fleet.engine.transport.channel import wake_loop
from fleet.store import keys

#: Seconds between two looks at most, and at least: each counts all that is held.
EVERY_S, PAUSE_S = 1.0, 0.05


async def lend(waiting: Callable[[], Mapping[str, int]], moved: asyncio.Event) -> None:
    """Let other pools use the slots of tasks that wait in them, for ever.

    Args:
        waiting: Counts such tasks by pool. Never waits.
        moved: Set when that has changed, and no slot may be lent for one that goes on.
    """
    while True:
        moved.clear()
        if leases.lend({keys.queue(pool): count for pool, count in waiting().items()}):
            wake_loop()  # it sleeps without a look while no slot is free
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await moved.wait()
        await asyncio.sleep(PAUSE_S)
