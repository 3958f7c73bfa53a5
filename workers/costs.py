"""What calls cost against the most that they may, by model and task class: learnt from tasks with a `max_cost_usd`.

The longest answer is seldom the usual one. A process learns for itself; nothing is learnt from other tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.errors import InvalidTask, TooExpensive
from fleet.money import dollars_of
from fleet.workers.meter import Meter

#: Answered calls before anything is believed: until then a call is taken to cost the most that it may.
BELIEVED_FROM = 5
#: Weight of the newest call.
NEWEST = 0.2
#: Deviations above the mean that are taken for the cost of a call.
DEVIATIONS = 3.0


@dataclass(slots=True)
class _Share:
    calls: int = 0
    mean: float = 0.0
    deviation: float = 0.0


class CostShares:
    """How much of the most that they may cost calls really do. Weakness: a call may cost more than is expected."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], _Share] = {}

    def expected(self, api: str, kind: str, most_picos: int) -> int:
        """Return what a call is taken to cost, in 10^-12 dollars.

        Args:
            api: `provider/model`.
            kind: Task class.
            most_picos: The most that it may cost.
        """
        share = self._shares.get((api, kind))
        if share is None or share.calls < BELIEVED_FROM:
            return most_picos
        return round(most_picos * min(1.0, share.mean + DEVIATIONS * share.deviation))

    def afford(self, api: str, kind: str, most_picos: int | None, meter: Meter) -> int:
        """Return what a call of a task with a `max_cost_usd` is taken to cost.

        Args:
            api: `provider/model`.
            kind: Task class.
            most_picos: The most that it may cost; None: the model has no price.
            meter: What the task may cost, and has cost.

        Raises:
            TooExpensive: When that is more than is left.
            InvalidTask: When nobody can say what it costs.
        """
        if most_picos is None:
            raise InvalidTask(
                f"max_cost_usd: expected a model with a price, got {api}; "
                f'set [prices."{api}"], or submit the task without max_cost_usd'
            )
        expected, allowed = self.expected(api, kind, most_picos), meter.most_picos or 0
        left = max(0, allowed - (meter.cost_usd_picos or 0) - meter.pending_picos)
        if expected > left:
            raise TooExpensive(
                f"max_cost_usd: expected a call of at most ${dollars_of(left):.6f}, which is left of "
                f"${dollars_of(allowed):.6f}, got one of about ${dollars_of(expected):.6f}; raise it, or ask for a "
                "shorter answer (max_output_tokens)"
            )
        return expected

    def learn(self, api: str, kind: str, share: float) -> None:
        """Learn from an answered call, whose cost was this share of the most, 0 to 1."""
        known = self._shares.setdefault((api, kind), _Share(mean=share))
        known.calls += 1
        off = share - known.mean
        known.mean += NEWEST * off
        known.deviation += NEWEST * (abs(off) - known.deviation)
