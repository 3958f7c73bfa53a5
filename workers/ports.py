"""What the data plane needs from outside, as Protocols. `fleet/engine/process/assembly.py` fills them in.

`workers/` imports only the words of `fleet` (errors, models, config): no Redis, no Celery.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol, runtime_checkable

from fleet.batches import BatchApi
from fleet.entries import Entry
from fleet.errors import Waits
from fleet.grants import ANYBODY, Caller, Grant
from fleet.lessons import SLOW, Measure
from fleet.rates import RateReadings
from fleet.waits import Ruling, Wait
from fleet.workers.calls import Call, Completion, Delta


class Limiter(Protocol):
    """The fleet-wide rate limiter."""

    async def acquire(
        self,
        limit: str | Sequence[str],
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: float = 0,
        patience_s: float | None = None,
        note: str = "",
    ) -> Grant:
        """Wait until one call may be sent under `limit`.

        Args:
            limit: `provider/model/key`; of several, of one model, the one under which it can go soonest.
            tokens: Input and output together, the most that the call may use.
            timeout_s: Longest wait.
            caller: For whom: decides the order.
            input_tokens: Those of `tokens` that are input.
            cost_usd_micros: The most that the call may cost, with parts of a micro-dollar.
            patience_s: A turn further away is refused, as soon as that is known; None: `timeout_s` alone counts.
            note: What the bill enters if nobody settles the call.

        Raises:
            NotSoon: When the turn is further away than `patience_s`, with reason and time; nothing is reserved then.
            DeadlineExceeded: The same without a patience, when it comes later than `timeout_s`.
            StoreUnavailable: When Redis does not answer: nothing may be sent.
        """
        ...

    def settle(
        self,
        grant: Grant,
        *,
        used_tokens: int,
        used_output_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_usd_micros: float = 0,
    ) -> None:
        """Give back what was reserved but not used, or charge the excess. Never waits, never raises.

        Args:
            grant: Under which the call went.
            used_tokens: Input and output together.
            used_output_tokens: Those of them that are output.
            cached_tokens: Of the input: read from the provider's cache; None: not known.
            cost_usd_micros: What it cost.
        """
        ...

    def let_go(self, grant: Grant) -> None:
        """Count a call no more among those at the same time: it hangs while later ones are answered. Never waits."""

    def standing(self, limit: str) -> Wait | None:
        """Return why calls under `limit` do not go soon, as this process has just heard; None: ask. Never waits."""
        ...

    def penalise(self, limit: str, *, retry_after_s: float, told: str = "") -> None:
        """Hold the whole fleet on `limit`: the provider answered 429. Never waits, never raises.

        Args:
            limit: `provider/model/key`.
            retry_after_s: For how long.
            told: What the provider said; empty: a 429.
        """
        ...

    def narrow(self, limit: str, *, most: int = 0) -> None:
        """Let no more calls go at once than the provider takes: it refused one too many. Never waits, never raises.

        Args:
            limit: `provider/model/key`.
            most: As the provider says; 0: it does not say.
        """
        ...

    def listens(self, grant: Grant) -> bool:
        """Return whether the next reading of this limit will be used: reading headers costs more than settling."""
        ...

    def observe(self, grant: Grant, rates: RateReadings | None) -> None:
        """Correct the limit by what the answer's headers said (None: nothing). Never waits, never raises."""
        ...


class Breakers(Protocol):
    """Whether calls to a `provider/model/key` are worth sending: one breaker each, shared by the fleet.

    In health none costs a round trip. A failure of the task's own (a refused prompt) never comes here: its call
    was answered, so `did_well`.
    """

    def standing(self, limit: str) -> Wait | None:
        """Return why calls would wait, as this process last heard; None: they need not. Never waits."""
        ...

    def is_ramping(self, limit: str) -> bool:
        """True while the road fills step by step after an outage, and calls may have to wait. Never waits."""

    async def admit(self, limit: str) -> bool:
        """Let a call through to the limiter: True when this one is the fleet's probe of an open breaker.

        Right after an outage it waits up to some seconds for its turn: the road fills step by step.

        Raises:
            NotSoon: The breaker is open, and it is not this one's turn to try.
            StoreUnavailable: The breaker is not closed, and Redis does not answer.
        """
        ...

    def is_answering(self, limit: str, *, within_s: float) -> bool:
        """Return whether a call was answered in the last seconds, as far as the fleet has told. Never waits.

        Args:
            limit: `provider/model/key`.
            within_s: How many.
        """

    async def turn_in_silence(self, limit: str, *, left_s: float) -> float | None:
        """Ask whether a call may try an API from which this process has heard nothing for longer than usual.

        Args:
            limit: `provider/model/key`.
            left_s: Seconds since its last call left, which was a try.

        Returns:
            0: it may; else the seconds until the fleet tries again. None: others are answered.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """

    def spare(self, limit: str) -> None:
        """Give a probe back that was not sent after all. Never waits, never raises."""

    def did_well(
        self, limit: str, *, who: str, seconds: float, output_tokens: int, place: int = 0, is_probe: bool = False
    ) -> None:
        """Note a call that was answered, if only by a refusal of this very request. Never waits, never raises.

        Args:
            limit: `provider/model/key`.
            who: The task.
            seconds: From sending it to its last byte.
            output_tokens: What it said; 0: not known.
            place: Of its grant among all of the limit's (`grant.mark.requests`); 0: not known.
            is_probe: As `admit` said.
        """
        ...

    async def failed(
        self, limit: str, error: Waits, *, who: str, since_s: float, lasted_s: float = 0.0, place: int = 0,
        is_probe: bool = False,
    ) -> Ruling:  # fmt: skip
        """Note a failed call, and hear what is made of it. Also while Redis does not answer.

        Args:
            limit: `provider/model/key`.
            error: Why it failed.
            who: The task: what only one of them meets again and again opens nothing.
            since_s, lasted_s: Seconds since its last failed call or its begin, and since it was sent (0: not known).
            place, is_probe: As for `did_well`.
        """
        ...


