"""What the transports under SDKs send with, and what a limiter for threads offers them."""

from __future__ import annotations

from typing import Any, Protocol

from fleet.grants import ANYBODY, Caller, Grant
from fleet.rates import RateReadings


class AsyncTransport(Protocol):
    """What a client sends with: `httpx.AsyncHTTPTransport`, `httpx2.AsyncHTTPTransport`."""

    async def handle_async_request(self, request: Any) -> Any: ...

    async def aclose(self) -> None: ...


class BlockingTransport(Protocol):
    """What a blocking client sends with: `httpx.HTTPTransport`, `httpx2.HTTPTransport`."""

    def handle_request(self, request: Any) -> Any: ...

    def close(self) -> None: ...


class BlockingLimiter(Protocol):
    """`fleet.limiter.ThreadedLimiter`: a limiter that blocks the thread that asks."""

    def acquire(
        self,
        limit: str,
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: float = 0,
        note: str = "",
    ) -> Grant: ...

    def settle(
        self,
        grant: Grant,
        *,
        used_tokens: int,
        used_output_tokens: int = 0,
        cached_tokens: int | None = None,
        cost_usd_micros: float = 0,
    ) -> None: ...

    def penalise(self, limit: str, *, retry_after_s: float) -> None: ...

    def narrow(self, limit: str, *, most: int = 0) -> None: ...

    def observe(self, grant: Grant, rates: RateReadings | None) -> None: ...
