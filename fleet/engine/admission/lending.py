"""Lending: slots of tasks that wait in them, or whose calls hang, beyond a share for each pool, are lent to others.

Which tasks those are is the data plane's to know; how many may be taken for them is the transport's
(`leases.py: Holdings.lent`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from fleet.engine.transport import leases
from fleet.engine.transport.waker import wake_loop
from fleet.store import keys

#: Seconds between two looks at most, and at least: each counts all that is held.
EVERY_S, PAUSE_S = 1.0, 0.05

logger = logging.getLogger("fleet.worker")


async def lend(
    waiting: Callable[[], Mapping[str, int]],
    moved: asyncio.Event,
    hanging: Callable[[], Mapping[str, tuple[int, frozenset[str], int]]],
    is_open: Callable[[str], bool],
) -> None:
    """Let other pools use the slots of tasks that wait in them, for ever.

    Args:
        waiting: Counts tasks by pool that have begun and wait. Never waits.
        moved: Set when that has changed, and no slot may be lent for one that goes on.
        hanging: Counts tasks by pool whose calls hang, with those of their limits that answer nothing; and those of
            these tasks that are of a silence that has ended. Never waits.
        is_open: True for a limit whose breaker is open, as far as is known here: it lets only a few try.
    """
    said = frozenset[str]()
    while True:
        moved.clear()
        hang = hanging()
        for pool in hang.keys() - said:
            logger.info("calls_hang pool=%s tasks=%d: slots beyond its share are lent", pool, hang[pool][0])
        said = frozenset(hang)
        if leases.lend(
            {keys.queue(pool): count for pool, count in waiting().items()},
            {keys.queue(pool): _hung(*found, is_open) for pool, found in hang.items()},
        ):
            wake_loop()  # it sleeps without a look while no slot is free
        with suppress(TimeoutError):
            async with asyncio.timeout(EVERY_S):
                await moved.wait()
        await asyncio.sleep(PAUSE_S)


def _hung(tasks: int, silent: frozenset[str], outlasted: int, is_open: Callable[[str], bool]) -> leases.Hung:
    has_probes = bool(silent) and all(map(is_open, silent))
    return leases.Hung(tasks, 0 if has_probes else tasks - outlasted, bool(silent))
