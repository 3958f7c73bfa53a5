"""Chance that can be repeated: what happens to a call follows from the seed, the key, the body and how often it came.

So the order in which calls arrive changes nothing, and a repeated call gets a fresh draw.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from struct import Struct
from typing import Literal, NamedTuple

#: Different calls whose number of repetitions is remembered, twice over (about 20 MB); a forgotten one starts at 0.
REMEMBERED_CALLS = 100_000
#: Spread of the log-normal latency: p95 is twice the median.
LATENCY_SIGMA = 0.42

_NORMAL = NormalDist()
_UNIT = 2.0**-64
_FOUR_NUMBERS = Struct(">4Q")

Fate = Literal["served", "error", "hang", "cut"]


class Draw(NamedTuple):
    """The chance of one call: four independent 64-bit numbers and the identity they came from.

    A tuple and not a dataclass: one is made per call, and a frozen dataclass takes three times as long to make.
    """

    call: bytes
    nth: int
    fate: int
    latency: int
    length: int
    words: int

    @property
    def id(self) -> str:
        """Hexadecimal identity of this call and repetition, for the answer's `id`."""
        return f"{self.call.hex()}{self.nth:08x}"


class Chance:
    """The seeded source of all draws."""

    def __init__(self, seed: int) -> None:
        self._seed = blake2b(str(seed).encode(), digest_size=32).digest()
        self._counts: dict[bytes, int] = {}
        self._older_counts: dict[bytes, int] = {}

    def draw(self, key: str, body: bytes) -> Draw:
        """Return what the next repetition of this call gets. Looking does not count: see `use`."""
        hashed = blake2b(key.encode("utf-8", "replace"), digest_size=12, key=self._seed)
        hashed.update(b"\0")
        hashed.update(body)
        call = hashed.digest()
        nth = self._counts.get(call)
        if nth is None:
            nth = self._older_counts.get(call, 0)
        return Draw(call, nth, *self._numbers(call, nth))

    def _numbers(self, call: bytes, nth: int) -> tuple[int, int, int, int]:
        digest = blake2b(call + nth.to_bytes(8, "big"), digest_size=32, key=self._seed).digest()
        fate, latency, length, words = _FOUR_NUMBERS.unpack(digest)
        return fate, latency, length, words

    def seeded(self, draw: Draw, text: str) -> Draw:
        """Return a draw whose words follow from a text alone: the same text gets the same answer again."""
        call = blake2b(text.encode("utf-8", "replace"), digest_size=12, key=self._seed).digest()
        _, latency, length, words = self._numbers(call, 0)
        return draw._replace(latency=latency, length=length, words=words)

    def use(self, draw: Draw) -> None:
        """Count a draw as used: only admitted calls do, or a refusal would change the answers."""
        if len(self._counts) >= REMEMBERED_CALLS:
            self._older_counts, self._counts = self._counts, {}
        self._counts[draw.call] = draw.nth + 1


def fate_of(draw: Draw, *, error_rate: float, hang_rate: float, cut_rate: float) -> Fate:
    """Return what happens to an admitted call; the rates are shares that sum to 1 at most."""
    share = draw.fate * _UNIT
    if share < error_rate:
        return "error"
    if share < error_rate + hang_rate:
        return "hang"
    return "cut" if share < error_rate + hang_rate + cut_rate else "served"


def happens(number: int, share: float) -> bool:
    """True for a share of all 64-bit numbers."""
    return number * _UNIT < share


def latency_s(draw: Draw, *, median_ms: float) -> float:
    """Return a log-normal latency in seconds."""
    share = min(max(draw.latency * _UNIT, 1e-9), 1 - 1e-9)
    return median_ms / 1000 * math.exp(LATENCY_SIGMA * _NORMAL.inv_cdf(share))
