"""Seats of an ask: its members share the bots of a pool out among themselves, so that no bot answers it twice.

Each seat has bots of its own, by a permutation of the pool that the ask's id draws. So a member that is tried again, by
another bot or after a worker's death, still meets nobody of another seat, and nothing about it is kept anywhere.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass

from pydantic import Field

from fleet.frozen import Frozen

#: How a seat is written: the ask's id, the seat, and how many there are in its pool.
SEAT = r"^[0-9a-f]{12}:[1-9][0-9]{0,3}/[1-9][0-9]{0,3}$"


class Seated(Frozen):
    """The field of a task that is a member of an ask."""

    seat: str | None = Field(None, pattern=SEAT, description="Set by `ask_fleet`: which bots of its pool may take it.")


@dataclass(frozen=True, slots=True)
class Seat:
    """One seat.

    Args:
        ask: Id of the ask, 12 hexadecimal digits.
        number: From 1.
        seats: How many its pool's bots are shared out among.
    """

    ask: str
    number: int
    seats: int

    @classmethod
    def read(cls, text: str) -> Seat:
        """Return the seat that a task's field names."""
        ask, _, place = text.partition(":")
        number, _, seats = place.partition("/")
        return cls(ask, int(number), int(seats))

    def __str__(self) -> str:
        return f"{self.ask}:{self.number}/{self.seats}"

    def bots(self, bots: int, *, most: int, draw: random.Random) -> list[int]:
        """Return the numbers, from 1, of at most so many bots of this seat, drawn at random; O(most).

        Args:
            bots: How many the pool has. With fewer than seats some seats have none.
            most: How many are wanted.
            draw: Fresh chance.
        """
        if self.number > self.seats or self.number > bots:
            return []
        own = (bots - self.number) // self.seats + 1
        places = draw.sample(range(own), min(own, most))
        step, start = self._order(bots)
        return [(start + step * (self.number - 1 + self.seats * place)) % bots + 1 for place in places]

    def _order(self, bots: int) -> tuple[int, int]:
        """Return step and start of the walk through all bots, by the ask's id: each is met once."""
        digest = int.from_bytes(hashlib.blake2b(self.ask.encode(), digest_size=16).digest())
        start, step = digest % bots, 1 + (digest >> 64) % bots
        while math.gcd(step, bots) != 1:
            step += 1
        return step, start
