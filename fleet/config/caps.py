"""What one run of a task may take: turns, calls of tools, money, rounds of the same. Time is `deadline_s`.

The defaults are for runaways, not for honest agents: a pool that knows its agents sets its own (docs/agent-caps.md).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

#: Turns of a run at most: an agent that needs more than a thousand requests has lost its way.
MOST_TURNS = 1000
#: Calls of tools that one turn may ask for: OpenAI takes no conversation back with a turn of more than 128.
MOST_TOOL_CALLS_PER_TURN = 128
#: Calls of tools in a whole run: four in each of its turns.
MOST_TOOL_CALLS = 4000
#: Rounds of the same calls with the same results after which a run is warned.
ROUNDS = 3


def _more_than_one(rounds: int) -> int:
    if rounds == 1:
        raise ValueError("expected 0 (any number) or 2 and more rounds of the same, got 1: that is every call")
    return rounds


MaxTurns = Annotated[
    int, Field(ge=1, le=1_000_000, description="Times that a bot function may ask the model in one run.")
]
MaxToolCallsPerTurn = Annotated[
    int, Field(ge=1, le=1_000_000, description="Calls of tools that one answer of the model may ask for.")
]
MaxToolCalls = Annotated[
    int, Field(ge=1, le=1_000_000, description="Calls of tools that the model may ask for in one run.")
]
MaxRounds = Annotated[
    int,
    Field(
        ge=0,
        le=1000,
        description="Rounds of the same tool calls with the same results until the model is warned; one more ends the "
        "task. 0: any number.",
    ),
    AfterValidator(_more_than_one),
]
MaxCostUsd = Annotated[float, Field(gt=0)]
