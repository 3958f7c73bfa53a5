"""What may be wrong with an answer, and the root of all errors, whose tree is `fleet/errors`.

Who finds a fault: `workers/judge.py`; whom it is charged to: second opinions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fleet.usage import Usage

#: Who a failure is charged to; `unknown`: the other side refused, and did not say what.
Blame = Literal["bot", "key", "provider", "prompt", "configuration", "fleet", "unknown"]
#: Whether other tasks of the same provider, model and key should wait behind a gate: never, once it lasts, at once.
Parks = Literal["never", "lasting", "at once"]


class Fault(StrEnum):
    """What is wrong with a bot's work in a way that the bot may be to blame for.

    Or the prompt: that is decided by what other bots make of the same task. What a provider, a key or Fleet itself did
    is no fault. New ones go to the end: their places are kept in Redis, beside each bot.
    """

    EMPTY = "empty"
    REFUSED = "refused"
    TOO_SHORT = "too_short"
    SCHEMA = "schema"
    REPEATED = "repeated"
    SPENT = "spent"  # all output was used up by thinking: no bot's fault, whoever is asked has so little room
    REJECTED = "rejected"  # by the user's validator
    CIRCLING = "circling"  # the same tools, arguments and results over and over, also when it was warned
    FAN_OUT = "fan_out"  # one answer called more tools than its pool allows
    CRASHED = "crashed"  # the bot function raised, or returned something else than text


#: What a bot does that has each of them, in words; `health.lua` has the same.
SAID: dict[Fault, str] = {
    Fault.EMPTY: "says nothing",
    Fault.REFUSED: "refuses",
    Fault.TOO_SHORT: "answers too shortly",
    Fault.SCHEMA: "keeps to no schema",
    Fault.REPEATED: "repeats itself",
    Fault.SPENT: "thinks until no room is left",
    Fault.REJECTED: "fails your validator",
    Fault.CIRCLING: "goes round in circles",
    Fault.FAN_OUT: "calls too many tools at once",
    Fault.CRASHED: "fails in your function",
}


class FleetError(Exception):
    """Root of all errors raised by Fleet.

    Attributes:
        blame: Who is to blame for a task that fails with it.
        parks: Whether others would meet the same.
        passes: True when it passes by itself.
        passes_at: Unix time in seconds at which it does, when the other side said so.
        holds: True when the whole fleet is held on the limit meanwhile.
        usage: What the failed call used nevertheless, when the provider said so.
    """

    blame: Blame = "fleet"
    parks: Parks = "never"
    passes = False
    passes_at: float | None = None
    holds = False
    usage: Usage | None = None
