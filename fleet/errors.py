"""Every error that Fleet raises, as one tree. A branch tells the caller what to do next.

FleetError
├── RetryLater                 the same call may work later (``retry_after_s`` when the other side said when)
│   ├── RateLimited            the provider answered 429
│   ├── ProviderUnavailable    the provider answered 5xx, cut the connection, or did not answer in time
│   ├── Relearnt               the model refuses what the call carried: the next one goes without it
│   ├── MachineExhausted       this machine has no more files, ports or memory for a connection
│   ├── BotsQuarantined        all bots of the pool are quarantined
│   ├── HeldUp                 another task's function stopped this one: it goes back to its queue
│   └── StoreUnavailable       Redis did not answer
├── KeyRejected                use another key: the provider answered 401 or 403
├── GiveUp                     no retry will help this task
│   ├── InvalidTask            what was submitted is not a task
│   ├── BadRequest             the provider refused the request itself (400, 404, 413, 422)
│   ├── DeadlineExceeded       the task's time is over
│   ├── Poison                 this task kills its process: it was alone in one that died
│   ├── BadAnswer              the provider answered, but not with a usable answer
│   └── BotFunctionFailed      the user's own bot function raised
├── StoreError                 Redis refused a command or a script: a bug, or a server that is too old
└── ConfigurationError         fix fleet.toml, a FLEET_* variable or the machine
    └── StoreRefused           Redis does not let us in
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.quoting import brief

if TYPE_CHECKING:
    from fleet.faults import Fault
    from fleet.rates import RateReadings


class FleetError(Exception):
    """Root of all errors raised by Fleet."""

    #: Who is to blame for a failed task: bot, key, provider, prompt or fleet.
    blame = "fleet"


class RetryLater(FleetError):
    """The same call may succeed later.

    Args:
        message: What happened.
        retry_after_s: Seconds the other side asked to wait, or None when it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(RetryLater):
    """The provider answered 429.

    Args:
        message: What happened.
        retry_after_s: Seconds the provider asked to wait, or None when it did not say.
        rates: What the answer's headers said of the key's rates.
    """

    blame = "provider"

    def __init__(self, message: str, *, retry_after_s: float | None = None, rates: RateReadings | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.rates = rates


class ProviderUnavailable(RetryLater):
    """The provider answered 5xx, cut the connection, or did not answer in time.

    Args:
        message: What happened.
        retry_after_s: Seconds the other side asked to wait, or None when it did not say.
        sent: False if the request was surely never sent (no connection), so it cost nothing.
    """

    blame = "provider"

    def __init__(self, message: str, *, retry_after_s: float | None = None, sent: bool = True) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.sent = sent


class Relearnt(RetryLater):
    """The model refuses something that the call carried, and later calls leave it out: repeat it at once."""

    blame = "provider"


class MachineExhausted(RetryLater):
    """This machine has no more files, ports or memory for a connection; nothing was sent."""


class BotsQuarantined(RetryLater):
    """All bots of the pool are quarantined: its tasks wait until one is released."""


class HeldUp(RetryLater):
    """Another task's function has stopped this one for too long; it goes back to its queue and starts anew."""


class StoreUnavailable(RetryLater):
    """Redis did not answer."""


class KeyRejected(FleetError):
    """The provider answered 401 or 403: another key may work."""

    blame = "key"


class GiveUp(FleetError):
    """No retry will help this task."""


class InvalidTask(GiveUp):
    """What was submitted is not a task. The message is at most `MAX_ERROR_BYTES` long, whatever was submitted."""

    blame = "prompt"

    def __init__(self, message: str) -> None:
        super().__init__(brief(message))


class BadRequest(GiveUp):
    """The provider refused the request itself."""

    blame = "prompt"


class DeadlineExceeded(GiveUp):
    """The task's time is over."""


class Poison(GiveUp):
    """The task kills its process: it was alone in one that died."""

    blame = "prompt"


class BadAnswer(GiveUp):
    """The provider answered, but not with a usable answer.

    Args:
        message: What was expected and what came.
        fault: What is wrong with it; None if a bot function itself raised this.
    """

    blame = "bot"

    def __init__(self, message: str, *, fault: Fault | None = None) -> None:
        super().__init__(message)
        self.fault = fault


class BotFunctionFailed(GiveUp):
    """The user's own bot function raised, or returned something that isn't an answer.

    Args:
        message: What was expected and what came.
        crashed: False when it was not even called.
    """

    blame = "bot"

    def __init__(self, message: str, *, crashed: bool = True) -> None:
        super().__init__(message)
        self.crashed = crashed
        self.blame = "bot" if crashed else "fleet"


class StoreError(FleetError):
    """Redis answered with an error that waiting will not cure."""


class ConfigurationError(FleetError):
    """fleet.toml, a FLEET_* variable or the machine must be changed."""


class StoreRefused(ConfigurationError):
    """Redis does not let us in: user, password, database number or rights are wrong."""
