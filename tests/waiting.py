"""`wait_until`: how a test waits for a state, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    predicate: Callable[[], object], timeout_s: float = 10.0, what: str | Callable[[], str] = "the expected state"
) -> None:
    """Poll `predicate` until it is true.

    Raises:
        AssertionError: After `timeout_s`, naming `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain until {what() if callable(what) else what}"
        time.sleep(0.005)
