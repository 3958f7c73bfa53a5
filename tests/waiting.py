"""`wait_until`: how a test waits for a state, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds between two looks: twice what the last one took, for a page or a log is dear to read, within these bounds.
SHORTEST_S, LONGEST_S = 0.005, 0.05


def wait_until(
    predicate: Callable[[], object], timeout_s: float = 10.0, what: str | Callable[[], str] = "the expected state"
) -> None:
    """Poll `predicate` until it is true.

    Raises:
        AssertionError: After `timeout_s`, naming `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if predicate():
            return
        ended = time.monotonic()
        assert ended < deadline, f"waited {timeout_s:g} s in vain until {what() if callable(what) else what}"
        time.sleep(min(LONGEST_S, max(SHORTEST_S, 2 * (ended - began))))