class Bill(Protocol):
    """Where each call that was granted is written down once, with what it has cost. Nothing here waits or raises."""

    def opened(self, asked: Entry) -> str:
        """Return the note that the limiter keeps with the grant of a call until it is entered; `asked` has no id."""

    def enter(self, entry: Entry) -> None:
        """Enter a call that is over."""

    def void(self, limit: str, ticket: str) -> None:
        """Forget a call that had its grant and was not sent after all."""


class CostShares(Protocol):
    """How much of the most that they may cost calls really do, as the fleet has learnt."""

    async def share(self, limit: str, kind: str, *, newest: bool = False) -> float:
        """Return what a call is taken to cost, as a share of the most; 1 before anything is learnt.

        Args:
            limit: `provider/model/key`.
            kind: Task class.
            newest: A call has no money by what this process has read before: the last answers may have taught more.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """


class Lessons(Protocol):
    """What models refuse, as far as the fleet knows: a local copy that is shared behind the caller's back.

    Nothing here waits or raises. A model is named `provider/model`, what it refuses as `fleet.lessons.Lesson` says.
    """

    def refused(self, api: str) -> frozenset[str]:
        """Return what a model refuses."""
        ...

    def learn(self, api: str, what: str) -> None:
        """Note that a model refuses something."""
        ...

    def age_s(self, api: str, what: str) -> float | None:
        """Return for how many seconds that has been known; None when it isn't."""
        ...

    def may_probe(self, api: str, what: str) -> bool:
        """True for the one call of the fleet that is to carry once more what was refused a day ago."""
        ...

    def forget(self, api: str, what: str) -> None:
        """A model takes it after all."""
        ...


class Measures(Protocol):
    """How models count, as far as the fleet knows; a local copy too. Nothing here waits or raises."""

    def measure(self, api: str) -> Measure:
        """Return how a model counts."""
        ...

    def counted(self, api: str, *, estimated: int, true: int, weight: float = SLOW) -> None:
        """Learn from the true input tokens of a call."""
        ...

    def overflowed(self, api: str, *, window_tokens: int) -> None:
        """Note the most tokens that a model says it takes."""
        ...


class Knowledge(Lessons, Measures, Protocol):
    """Both: `fleet.lessons.Notebook`."""


class Provider(Protocol):
    """One LLM API. Sends exactly one HTTP request per call; never retries."""

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        """Send one call.

        Raises:
            RateLimited: 429, with `retry_after_s` when the provider said it.
            ProviderUnavailable: 5xx and what else passes, connection failure, no answer within `call.timeout_s`, or an
                answer that is not what the wire says.
            Relearnt: The model refuses something that the call carried; the next one goes without it.
            ContextTooLong: The prompt is more than the model takes.
            KeyRejected: The key is not taken; `KeySpent`: its money, credit or quota is used up.
            NotServed: There is no such model, or no such API at the address.
            BadRequest: Any other refusal.
        """
        ...

    async def close(self) -> None:
        """Close the HTTP connections."""


@runtime_checkable
class BatchingProvider(Protocol):
    """A provider that takes batches. Nothing here waits."""

    def later_body(self, call: Call) -> bytes:
        """Return the request of a call as JSON, without what its model refuses."""
        ...

    def later_answer(self, call: Call, raw: bytes) -> Completion:
        """Read an answer that came in a batch. Raises as `Provider.complete`."""
        ...

    def batches(self, key: Callable[[], str]) -> BatchApi:
        """Return its batches under a key, which is asked for with each request."""
        ...


@runtime_checkable
class StreamingProvider(Protocol):
    """A provider that can tell an answer while it is made."""

    def stream(self, call: Call, *, api_key: str) -> AsyncGenerator[Delta | Completion]:
        """Send one call; yield the pieces of its answer and, last, the whole.

        Raises:
            FleetError: As `Provider.complete`, also in the middle; `ProviderUnavailable` when the answer broke off.
        """
