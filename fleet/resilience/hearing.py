"""What is read of a call that failed, and who gets the reply of a script that nobody waits for. No Redis here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fleet.errors import StoreUnavailable, Waits
from fleet.resilience.rules import CALL_SORTS, LATE_SORT, OTHER_SORT
from fleet.store.clock import CLOCK

logger = logging.getLogger("fleet.worker")


class Hearer:
    """Gets the reply of a script that nobody waits for; a lost one teaches nothing."""

    def __init__(self, hear: Callable[[list[Any]], None]) -> None:
        self._hear = hear

    def done(self) -> bool:
        return False

    def set_result(self, reply: Any) -> None:
        self._hear(reply)

    def set_exception(self, error: BaseException) -> None:
        if not isinstance(error, StoreUnavailable):
            logger.warning("breaker_not_told error=%s", error)


def sort_of(error: Waits) -> int:
    """Return what became of a call, as a place in `CALL_SORTS`."""
    if getattr(error, "timed_out", False):
        return LATE_SORT
    return CALL_SORTS.index(error.cause) if error.cause in CALL_SORTS else OTHER_SORT


def passes_at(error: Waits) -> float:
    """Return the Unix time (s) before which the other side does not want to be asked; 0: it did not say."""
    after_s = getattr(error, "retry_after_s", None)
    return max(error.passes_at or 0.0, CLOCK.now_s() + after_s if after_s else 0.0)
