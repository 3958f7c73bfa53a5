"""What an outcome says of the bot that it came from. Whose outcomes are judged together: `opinions.py`."""

from __future__ import annotations

from fleet.faults import Fault
from fleet.outcome import Outcome
from fleet.roster import Deed


def deed_of(bot: str, outcome: Outcome) -> Deed | None:
    """Return what an outcome says of its bot; None: nothing, for the provider, a key or the fleet is to blame.

    An answer of a fallback says nothing either: its model has other norms than the pool's.
    """
    if outcome.rung:
        return None
    fault = outcome.fault or (Fault.EMPTY if outcome.bad_answers else None)
    if fault is not None:
        return Deed(bot, fault, cost=_cost(outcome))
    if outcome.answer is None:
        return None
    return Deed(bot, None, len(outcome.answer), _clear_ms(outcome), _cost(outcome))


def lesson_of(bot: str, outcome: Outcome) -> Deed:
    """Return what an answer that stands, although it seemed too short, teaches of its class."""
    return Deed(bot, None, len(outcome.answer or ""), _clear_ms(outcome), only_teaches=True)


def _clear_ms(outcome: Outcome) -> int | None:
    """Return the time at work; None when the provider failed meanwhile."""
    return None if outcome.provider_errors else outcome.ran_ms


def _cost(outcome: Outcome) -> int:
    return outcome.usage.total_tokens if outcome.cost_usd_micros is None else outcome.cost_usd_micros
