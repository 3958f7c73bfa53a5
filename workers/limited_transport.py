"""A transport for httpx and httpx2 that puts the limiter under a client, such as that of a vendor's SDK.

It reads what a request asks for, waits for its turn, sends it once, and settles by the usage in the answer. It retries
nothing; switch the SDK's own retries off (`max_retries=0`), they would send calls that nobody granted.

Weakness: an answer that is streamed is settled by its estimate, because its usage comes last. Requests without a model
(lists, files) pass without a grant.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from fleet.models import ANYBODY, Caller, Grant, RateReadings
from workers.context import count_tokens
from workers.gateway import DEFAULT_HOLD_S
from workers.ports import Limiter
from workers.providers.rate_headers import read_rates
from workers.providers.retry_after import read_retry_after

#: Longest wait for a turn unless it is said, in seconds.
PATIENCE_S = 60.0
#: Output tokens that a request is taken to ask for when it does not say, which real use corrects soon.
OUTPUT_TOKENS = 1024
#: Where requests of the vendors say how long the answer may be.
_OUTPUT_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
#: Parts of a request that are no text: pictures and files, in base64.
_NO_TEXT = frozenset({"data", "url", "image_url", "file_data"})


class AsyncTransport(Protocol):
    """What a client sends with: `httpx.AsyncHTTPTransport`, `httpx2.AsyncHTTPTransport`."""

    async def handle_async_request(self, request: Any) -> Any: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """What a blocking client sends with: `httpx.HTTPTransport`, `httpx2.HTTPTransport`."""

    def handle_request(self, request: Any) -> Any: ...

    def close(self) -> None: ...


class BlockingLimiter(Protocol):
    """`fleet.limiter.ThreadedLimiter`: a limiter that blocks the thread that asks."""

    def acquire(
        self, limit: str, *, tokens: int, timeout_s: float, caller: Caller = ANYBODY, input_tokens: int = 0
    ) -> Grant: ...

    def settle(self, grant: Grant, *, used_tokens: int, used_output_tokens: int = 0) -> None: ...

    def penalise(self, limit: str, *, retry_after_s: float) -> None: ...

    def observe(self, grant: Grant, rates: RateReadings | None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Ask:
    """What a request asks for."""

    model: str
    input_tokens: int
    output_tokens: int
    is_streamed: bool

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class LimitedTransport:
    """Transport of an asyncio client: `AsyncClient(transport=LimitedTransport(...))`.

    Args:
        limiter: The limiter.
        provider: Calls to `model` go under the limit `provider/model/key`.
        inner: What really sends.
        key: Label of the key in the limit's name, never the key.
        caller: For whom: decides the order.
        timeout_s: Longest wait for a turn.
    """

    def __init__(
        self,
        limiter: Limiter,
        provider: str,
        inner: AsyncTransport,
        *,
        key: str = "default",
        caller: Caller = ANYBODY,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        self._limiter, self._provider, self._inner = limiter, provider, inner
        self._key, self._caller, self._timeout_s = key, caller, timeout_s

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request when its turn has come.

        Raises:
            DeadlineExceeded: When the turn comes too late; nothing was sent.
            StoreUnavailable: When Redis does not answer; nothing was sent.
            ConfigurationError: When the model's limit is not known.
        """
        ask = _read(await request.aread())
        if ask is None:
            return await self._inner.handle_async_request(request)
        grant = await self._limiter.acquire(
            f"{self._provider}/{ask.model}/{self._key}",
            tokens=ask.tokens,
            timeout_s=self._timeout_s,
            caller=self._caller,
            input_tokens=ask.input_tokens,
        )
        outcome = _Outcome(grant)
        try:
            response = await self._inner.handle_async_request(request)
            if not ask.is_streamed:
                await response.aread()
            outcome = _outcome(grant, ask, response)
        finally:
            outcome.tell(self._limiter)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class BlockingLimitedTransport:
    """Transport of a blocking client: `Client(transport=BlockingLimitedTransport(ThreadedLimiter(...), ...))`.

    Arguments and errors as `LimitedTransport`.
    """

    def __init__(
        self,
        limiter: BlockingLimiter,
        provider: str,
        inner: Transport,
        *,
        key: str = "default",
        caller: Caller = ANYBODY,
        timeout_s: float = PATIENCE_S,
    ) -> None:
        self._limiter, self._provider, self._inner = limiter, provider, inner
        self._key, self._caller, self._timeout_s = key, caller, timeout_s

    def handle_request(self, request: Any) -> Any:
        """Send one request when its turn has come."""
        ask = _read(request.read())
        if ask is None:
            return self._inner.handle_request(request)
        grant = self._limiter.acquire(
            f"{self._provider}/{ask.model}/{self._key}",
            tokens=ask.tokens,
            timeout_s=self._timeout_s,
            caller=self._caller,
            input_tokens=ask.input_tokens,
        )
        outcome = _Outcome(grant)
        try:
            response = self._inner.handle_request(request)
            if not ask.is_streamed:
                response.read()
            outcome = _outcome(grant, ask, response)
        finally:
            outcome.tell(self._limiter)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a call; of one that failed or was cut nothing is known, so all that was reserved counts as used."""

    grant: Grant
    used: tuple[int, int] | None = None
    rates: RateReadings | None = None
    hold_s: float | None = None

    def tell(self, limiter: Limiter | BlockingLimiter) -> None:
        """Settle."""
        if self.hold_s is not None:
            limiter.penalise(self.grant.limit, retry_after_s=self.hold_s)
        tokens, output = self.used or (self.grant.reserved_tokens, self.grant.reserved_output_tokens)
        limiter.settle(self.grant, used_tokens=tokens, used_output_tokens=output)
        limiter.observe(self.grant, self.rates)


def _outcome(grant: Grant, ask: _Ask, response: Any) -> _Outcome:
    headers, now_s = response.headers, time.time()
    rates = read_rates(headers, now_s=now_s)
    if response.status_code == 429:
        hold_s = read_retry_after(headers, now_s=now_s)
        return _Outcome(grant, (0, 0), rates, DEFAULT_HOLD_S if hold_s is None else hold_s)
    if 400 <= response.status_code < 500:
        return _Outcome(grant, (0, 0), rates)
    return _Outcome(grant, None if ask.is_streamed else _usage(response.content), rates)


def _read(body: bytes) -> _Ask | None:
    """Return what a request asks for; None when it is none to a model."""
    asked = _object(body)
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        return None
    limits = [asked[name] for name in _OUTPUT_LIMITS if type(asked.get(name)) is int]
    texts = (asked.get(name) for name in ("messages", "input", "system", "instructions", "prompt", "tools"))
    return _Ask(
        model=model,
        input_tokens=sum(count_tokens(text) for part in texts for text in _texts(part)),
        output_tokens=max(0, limits[0]) if limits else OUTPUT_TOKENS,
        is_streamed=asked.get("stream") is True,
    )


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a part of a request."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in _NO_TEXT:
                yield from _texts(item)


def _usage(body: bytes) -> tuple[int, int] | None:
    """Return tokens and output tokens that an answer says were billed, in either vendor's words; None: not said."""
    usage = _object(body).get("usage")
    if not isinstance(usage, dict):
        return None
    counts = {name: count for name, count in usage.items() if type(count) is int and count >= 0}
    given = counts.get("prompt_tokens", counts.get("input_tokens"))
    made = counts.get("completion_tokens", counts.get("output_tokens", 0))
    if given is None:
        return None
    cached = counts.get("cache_creation_input_tokens", 0) + counts.get("cache_read_input_tokens", 0)
    return given + cached + made, made


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
