"""Patience with a Redis that does not answer: what a task has cost so far must not be thrown away."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fleet.errors import FleetError, StoreRefused, StoreUnavailable

logger = logging.getLogger("fleet.worker")

#: Upper bound of the first pause between two tries, in seconds; it doubles up to the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
#: Seconds between two log lines about the same outage.
LOG_EVERY_S = 5.0
#: Seconds until what Redis has answered with an error is tried again, and between two log lines about it.
REFUSED_S, REFUSED_LOG_S = 5.0, 60.0
#: Seconds for which `at_last` waits for an answer.
LAST_WORD_S = 2.0

T = TypeVar("T")


async def patiently(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Repeat `attempt` while Redis does not answer, with full jitter. `attempt` must be safe to repeat.

    A Redis that does not let a running worker in any more (its password was changed) is waited for as well.
    It has no end of its own: a worker that is told to stop cancels it, and the message goes back to its queue.
    """
    tries = 0
    while True:
        try:
            return await attempt()
        except (StoreUnavailable, StoreRefused) as error:
            _log_outage(error)
            await asyncio.sleep(random.random() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries, 10)))
            tries += 1


async def surely(attempt: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
    """Repeat `attempt` until Redis has taken it, whatever it says meanwhile; `attempt` must be safe to repeat.

    Args:
        attempt: As of `patiently`.
        what: Is not done, for the log: "bill not written".
    """
    logged_s = -math.inf
    while True:
        try:
            return await patiently(attempt)
        except FleetError as error:
            if time.monotonic() - logged_s >= REFUSED_LOG_S:
                logged_s = time.monotonic()
                logger.error("%s, it is tried again: %s", what, error)
            await asyncio.sleep(REFUSED_S)


async def at_last(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Make the attempt once more that a cancellation has cut: what a task has earned is there, perhaps stored already.

    Raises:
        CancelledError: Redis does not answer soon.
    """
    try:
        async with asyncio.timeout(LAST_WORD_S):
            return await attempt()
    except (FleetError, TimeoutError) as error:
        raise asyncio.CancelledError from error


_logged_s = -math.inf


def _log_outage(error: FleetError) -> None:
    """Say that Redis is away: one line every few seconds, however many tasks wait for it."""
    global _logged_s
    if time.monotonic() - _logged_s >= LOG_EVERY_S:
        _logged_s = time.monotonic()
        logger.warning("waiting for Redis: %s", error)
