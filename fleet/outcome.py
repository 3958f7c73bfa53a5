"""What became of one task in the hands of one bot, or of all that were asked. Only `Before` crosses processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from fleet.conversation import ToolCall
from fleet.errors import FleetError
from fleet.faults import Fault
from fleet.frozen import Frozen
from fleet.money import micros_of
from fleet.usage import Usage
from fleet.waits import Wait

Status = Literal["ok", "degraded", "failed"]


class Entered(Frozen):
    """The rollout in which a task was counted as it began, so that it is not counted again when it comes back."""

    rollout: str = Field(description="Its id.")
    cohort: int = Field(description="In which it began.")
    tried_ms: int | None = Field(
        None, description="Time at work under what is tried, which came to nothing: it is not tried again."
    )


class Before(Frozen):
    """What a task has had before it was parked and taken anew; travels in its message."""

    tries: float = Field(0, description="Failed calls, as they count against `max_attempts`.")
    attempts: int = Field(0, description="Calls sent, answered or not.")
    failed: dict[str, int] = Field(default_factory=dict, description="Those of them that failed, by error type.")
    usage: Usage = Usage()
    cost_usd_picos: int | None = None
    limited_ms: int = 0
    ran_ms: int = 0
    parked: int = Field(0, description="Times that it was parked.")
    since: float = Field(0.0, description="Unix time in seconds of its last failed call, or of its beginning.")
    entered: Entered | None = Field(None, description="The rollout of its pool that has counted it, while one ran.")

    def parked_again(self) -> Before:
        """Return it with one time more that it was parked."""
        return self.model_copy(update={"parked": self.parked + 1})


#: A task that has had nothing yet.
NOTHING_BEFORE = Before()


@dataclass(frozen=True, slots=True)
class Parking:
    """What a task that must wait goes back to Redis with.

    Args:
        wait: Why, and until when.
        before: What it has had so far, this delivery included.
        sent: True when a call of it was sent in this delivery: it comes back behind the others of its priority, not
            before them.
        is_alone: True when only this task waits, and the rest of its pool goes on.
    """

    wait: Wait
    before: Before
    sent: bool = False
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task.

    Attributes:
        status: ok; degraded (an answer was cut off at its token limit); failed.
        answer: Text, unless failed.
        error: Why it failed.
        attempts: Calls sent to the provider, answered or not.
        cost_usd_picos: In 10^-12 dollars; None when nothing was used that has a price.
        provider_errors: Those of them that failed, retried or not: error type -> count.
        limited_ms: Time spent waiting for grants, summed over calls.
        ran_ms: The rest of the time.
        fault: What is wrong with the bot's work; None when nothing is, or when it is not the bot's. With TOO_SHORT the
            answer stands all the same.
        tool_calls: The tools that the answer wants called.
        more_answers: The other answers, when several were asked for.
        tier: Service tier that answered, if the provider says it.
        sent: What was sent otherwise than persona, pool and task say.
        bad_answers: Unusable answers of the bot on the way to this, those that were asked for again included.
        cut_tokens: The most that was cut from a prompt so that it fits.
        left_out: What was asked of the model and not sent, because it refuses it.
        raced: The lane on which a call went on while it was answered on another one; empty: none.
        reasoning: What the model thought before its last answer, as much of it as the pool keeps.
        rung: Number of the rung of its pool's fallback ladder that served last; 0: the pool's own.
        parking: Set when the task waits, parked in Redis, and is not at its end: it has no answer and no error then.
    """

    status: Status
    answer: str | None
    error: FleetError | None
    usage: Usage
    cost_usd_picos: int | None
    attempts: int
    provider_errors: Mapping[str, int]
    limited_ms: int
    ran_ms: int
    provider: str
    model: str
    simulated: bool
    fault: Fault | None = None
    bad_answers: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    more_answers: tuple[str, ...] = ()
    tier: str | None = None
    sent: Mapping[str, Any] = field(default_factory=dict)
    cut_tokens: int = 0
    left_out: tuple[str, ...] = ()
    raced: str = ""
    reasoning: str = ""
    parking: Parking | None = None
    rung: int = 0

    @property
    def cost_usd_micros(self) -> int | None:
        """The cost in micro-dollars, rounded."""
        return None if self.cost_usd_picos is None else micros_of(self.cost_usd_picos)
