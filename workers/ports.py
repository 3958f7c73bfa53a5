"""What the data plane needs from outside, as Protocols. `fleet/engine/process/wiring.py` fills them in.

`workers/` imports only the words of `fleet` (errors, models, config): no Redis, no Celery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fleet.models import ANYBODY, Caller, Grant, Message, Usage
from fleet.rates import RateReadings


class Limiter(Protocol):
    """The fleet-wide rate limiter."""

    async def acquire(
        self,
        limit: str,
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: int = 0,
    ) -> Grant:
        """Wait until one call may be sent under `limit`.

        Args:
            limit: `provider/model/key`.
            tokens: Input and output together, the most that the call may use.
            timeout_s: Longest wait.
            caller: For whom: decides the order.
            input_tokens: Those of `tokens` that are input.
            cost_usd_micros: The most that the call may cost.

        Raises:
            DeadlineExceeded: When the turn comes later than `timeout_s`; nothing is reserved then.
            StoreUnavailable: When Redis does not answer: nothing may be sent.
        """
        ...

    def settle(self, grant: Grant, *, used_tokens: int, used_output_tokens: int = 0, cost_usd_micros: int = 0) -> None:
        """Give back what was reserved but not used, or charge the excess. Never waits, never raises."""
        ...

    def penalise(self, limit: str, *, retry_after_s: float) -> None:
        """Hold the whole fleet on `limit`: the provider answered 429. Never waits, never raises."""
        ...

    def observe(self, grant: Grant, rates: RateReadings | None) -> None:
        """Correct the limit by what the answer's headers said (None: nothing). Never waits, never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, wire format aside."""

    model: str
    messages: tuple[Message, ...]
    temperature: float
    max_output_tokens: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a provider, wire format aside."""

    text: str
    finish_reason: str
    usage: Usage
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Provider(Protocol):
    """One LLM API. Sends exactly one HTTP request per call; never retries."""

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        """Send one call.

        Raises:
            RateLimited: 429, with `retry_after_s` when the provider said it.
            ProviderUnavailable: 5xx, 408, 409, 425, connection failure, no answer within `call.timeout_s`, or an
                answer that is not what the wire says.
            KeyRejected: 401, 402, 403, or a 429 that says the key's money is used up.
            BadRequest: any other 4xx, or a redirect.
        """
        ...

    async def close(self) -> None:
        """Close the HTTP connections."""
        ...
