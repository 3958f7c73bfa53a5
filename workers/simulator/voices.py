"""Voices: what a provider can know of a bot, its system prompt and its temperature. And how modes about them are read.

Whoever lets bots misbehave on demand (`collapse.py`, `bad_bots.py`) picks them among the voices heard so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

#: System prompt and temperature.
Voice = tuple[str, float | None]
#: Voices that are remembered: 10,000 bots, and as many again with a remedy.
MAX_VOICES = 20_000


class Voices:
    """All voices heard so far, in the order of their first call."""

    def __init__(self) -> None:
        self._heard: dict[Voice, int] = {}

    def __len__(self) -> int:
        return len(self._heard)

    def __iter__(self) -> Iterator[Voice]:
        return iter(self._heard)

    def hear(self, voice: Voice) -> int:
        """Remember a voice, and return its place, from 0; those that are too many to remember share the last one."""
        place = self._heard.get(voice)
        if place is None:
            place = len(self._heard)
            if place < MAX_VOICES:
                self._heard[voice] = place
        return place


def spelled(voice: Voice) -> str:
    """Return a voice as one text."""
    system, temperature = voice
    return f"{temperature} {system}"


def rank(identity: str, seed: int) -> bytes:
    """Return by what identities are sorted to draw some of them: it depends on nothing but the seed."""
    return blake2b(identity.encode("utf-8", "replace"), digest_size=8, key=str(seed).encode()).digest()


def read_query(query: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Return the values of a URL's query.

    Args:
        query: Name -> text.
        readers: All names that are known -> what makes a value of a text, or raises `ValueError`.

    Raises:
        ValueError: Expected and got.
    """
    if unknown := sorted(set(query) - set(readers)):
        raise ValueError(f"expected {', '.join(readers)}, got {len(unknown)} unknown names")
    values = {}
    for name, text in query.items():
        try:
            values[name] = readers[name](text)
        except ValueError:
            raise ValueError(f"{name}: expected a number, got something else") from None
    return values
