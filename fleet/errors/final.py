"""The branch of errors that end a task for a reason of its own, and the one that is a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.faults import Blame, Fault, FleetError
from fleet.quoting import brief

if TYPE_CHECKING:
    pass


class GiveUp(FleetError):
    """No retry will help this task."""


class InvalidTask(GiveUp):
    """What was submitted is not a task. The message is at most `MAX_ERROR_BYTES` long, whatever was submitted."""

    blame = "prompt"

    def __init__(self, message: str) -> None:
        super().__init__(brief(message))


class NotDelegated(InvalidTask):
    """Its pool takes tasks only that are signed by a delegation, and this one's signature is missing or wrong."""


class OutOfScope(GiveUp):
    """No key of its provider serves such a task: by fleet.toml, or by the delegation that it came with."""

    blame = "prompt"


class BadRequest(GiveUp):
    """The provider refused the request itself.

    Args:
        message: What happened.
        blame: `prompt` when the provider said that it is what was asked: its content rules, its length.
    """

    blame: Blame = "unknown"

    def __init__(self, message: str, *, blame: Blame = "unknown") -> None:
        super().__init__(message)
        self.blame = blame


class ContextTooLong(BadRequest):
    """The prompt is more than the model takes: a tighter cut may fit.

    Args:
        message: What happened.
        window_tokens: The most that the model takes, input and output together; None when it was not said.
        true_input_tokens: What the prompt really had, as the model counts; None when it was not said.
    """

    def __init__(self, message: str, *, window_tokens: int | None = None, true_input_tokens: int | None = None) -> None:
        super().__init__(message, blame="prompt")
        self.window_tokens, self.true_input_tokens = window_tokens, true_input_tokens


class DocumentsTooLarge(GiveUp):
    """The documents that a task names fit no bot's window beside its prompt, and they are never cut."""

    blame = "prompt"


class DeadlineExceeded(GiveUp):
    """The task's time at work is over: in calls that were answered, and in the user's code."""


class TooExpensive(GiveUp):
    """What is left of the task's `max_cost_usd` does not pay for its next call; what it has cost so far is counted."""

    blame = "prompt"


class CapReached(GiveUp):
    """A run has had what its pool allows: turns, calls of tools in one turn, calls of tools in all.

    Turns and calls in all are what the task asks too much of, as its cost: they accuse no bot.

    Args:
        message: What happened.
        cap: The setting of the pool.
        fault: What it says of the bot; None: nothing.
    """

    def __init__(self, message: str, *, cap: str, fault: Fault | None = None) -> None:
        super().__init__(message)
        self.cap = cap
        self.fault = fault
        self.blame: Blame = "prompt" if fault is None else "bot"


class Expired(GiveUp):
    """The time by which its producer wanted it, `expires_at`, has passed; nothing was paid for it."""


class NoQuorum(GiveUp):
    """Too few members of an ask have answered for an outcome."""


class OutOfTries(GiveUp):
    """The provider failed on `max_attempts` of the task's calls, and did well on other tasks in between.

    Args:
        message: What happened.
        blame: Whom the last failure is charged to.
    """

    def __init__(self, message: str, *, blame: Blame = "provider") -> None:
        super().__init__(message)
        self.blame = blame


class Poison(GiveUp):
    """The task kills its process: it was alone in one that died."""

    blame = "prompt"


class BadAnswer(GiveUp):
    """The provider answered, but not with a usable answer.

    Args:
        message: What was expected and what came.
        fault: What is wrong with it; None if a bot function itself raised this.
    """

    blame: Blame = "bot"

    def __init__(self, message: str, *, fault: Fault | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class NoProgress(BadAnswer):
    """The model goes round in circles: the same tools, arguments and results over and over, also when it was warned."""


class ToolFailed(GiveUp):
    """A tool API failed on a request that may have taken effect: nobody knows, so it must not be repeated."""

    blame: Blame = "provider"


class BotFunctionFailed(GiveUp):
    """The user's own bot function raised, or returned something that isn't an answer."""

    blame: Blame = "bot"


class ValidatorFailed(GiveUp):
    """The user's own validator raised on this answer, or returned no verdict, and did better on those of others."""

    blame: Blame = "configuration"


class StoreError(FleetError):
    """Redis answered with an error that waiting will not cure."""
