"""The branch of errors that are no fault of the task: it waits, parked in Redis, and is tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fleet.faults import FleetError
from fleet.quoting import brief
from fleet.waits import MOST_TOLD, Cause, Ruling, Wait, parted

if TYPE_CHECKING:
    from fleet.rates import RateReadings


class Waits(FleetError):
    """No fault of the task: it waits, and is tried again. Raised elsewhere than at a task's work, it is what it says.

    Attributes:
        cause: Why, in a word.
        about: The `provider/model/key` or setting behind it, where that is not the call's own.
        ruling: What the fleet makes of it, when it is a failed call of which a breaker has heard.
        says_what_to_run: Its message is Fleet's own, and may end with what to run; never what a provider has said.
    """

    cause: Cause = "retry"
    about = ""
    says_what_to_run = False
    ruling: Ruling | None = None

    def wait(self, *, about: str = "", opens_at: float | None = None) -> Wait:
        """Return it as what is told of a gate.

        Args:
            about: The `provider/model/key`, pool or setting behind it.
            opens_at: Unix time in seconds of the next try; None: as the other side said, if it did.
        """
        at, about = self.passes_at if opens_at is None else opens_at, self.about or about
        text = brief(str(self), MOST_TOLD)
        told, advice = parted(text) if self.says_what_to_run else (text, "")
        return Wait(self.cause, at, about, told, is_everyones=self.parks != "never", advice=advice)


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


class TierBusy(RetryLater):
    """The service tier that was asked has no room now. Nobody is billed, and nothing is wrong with key or limit."""

    blame = "provider"


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


class NotStored(Waits):
    """A document that the task names is not stored, or no longer: it waits until somebody stores it again."""

    cause: Cause = "document"
    blame = "configuration"


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


class ConfigurationError(Waits):
    """fleet.toml, a FLEET_* variable or the machine must be changed."""

    cause: Cause = "configuration"
    blame = "configuration"


class KeyMissing(ConfigurationError):
    """A provider's key is not set where this process runs, or cannot be read: nobody was asked."""

    cause: Cause = "key"
    parks = "at once"
    says_what_to_run = True


class VaultAway(KeyMissing):
    """What holds a provider's key does not answer: its last value serves for a while, then calls wait."""

    says_what_to_run = False


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
