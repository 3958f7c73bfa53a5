"""Every error that Fleet raises, as one tree. A branch tells the caller what to do next.

FleetError
├── Waits                      no fault of the task: it waits, parked in Redis, and is tried again (`wait`)
│   ├── NotSoon                its next call cannot leave soon: a limit, a day's budget, an open breaker
│   ├── RetryLater             the same call may work later (``retry_after_s`` when the other side said when)
│   │   ├── RateLimited            the provider answered 429
│   │   ├── ProviderUnavailable    the provider answered 5xx, cut the connection, or did not answer in time
│   │   ├── Relearnt               the model refuses what the call carried: the next one goes without it
│   │   ├── MachineExhausted       this machine has no more files, ports or memory for a connection
│   │   ├── BotsQuarantined        all bots of the pool are quarantined
│   │   ├── HeldUp                 other tasks' functions stopped this one: it goes back to its queue
│   │   └── StoreUnavailable       Redis did not answer
│   ├── KeyRejected            use another key: the provider does not take this one, or not for this
│   │   └── KeySpent               its money, credit or quota is used up
│   └── ConfigurationError     fix fleet.toml, a FLEET_* variable or the machine
│       ├── KeyMissing             a provider's key is not set where this process runs, or cannot be read
│       │   └── VaultAway              what holds it does not answer: it may soon
│       │       └── ExchangeFailed         a token endpoint gave no token: the last one serves until it expires
│       ├── NotServed              there is no such model, or no such API at this address
│       └── StoreRefused           Redis does not let us in
├── GiveUp                     a reason of the task's own: it ends, and no retry will help
│   ├── InvalidTask            what was submitted is not a task
│   │   └── NotDelegated           its pool takes signed tasks only, and its signature is missing or wrong
│   ├── OutOfScope             no key of its provider serves such a task: its tenant, its tools
│   ├── BadRequest             the provider refused the request itself (400, 413, 422, its content rules)
│   │   └── ContextTooLong         the prompt is more than the model takes: a tighter cut may fit
│   ├── DeadlineExceeded       its time at work is over
│   ├── TooExpensive           what it may cost, `max_cost_usd`, does not pay for the next call
│   ├── CapReached             its run has had all the turns or calls of tools that its pool allows
│   ├── Expired                its producer's `expires_at` has passed: nothing was paid for it
│   ├── OutOfTries             the provider failed on `max_attempts` of its calls while other tasks did well
│   ├── Poison                 this task kills its process: it was alone in one that died
│   ├── BadAnswer              the provider answered, but not with a usable answer
│   │   └── NoProgress             the model calls the same tools with the same results over and over, also when warned
│   ├── ToolFailed             a tool API failed on a request that may have taken effect, and must not be repeated
│   ├── BotFunctionFailed      the user's own bot function raised
│   └── ValidatorFailed        the user's own validator raised on this answer, and not on those of others
└── StoreError                 Redis refused a command or a script: a bug, or a server that is too old

Each carries three facts for who decides what becomes of its task and of others: whether it `parks`, whether and when
it `passes`, whether it `holds` the fleet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fleet.faults import Blame as Blame
from fleet.faults import Fault
from fleet.faults import FleetError as FleetError
from fleet.faults import Parks as Parks
from fleet.quoting import brief
from fleet.waits import MOST_TOLD, Cause, Ruling, Wait

if TYPE_CHECKING:
    from fleet.rates import RateReadings


class Waits(FleetError):
    """No fault of the task: it waits, and is tried again. Raised elsewhere than at a task's work, it is what it says.

    Attributes:
        cause: Why, in a word.
        about: The `provider/model/key` or setting behind it, where that is not the call's own.
        ruling: What the fleet makes of it, when it is a failed call of which a breaker has heard.
    """

    cause: Cause = "retry"
    about = ""
    ruling: Ruling | None = None

    def wait(self, *, about: str = "", opens_at: float | None = None) -> Wait:
        """Return it as what is told of a gate.

        Args:
            about: The `provider/model/key`, pool or setting behind it.
            opens_at: Unix time in seconds of the next try; None: as the other side said, if it did.
        """
        at, about = self.passes_at if opens_at is None else opens_at, self.about or about
        return Wait(self.cause, at, about, brief(str(self), MOST_TOLD), is_everyones=self.parks != "never")


class NotSoon(Waits):
    """The next call of a task cannot leave soon; nothing was sent, nothing is reserved.

    Args:
        wait: Why, and until when.
    """

    passes = True

    def __init__(self, wait: Wait) -> None:
        super().__init__(str(wait))
        self.cause, self.passes_at, self._wait = wait.cause, wait.opens_at, wait

    def wait(self, *, about: str = "", opens_at: float | None = None) -> Wait:
        """Return what it was made of; the arguments fill what that leaves open."""
        found = self._wait
        at = opens_at if found.opens_at is None else found.opens_at
        return replace(found, about=found.about or about, opens_at=at)


class RetryLater(Waits):
    """The same call may succeed later.

    Args:
        message: What happened.
        retry_after_s: Seconds the other side asked to wait, or None when it did not say.
    """

    passes = True

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(RetryLater):
    """The provider answered 429.

    Args:
        message: What happened.
        retry_after_s: Seconds the provider asked to wait, or None when it did not say.
        rates: What the answer's headers said of the key's rates.
        parallel: True when too many calls were in flight: one ends and the next may go, whatever time was named.
        most_parallel: How many the provider takes then; 0: it did not say.
    """

    cause: Cause = "hold"
    blame = "provider"
    parks = "lasting"
    holds = True

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, rates: RateReadings | None = None,
        parallel: bool = False, most_parallel: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(message, retry_after_s=retry_after_s)
        self.rates, self.parallel, self.most_parallel = rates, parallel, most_parallel
        self.holds = not parallel


class ProviderUnavailable(RetryLater):
    """The provider answered 5xx, cut the connection, or did not answer in time.

    Args:
        message: What happened.
        retry_after_s: Seconds the other side asked to wait, or None when it did not say.
        sent: False if the request was surely never sent (no connection), so it cost nothing.
        passes: False when the provider said that the same call will fail again.
        timed_out: True when no answer came in time.
        refused: True when it answered with an error status: nobody is billed for that.
    """

    cause: Cause = "outage"
    blame = "provider"
    parks = "lasting"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, sent: bool = True, passes: bool = True,
        timed_out: bool = False, refused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message, retry_after_s=retry_after_s)
        self.refused, self.sent, self.passes, self.timed_out = refused, sent, passes, timed_out


class Relearnt(RetryLater):
    """The model refuses something that the call carried, and later calls leave it out: repeat it at once."""

    blame = "provider"


class MachineExhausted(RetryLater):
    """This machine has no more files, ports or memory for a connection; nothing was sent."""

    cause: Cause = "machine"


class BotsQuarantined(RetryLater):
    """All bots of the pool are quarantined: its tasks wait until one is released."""

    cause: Cause = "bots"
    parks = "at once"


class HeldUp(RetryLater):
    """Other tasks' functions have stopped this one for too long; it goes back to its queue and starts anew."""

    cause: Cause = "function"


