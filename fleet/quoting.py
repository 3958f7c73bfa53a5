"""How messages put values into words: foreign ones quoted and shortened, counts with their noun, a near miss named."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Characters of a foreign value that a message quotes at most.
QUOTED_CHARS = 80


def quote(value: object) -> str:
    """Return `repr(value)`, shortened to `QUOTED_CHARS`."""
    text = repr(value)
    return text if len(text) <= QUOTED_CHARS else f"{text[: QUOTED_CHARS - 1]}…"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun in the right form: `1 failure`, `2 failures`, `1,200 tasks`."""
    return f"{number:,} {noun_for(number, noun, plural)}"


def noun_for(number: int, noun: str, plural: str | None = None) -> str:
    """Return a noun in the form that its count takes."""
    return noun if number == 1 else plural or f"{noun}s"


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return what to say after an unknown word: which known one is near, else which there are.

    Near is what `difflib` calls a close match: 60% of the letters in common, in the same order.

    Args:
        word: What came.
        known: What was expected.
        prefix: How all of them begin: it makes none near.
    """
    words = sorted(name.removeprefix(prefix) for name in known)
    near = difflib.get_close_matches(word.removeprefix(prefix), words, n=1)
    if near:
        return f"the nearest known one is `{prefix}{near[0]}`"
    return f"expected one of {', '.join(f'{prefix}{name}' for name in words)}"
