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
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def suggestion(word: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return what to say after an unknown word: the nearest known one if there is any near, else `otherwise`.

    Near is what `difflib` calls a close match: letters in common in about the same order, for 60% of both words.
    """
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f"did you mean `{near[0]}`?" if near else otherwise
