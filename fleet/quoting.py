"""How error messages and logs quote a foreign value: shortened, so that they stay readable."""

from __future__ import annotations

#: Characters of a foreign value that a message quotes at most.
QUOTED_CHARS = 80


def quote(value: object) -> str:
    """Return `repr(value)`, shortened to `QUOTED_CHARS`."""
    text = repr(value)
    return text if len(text) <= QUOTED_CHARS else f"{text[: QUOTED_CHARS - 1]}…"
