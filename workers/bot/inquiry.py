"""What one chat asks for until it has an answer, and how a try at it may end. What follows: `context.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from fleet.conversation import Message
from fleet.errors import BadAnswer, FleetError
from fleet.waits import Wait
from fleet.workers.calls import PLAIN, Completion, Wishes
from fleet.workers.judge import Judgement
from fleet.workers.streaming import Streaming

#: Returns a conversation, cut to so many estimated tokens.
Fitted = Callable[[int], Awaitable[tuple[Message, ...]]]
#: Share of what was asked for that a repeat with more room must have beyond it, to be worth its money.
LEAST_ROOM_SHARE = 0.5
#: Fewest tokens of thinking that vendors take, where they take a number.
LEAST_THINKING_TOKENS = 1024
#: Effort by which a model thinks less than by another.
LESS_EFFORT = {None: "low", "xhigh": "low", "high": "low", "medium": "low", "low": "minimal"}


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is asked for.

    Args:
        fitted: Returns the conversation, cut to so many estimated tokens.
        temperature: Sampling temperature; None: the model's own.
        max_output_tokens: Longest answer.
        wishes: What is asked beyond that.
        streaming: Hands on the answer while it is made; None: it is wanted whole.
        is_formed: True when it is made for one model: in the form in which that takes a schema.
        in_json: The answer is to be JSON.
    """

    fitted: Fitted
    temperature: float | None
    max_output_tokens: int
    wishes: Wishes = PLAIN
    streaming: Streaming | None = None
    is_formed: bool = False
    in_json: bool = False

    def with_less_thinking(self, more_tokens: int, *, may_ease: bool) -> Inquiry | None:
        """Return what leaves more to an answer: more room, else less effort; None: neither is to be had.

        Args:
            more_tokens: Output tokens that may be asked for beyond those before.
            may_ease: The model takes an effort.
        """
        wishes = self.wishes
        if more_tokens >= self.max_output_tokens * LEAST_ROOM_SHARE:
            return replace(self, max_output_tokens=self.max_output_tokens + more_tokens)
        if wishes.thinking_tokens is not None:
            fewer = max(LEAST_THINKING_TOKENS, wishes.thinking_tokens // 2)
            is_less = fewer < wishes.thinking_tokens
            return replace(self, wishes=replace(wishes, thinking_tokens=fewer)) if is_less else None
        if wishes.effort not in LESS_EFFORT or not may_ease:
            return None
        return replace(self, wishes=replace(wishes, effort=LESS_EFFORT[wishes.effort]))

    def otherwise_than(self, other: Inquiry) -> dict[str, Any]:
        """Return what this asks for otherwise than `other`: length, effort, thinking."""
        ours, theirs = (
            {
                "max_output_tokens": one.max_output_tokens,
                "effort": one.wishes.effort,
                "thinking_tokens": one.wishes.thinking_tokens,
            }
            for one in (self, other)
        )
        return {name: value for name, value in ours.items() if value != theirs[name]}

    @property
    def has_told(self) -> bool:
        """True once a part of the answer was handed on: it cannot be asked for again."""
        return self.streaming is not None and self.streaming.has_told


class FailedTry(Exception):
    """An answer that is of no use, and may be asked for again: it counts as an attempt."""

    def __init__(self, error: BadAnswer) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class MustWait(Exception):
    """The task leaves its slot, and goes on where it is when the time has come."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(wait.cause)
        self.wait = wait


class Told(Exception):
    """A try that failed after a part of the answer was handed on."""

    def __init__(self, error: FleetError) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Spent(Exception):
    """An answer for which thinking has left no room."""

    def __init__(self, completion: Completion, judgement: Judgement, sent_tokens: int) -> None:
        super().__init__()
        self.sent_tokens = sent_tokens
        self.completion = completion
        self.judgement = judgement
