"""How full a worker process is, as its pool of slots tells it to whoever reports that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


class Occupancy(Protocol):
    """The slots of one process, and what is known of its main thread. Asked from any thread."""

    @property
    def name(self) -> str:
        """The worker's name as Celery has it: w1@host."""
        ...

    @property
    def slots(self) -> int:
        """Slots of this process, now."""
        ...

    @property
    def most_slots(self) -> int | None:
        """Slots that it may come to have, where they follow what is wanted; None: their number is fixed."""
        ...

    @property
    def busy(self) -> int:
        """Slots at work, now."""
        ...

    @property
    def beat_at(self) -> float | None:
        """Unix time (s) of the main thread's last turn; None while it starts or stops, or has no turns."""
        ...

    @property
    def queues(self) -> Collection[str]:
        """Names of the queues that it takes from, now."""
        ...

    def forgo(self, queues: Collection[str]) -> None:
        """Take from these queues no more. Before it takes anything."""
        ...


@dataclass(frozen=True, slots=True)
class DirectCall:
    """The occupancy of a process that works for a task on its caller's time, or of a worker's child.

    Args:
        name: For people.
        process: Id by which its worker reports; empty: it reports itself, if at all.
    """

    name: str
    slots: int = 1
    most_slots: int | None = None
    busy: int = 1
    beat_at: float | None = None
    queues: tuple[str, ...] = ()
    process: str = ""

    def forgo(self, queues: Collection[str]) -> None:
        """Do nothing: it takes from none."""
