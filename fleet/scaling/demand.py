"""What is known of pools and their limits when it is decided how many slots are wanted. Values only."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen

#: Seconds for which fewer slots must be wanted, at least.
LEAST_HOLD_S = 60.0


class LimitRoom(Frozen):
    """What one limit can feed just now."""

    limit: str = Field(description="`provider/model/key`.")
    per_s: float | None = Field(None, ge=0, description="Calls a second that it lets go; None: it has no rate.")
    in_flight: int | None = Field(None, ge=0, description="Calls at the same time; None: not limited.")


class PoolDemand(Frozen):
    """What one pool asks for just now."""

    pool: str
    minutes: tuple[float, ...] = Field(
        (), description="Tasks that came in each of the last whole minutes, oldest first."
    )
    hours: tuple[float, ...] = Field((), description="Tasks of each of the last whole hours, the oldest first.")
    ready: int = Field(0, ge=0, description="Tasks that wait for a slot, or for their turn under the limit.")
    due: int = Field(0, ge=0, description="Parked tasks whose time comes within `Bounds.lead_s`.")
    behind: int = Field(0, ge=0, description="Tasks that wait behind its gate.")
    later: int = Field(0, ge=0, description="Parked tasks whose time comes later than that: they want no slot yet.")
    running: int = Field(0, ge=0, description="Tasks in slots.")
    service_s: float | None = Field(None, ge=0, description="Mean seconds that a task holds its slot; None: unknown.")
    calls: float = Field(1.0, gt=0, description="Calls to its provider that a task takes, on average.")
    limits: tuple[str, ...] = Field((), description="Names of the limits that feed it together.")
    is_shut: bool = Field(False, description="Its gate lets nothing through.")
    opens_at: float | None = Field(None, description="Unix time at which a shut gate opens; None: nobody knows.")
    why: str = Field("", description="Why it is shut, in words.")


class Demand(Frozen):
    """Everything that a decision goes by."""

    at: float = Field(description="Unix time in seconds.")
    pools: tuple[PoolDemand, ...]
    limits: tuple[LimitRoom, ...] = ()
    slots: int = Field(0, ge=0, description="Slots that there are: the first decision takes none away at once.")


class Bounds(Frozen):
    """Bounds and temper of the decisions."""

    least: int = Field(1, ge=0, description="Slots that there are always.")
    most: int = Field(2000, ge=1, description="Slots that there are never more of.")
    slots_each: int = Field(1, ge=1, description="Slots of one worker.")
    buffer: float = Field(0.2, ge=0, description="Share of slots beyond the load, at least.")
    lead_s: float = Field(60.0, ge=0, description="Seconds until a wanted worker works.")
    drain_s: float = Field(10.0, gt=0, description="Seconds in which what waits is to be gone, once slots are there.")

    @property
    def hold_s(self) -> float:
        """Seconds for which fewer must be wanted until there are fewer: what is let go takes `lead_s` to come back."""
        return max(LEAST_HOLD_S, 2 * self.lead_s)
