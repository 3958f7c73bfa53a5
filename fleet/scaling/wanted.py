"""The decision as it is published for workers, the page and KEDA, and what one worker makes of it. Values only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from fleet.frozen import Lasting
from fleet.scaling.decision import Decision

#: Seconds after which nobody goes by a published decision any more: several times the 5 s between two.
STALE_S = 60.0


class WantedSlots(Lasting):
    """What is wanted, beside what there is."""

    decision: Decision
    crew: int = Field(ge=0, description="Workers that lived then.")
    slots: int = Field(ge=0, description="Slots that they had.")
    each: int = Field(ge=0, description="Slots that each worker is to have whose slots follow this.")
    running: int = Field(0, ge=0, description="Tasks in slots.")
    waiting: int = Field(0, ge=0, description="Tasks that wait and could go.")
    parked: int = Field(0, ge=0, description="Tasks that wait behind a gate, or for their time.")
    by: str = Field("", description="Who decided: a host and its process.")

    def is_fresh(self, now_s: float) -> bool:
        """True while it may be gone by: not for long after it, nor where a clock has gone back long before it."""
        return abs(now_s - self.decision.at) <= STALE_S


def share(wanted: int, fixed: int, most: Sequence[int]) -> int:
    """Return the slots of each worker that scales, rounded up, so that all workers together have what is wanted.

    Args:
        wanted: Slots, by all workers.
        fixed: Slots of workers whose number does not follow what is wanted.
        most: Slots that each of the others may have at most; it has no more, so the rest have its share.
    """
    rest = max(0, wanted - fixed)
    for others, bound in zip(range(len(most), 0, -1), sorted(most), strict=True):
        each = math.ceil(rest / others)
        if each <= bound:
            return each
        rest -= bound
    return max(most, default=rest)


def alone(busy: int) -> int:
    """Return the slots that a worker wants which hears no decision: for its own tasks, and a few to see more by."""
    return math.ceil(busy * 1.2 + math.sqrt(busy))
