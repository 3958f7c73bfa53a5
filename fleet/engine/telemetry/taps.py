"""What a worker process tells the outside of its tasks: spans to OpenTelemetry, counts to Prometheus. Each only if on.

When both are off, a task costs a few calls of nothing; neither library is imported.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.config import LimitSettings, Settings
from fleet.engine.messages.envelope import QUEUED_AT, queued_ms_of
from fleet.engine.telemetry.event_limiter import EventLimiter
from fleet.engine.telemetry.occupancy import Occupancy
from fleet.grants import ANYBODY, Caller, Grant
from fleet.models import BotResult
from fleet.store.client import Store

if TYPE_CHECKING:
    from fleet.engine.telemetry.tracing import Tracing

_NO_STEP: AbstractContextManager[Any] = nullcontext()


class Telemetry:
    """One per process.

    Args:
        settings: What is on.
        home: State folder, for traces = "file".
        occupancy: How full this process is.

    Raises:
        ConfigurationError: When there is no free port, or the traces' exporter is not installed.
    """

    def __init__(self, settings: Settings, home: Path, occupancy: Occupancy) -> None:
        self._tracing = tracing(settings, home)
        self._server = None
        if settings.signals.metrics_port:
            from fleet.engine.telemetry.metrics_server import MetricsServer

            self._server = MetricsServer(settings.signals, occupancy)

    def task(self, task_id: str, request: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """Trace a delivered task while the block runs."""
        if self._tracing is None:
            return _NO_STEP
        queued_ms = queued_ms_of(request.get(QUEUED_AT))
        return self._tracing.task(task_id, request, queued_ms or 0)

    def step(self, name: str) -> AbstractContextManager[Any]:
        """Trace one step of the task that runs here."""
        return _NO_STEP if self._tracing is None else self._tracing.step(name)

    def finished(self, result: BotResult) -> None:
        """Count a result that stands, and let its span say who did it and how it went."""
        if self._server is not None:
            self._server.count(result)
        if self._tracing is not None:
            error = result.error.type if result.error else ""
            self._tracing.say(status=result.status, bot=result.bot or "", pool=result.pool or "", error=error)

    def exchanged(self, provider: str, is_good: bool) -> None:
        """Count an exchange for a token of a provider."""
        if self._server is not None:
            self._server.count_exchange(provider, is_good=is_good)

    def make_limiter(self, store: Store, limits: Mapping[str, LimitSettings]) -> EventLimiter:
        """Return the limiter of this process."""
        return EventLimiter(store, limits) if self._tracing is None else _TracedLimiter(store, limits, self._tracing)

    def provider(self, provider: Any) -> Any:
        """Return a provider (`fleet.workers.ports.Provider`) whose calls are traced."""
        if self._tracing is None:
            return provider
        traced = _TracedRawProvider if hasattr(provider, "exchange") else _TracedProvider
        return traced(provider, self._tracing)

    def tool(self, name: str) -> AbstractContextManager[Any]:
        """Trace one request of a tool API."""
        return _NO_STEP if self._tracing is None else self._tracing.step("tool_call", tool=name)

    def close(self) -> None:
        """Send the spans that wait, stop listening. Blocks for some seconds when the collector does not answer."""
        if self._tracing is not None:
            self._tracing.close()
        if self._server is not None:
            self._server.close()


def tracing(settings: Settings, home: Path) -> Tracing | None:
    """Return this process's tracing; None when it is off.

    Raises:
        ConfigurationError: When the exporter is not installed.
    """
    if settings.signals.traces == "off":
        return None
    from fleet.engine.telemetry.tracing import tracing_of

    return tracing_of(settings.signals, home)


class _TracedLimiter(EventLimiter):
    def __init__(self, store: Store, limits: Mapping[str, LimitSettings], tracing: Tracing) -> None:
        super().__init__(store, limits)
        self._tracing = tracing

    async def acquire(
        self,
        limit: str | Sequence[str],
        *,
        tokens: int,
        timeout_s: float,
        caller: Caller = ANYBODY,
        input_tokens: int = 0,
        cost_usd_micros: float | None = None,
        patience_s: float | None = None,
        note: str = "",
    ) -> Grant:
        with self._tracing.step("limiter_wait", limit=limit if isinstance(limit, str) else limit[0]):
            return await super().acquire(
                limit, tokens=tokens, timeout_s=timeout_s, caller=caller, input_tokens=input_tokens,
                cost_usd_micros=cost_usd_micros, patience_s=patience_s, note=note,
            )  # fmt: skip


class _TracedProvider:
    def __init__(self, provider: Any, tracing: Tracing) -> None:
        self._provider = provider
        self._tracing = tracing

    async def complete(self, call: Any, *, api_key: str) -> Any:
        with self._tracing.step("provider_call", model=call.model):
            return await self._provider.complete(call, api_key=api_key)

    async def stream(self, call: Any, *, api_key: str) -> AsyncGenerator[Any]:
        with self._tracing.step("provider_call", model=call.model):
            async with aclosing(self._provider.stream(call, api_key=api_key)) as pieces:
                async for piece in pieces:
                    yield piece

    async def close(self) -> None:
        await self._provider.close()


class _TracedRawProvider(_TracedProvider):
    """One that takes requests of SDKs, too."""

    @property
    def host(self) -> Any:
        return self._provider.host

    def speaks(self, wire: str) -> bool:
        return bool(self._provider.speaks(wire))

    def later_body(self, call: Any) -> Any:
        return self._provider.later_body(call)

    def later_answer(self, call: Any, raw: Any) -> Any:
        return self._provider.later_answer(call, raw)

    def batches(self, key: Any) -> Any:
        return self._provider.batches(key)

    async def exchange(self, request: Any, **options: Any) -> Any:
        with self._tracing.step("provider_call", path=request.path.partition("?")[0]):
            return await self._provider.exchange(request, **options)
