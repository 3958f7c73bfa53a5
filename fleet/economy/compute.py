"""What worker processes cost while they work and while they wait: slot-hours, and what they cost. Pure."""

from __future__ import annotations

from typing import NamedTuple

#: Seconds of an hour.
_HOUR_S = 3600.0


class Compute(NamedTuple):
    """What slots have done for a time.

    Args:
        busy_h: Hours in which slots had a task.
        idle_h: Hours in which they had none.
        usd: What all of it cost; None: an hour of a worker has no price (`usd_per_hour` in [worker]).
        idle_usd: What of that went to idle slots.
    """

    busy_h: float
    idle_h: float
    usd: float | None = None
    idle_usd: float | None = None

    @property
    def slot_h(self) -> float:
        """All slot-hours."""
        return self.busy_h + self.idle_h

    @property
    def idle_share(self) -> float:
        """Share of the slot-hours that were idle."""
        return self.idle_h / self.slot_h if self.slot_h else 0.0

    def line(self) -> str:
        """Return it in words: `24.0 slot-hours, 87% idle: $1.20, of which $1.05 idle`."""
        head = f"{self.slot_h:,.1f} slot-hours, {self.idle_share:.0%} idle"
        if self.usd is None or self.idle_usd is None:
            return head
        return f"{head}: ${self.usd:,.2f}, of which ${self.idle_usd:,.2f} idle"


def compute_of(slots_s: float, busy_s: float, *, slots_per_process: float, usd_per_hour: float | None) -> Compute:
    """Return what slots have done, and cost.

    Weakness: a process with fewer slots than usual counts as part of one, and costs as much less.

    Args:
        slots_s: Seconds of slots that were there, summed over all of them.
        busy_s: Those of them with a task.
        slots_per_process: Slots of a worker process, above 0.
        usd_per_hour: What a worker process costs an hour; None: nobody says.
    """
    busy = min(busy_s, slots_s)  # a task that has lent its slot counts as busy beside the one that has it
    busy_h, idle_h = busy / _HOUR_S, (slots_s - busy) / _HOUR_S
    if usd_per_hour is None:
        return Compute(busy_h, idle_h)
    each = usd_per_hour / slots_per_process
    return Compute(busy_h, idle_h, (busy_h + idle_h) * each, idle_h * each)
