"""The figures of `python -m tests.keys`, and how each is measured in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Literal

#: `small`: what the default tests have time for.
Size = Literal["small", "large"]


@dataclass(frozen=True)
class Figure:
    """What was measured.

    Args:
        name: As the check prints it.
        said: The figure.
        holds: Whether it is as promised.
        notes: What it was made of, or what is wrong, a phrase each.
    """

    name: str
    said: str
    holds: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}{self.said}"


@dataclass(frozen=True)
class Row:
    """One line of the table: figures that one scenario gives.

    Args:
        name: By which it is chosen.
        measure: Plays the scenario.
    """

    name: str
    measure: Callable[[Size], list[Figure]]

    def apart(self, size: Size) -> list[Figure]:
        """Measure it in a process of its own: a Celery app stays with the first Redis that it has met."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(self.measure, size).result()


def zero(name: str, found: list[str]) -> Figure:
    """Return the figure of something that must not be there."""
    return Figure(f"{name}=", str(len(found)), not found, tuple(found))
