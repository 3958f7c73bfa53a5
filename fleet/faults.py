"""What may be wrong with an answer. Who finds it: `workers/judge.py`; whom it is charged to: second opinions."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a bot's work in a way that the bot may be to blame for.

    Or the prompt: that is decided by what other bots make of the same task. What a provider, a key or Fleet itself did
    is no fault.
    """

    EMPTY = "empty"
    REFUSED = "refused"
    TOO_SHORT = "too_short"
    SCHEMA = "schema"
    REPEATED = "repeated"
    SPENT = "spent"  # all output was used up by thinking: no bot's fault, whoever is asked has so little room
    REJECTED = "rejected"  # by the user's validator
    CRASHED = "crashed"  # the bot function raised, or returned something else than text