class StoreUnavailable(RetryLater):
    """Redis did not answer."""

    cause: Cause = "redis"


class KeyRejected(Waits):
    """The provider does not take this key, or not for this: another key may work."""

    cause: Cause = "key"
    blame = "key"
    parks = "at once"


class KeySpent(KeyRejected):
    """The key's money, credit or quota is used up.

    Args:
        message: What happened.
        passes_at: Unix time in seconds at which it is filled again; None: not by itself, or nobody said when.
    """

    cause: Cause = "credit"

    def __init__(self, message: str, *, passes_at: float | None = None) -> None:
        super().__init__(message)
        self.passes, self.passes_at = passes_at is not None, passes_at


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


class ConfigurationError(Waits):
    """fleet.toml, a FLEET_* variable or the machine must be changed."""

    cause: Cause = "configuration"
    blame = "configuration"


class KeyMissing(ConfigurationError):
    """A provider's key is not set where this process runs, or cannot be read: nobody was asked."""

    cause: Cause = "key"
    parks = "at once"


class VaultAway(KeyMissing):
    """What holds a provider's key does not answer: its last value serves for a while, then calls wait."""


class ExchangeFailed(VaultAway):
    """No token: `code` as RFC 6749 has it; `is_ours`: only a change helps; `after_s`: for so long it asks for quiet."""

    def __init__(self, message: str, *, code: str = "", is_ours: bool = False, after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.is_ours, self.after_s = code, is_ours, after_s


class NotServed(ConfigurationError):
    """There is no such model for this key, or no such API at the address: `model` or `base_url` must be changed."""

    parks = "at once"


class StoreRefused(ConfigurationError):
    """Redis does not let us in: user, password, database number or rights are wrong."""
