"""Every error that Fleet raises, as one tree. A branch tells the caller what to do next.

FleetError
├── Waits                      no fault of the task: it waits, parked in Redis, and is tried again (`wait`)
│   ├── NotSoon                its next call cannot leave soon: a limit, a day's budget, an open breaker
│   ├── RetryLater             the same call may work later (``retry_after_s`` when the other side said when)
│   │   ├── RateLimited            the provider answered 429
│   │   ├── TierBusy               the tier that was asked has no room now: another one may
│   │   ├── ProviderUnavailable    the provider answered 5xx, cut the connection, or did not answer in time
│   │   ├── Relearnt               the model refuses what the call carried: the next one goes without it
│   │   ├── MachineExhausted       this machine has no more files, ports or memory for a connection
│   │   ├── BotsQuarantined        all bots of the pool are quarantined
│   │   ├── HeldUp                 other tasks' functions stopped this one: it goes back to its queue
│   │   └── StoreUnavailable       Redis did not answer
│   ├── KeyRejected            use another key: the provider does not take this one, or not for this
│   │   └── KeySpent               its money, credit or quota is used up
│   ├── NotStored              a document that its task names is not stored: somebody stores it again
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
│   ├── DocumentsTooLarge      the documents that it names fit no bot's window, and are never cut
│   ├── DeadlineExceeded       its time at work is over
│   ├── TooExpensive           what it may cost, `max_cost_usd`, does not pay for the next call
│   ├── CapReached             its run has had all the turns or calls of tools that its pool allows
│   ├── Expired                its producer's `expires_at` has passed: nothing was paid for it
│   ├── NoQuorum               too few members of an ask have answered for an outcome
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

from fleet.errors.final import BadAnswer as BadAnswer
from fleet.errors.final import BadRequest as BadRequest
from fleet.errors.final import BotFunctionFailed as BotFunctionFailed
from fleet.errors.final import CapReached as CapReached
from fleet.errors.final import ContextTooLong as ContextTooLong
from fleet.errors.final import DeadlineExceeded as DeadlineExceeded
from fleet.errors.final import DocumentsTooLarge as DocumentsTooLarge
from fleet.errors.final import Expired as Expired
from fleet.errors.final import GiveUp as GiveUp
from fleet.errors.final import InvalidTask as InvalidTask
from fleet.errors.final import NoProgress as NoProgress
from fleet.errors.final import NoQuorum as NoQuorum
from fleet.errors.final import NotDelegated as NotDelegated
from fleet.errors.final import OutOfScope as OutOfScope
from fleet.errors.final import OutOfTries as OutOfTries
from fleet.errors.final import Poison as Poison
from fleet.errors.final import StoreError as StoreError
from fleet.errors.final import TooExpensive as TooExpensive
from fleet.errors.final import ToolFailed as ToolFailed
from fleet.errors.final import ValidatorFailed as ValidatorFailed
from fleet.errors.waiting import BotsQuarantined as BotsQuarantined
from fleet.errors.waiting import ConfigurationError as ConfigurationError
from fleet.errors.waiting import ExchangeFailed as ExchangeFailed
from fleet.errors.waiting import HeldUp as HeldUp
from fleet.errors.waiting import KeyMissing as KeyMissing
from fleet.errors.waiting import KeyRejected as KeyRejected
from fleet.errors.waiting import KeySpent as KeySpent
from fleet.errors.waiting import MachineExhausted as MachineExhausted
from fleet.errors.waiting import NotServed as NotServed
from fleet.errors.waiting import NotSoon as NotSoon
from fleet.errors.waiting import NotStored as NotStored
from fleet.errors.waiting import ProviderUnavailable as ProviderUnavailable
from fleet.errors.waiting import RateLimited as RateLimited
from fleet.errors.waiting import Relearnt as Relearnt
from fleet.errors.waiting import RetryLater as RetryLater
from fleet.errors.waiting import StoreRefused as StoreRefused
from fleet.errors.waiting import StoreUnavailable as StoreUnavailable
from fleet.errors.waiting import TierBusy as TierBusy
from fleet.errors.waiting import VaultAway as VaultAway
from fleet.errors.waiting import Waits as Waits
from fleet.faults import Blame as Blame
from fleet.faults import FleetError as FleetError
from fleet.faults import Parks as Parks

# Stored results, tracebacks and pickles name the one place to import them from.
for _error in list(vars().values()):
    if isinstance(_error, type) and _error.__module__ in ("fleet.errors.final", "fleet.errors.waiting"):
        _error.__module__ = __name__
