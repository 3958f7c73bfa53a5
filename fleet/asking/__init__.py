"""What a task may ask: of its model beyond an answer (`wishes`), of its pool, which bots may take it (`seats`).

And what it says of its right answer (`grading`).
"""

from __future__ import annotations

from fleet.asking.grading import Classed, Graded
from fleet.asking.seats import Seat, Seated
from fleet.asking.wishes import (
    ASKED,
    OWN_FIELDS,
    OWN_HEADERS,
    Asks,
    Effort,
    ExtraBody,
    ExtraHeaders,
    Seed,
    Stop,
    ThinkingTokens,
    Tier,
    TopP,
    Verbosity,
    asks,
    check_tool_choice,
    not_allowed,
)

__all__ = [
    "ASKED",
    "OWN_FIELDS",
    "OWN_HEADERS",
    "Asks",
    "Classed",
    "Effort",
    "ExtraBody",
    "ExtraHeaders",
    "Graded",
    "Seat",
    "Seated",
    "Seed",
    "Stop",
    "ThinkingTokens",
    "Tier",
    "TopP",
    "Verbosity",
    "asks",
    "check_tool_choice",
    "not_allowed",
]
