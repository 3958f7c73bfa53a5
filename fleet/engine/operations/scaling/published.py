"""The decision as it was published, for those who only look. One command of Redis."""

from __future__ import annotations

import redis

from fleet.scaling.wanted import WantedSlots
from fleet.signals.ahead.scaling_view import ScalingView
from fleet.store import schedule_keys


def read_wanted(state: redis.Redis) -> WantedSlots | None:
    """Return the last decision that was published; None: there is none, or another release wrote it."""
    raw = state.get(schedule_keys.wanted())
    try:
        return None if raw is None else WantedSlots.model_validate_json(raw)
    except ValueError:
        return None


def scaling_view(state: redis.Redis, now_s: float) -> ScalingView | None:
    """Return the last decision as all who watch the fleet see it; None: nobody decides any more."""
    wanted = read_wanted(state)
    if wanted is None or not wanted.is_fresh(now_s):
        return None
    decision = wanted.decision
    return ScalingView(
        at=decision.at, slots=decision.slots, workers=decision.workers, there=wanted.slots, reason=decision.reason,
        by_pool={one.pool: round(one.slots, 2) for one in decision.pools},
    )  # fmt: skip
