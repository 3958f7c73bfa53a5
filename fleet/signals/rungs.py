"""Which rung of a pool's fallback ladder serves it, since when, and which share each rung had of the last hour. Pure.

Written by `record.lua` behind the pool's sketches, for pools with a ladder only.
"""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen
from fleet.store.layouts import Layout, Place, Places

#: Rungs that are counted one by one (count); those below count as the last of them.
RUNGS_COUNTED = 10
#: Stretches of ten minutes that are kept, as of the sketches: the last 60 to 70 minutes.
SLOTS = 7
#: Seconds of one.
SLOT_S = 600
#: Seconds without an answer of the rung that serves after which one of a rung above it says that all is well again.
BACK_AFTER_S = 5
#: Seconds after the last answer from which its age is told: then nobody can say who serves now.
QUIET_S = 60.0


class RungsAt(Places):
    """Places of what is known of one ladder."""

    #: The rung that serves, since when, and when it last did (Redis time, s); 0: none has yet.
    SERVING = Place()
    SINCE = Place()
    LAST_AT = Place()
    #: By slot: its number (stretches since 1970); by slot and rung: tasks that were answered.
    SLOT = Place(SLOTS, first=0)
    SERVED = Place(SLOTS * RUNGS_COUNTED, first=0)


RUNGS = Layout.of(RungsAt)


class LadderView(Frozen):
    """A pool's fallback ladder: who serves. Times are Unix seconds."""

    apis: tuple[str, ...] = Field(description="provider/model of each rung, the pool's own first; `text` for a text.")
    rung: int | None = Field(None, description="Number of the rung that serves, 0 the pool's own; None: none has yet.")
    since: float | None = Field(None, description="Since when it does.")
    last_at: float | None = Field(None, description="Its last answer.")
    served: tuple[int, ...] = Field(description="Tasks of the last hour that each rung has answered.")

    @property
    def is_down(self) -> bool:
        """True when a fallback serves."""
        return bool(self.rung)


def ladder_view(apis: tuple[str, ...], raw: bytes, *, now_s: float) -> LadderView:
    """Return how a ladder stands.

    Args:
        apis: Its rungs.
        raw: What Redis has of it; empty: nothing yet.
        now_s: Unix time of Redis.
    """
    served = [0] * len(apis)
    if len(raw) < RUNGS.struct.size:
        return LadderView(apis=apis, served=tuple(served))
    told = RUNGS.unpack(raw[: RUNGS.struct.size])
    current = now_s // SLOT_S
    for slot in range(SLOTS):
        if current - SLOTS < told[RungsAt.SLOT + slot] <= current + 1:
            for rung in range(RUNGS_COUNTED):
                served[min(rung, len(served) - 1)] += int(told[RungsAt.SERVED + slot * RUNGS_COUNTED + rung])
    if not told[RungsAt.LAST_AT]:
        return LadderView(apis=apis, served=tuple(served))
    return LadderView(
        apis=apis,
        rung=min(int(told[RungsAt.SERVING]), len(apis) - 1),
        since=told[RungsAt.SINCE],
        last_at=told[RungsAt.LAST_AT],
        served=tuple(served),
    )


def name_of(rung: int) -> str:
    """Return what a rung is called, as a result's `served_by` does."""
    return f"fallback {rung}" if rung else "own"
