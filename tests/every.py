"""`every`: what a test says instead of `all`, which is true of nothing too, so that the test could not fail."""

from __future__ import annotations

from collections.abc import Iterable


def every(facts: Iterable[object]) -> bool:
    """True when all of at least one fact are true.

    Raises:
        AssertionError: When there is none to look at.
    """
    known = list(facts)
    assert known, "expected something to look at, got nothing"
    return all(known)
