"""Whether a task can pay for its next call: what that is taken to cost, against its `max_cost_usd`. Pure.

The longest answer is seldom the usual one: how much of the most that they may cost calls really do, the fleet learns.
"""

from __future__ import annotations

from fleet.errors import InvalidTask, TooExpensive
from fleet.money import dollars_of
from fleet.workers.meter import Meter


def afford(api: str, most_picos: int | None, share: float, meter: Meter) -> int:
    """Return what a call of a task with a `max_cost_usd` is taken to cost, in 10^-12 dollars.

    Weakness: a call may cost more than is expected.

    Args:
        api: `provider/model`.
        most_picos: The most that the call may cost; None: the model has no price.
        share: How much of that calls of its kind cost, 0 to 1.
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
    expected, allowed = round(most_picos * share), meter.most_picos or 0
    left = max(0, allowed - (meter.cost_usd_picos or 0) - meter.pending_picos)
    if expected > left:
        raise TooExpensive(
            f"max_cost_usd: expected a call of at most ${dollars_of(left):.6f}, which is left of "
            f"${dollars_of(allowed):.6f}, got one of about ${dollars_of(expected):.6f}; raise it, or ask for a "
            "shorter answer (max_output_tokens)"
        )
    return expected
