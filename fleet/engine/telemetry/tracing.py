"""OpenTelemetry traces: submit, queue wait, checkout, limiter wait, provider call and finish of a task as one trace.

Imported only when traces are on. The trace id is the task's own UUID, so a trace is found by the id that the producer
has; a `traceparent` header (W3C Trace Context) that came with the message wins. Spans say names, ids and types, never
what was asked or answered, nor what an exception says.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind

from fleet.config import SignalsSettings
from fleet.errors import ConfigurationError

#: File below the state folder that traces = "file" appends to: one span a line, as JSON.
FILE_NAME = "traces.jsonl"

#: Trace id of the root span that is started next, where no parent says one.
_root_id: ContextVar[int | None] = ContextVar("fleet_trace_id", default=None)


class _TaskIds(RandomIdGenerator):
    """Random ids, but a task's own for its trace."""

    def generate_trace_id(self) -> int:
        return _root_id.get() or super().generate_trace_id()


class Tracing:
    """Writes spans. One per process; see `tracing_of`.

    Args:
        exporter: Where spans go, in batches, on a thread of its own.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": "fleet"}), id_generator=_TaskIds())
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("fleet")

    @contextmanager
    def submit(self, task_id: str) -> Iterator[dict[str, str]]:
        """Trace the submission of a task; gives the headers that its message carries. A running span is its parent."""
        headers: dict[str, str] = {}
        with self._root(task_id), self._span("submit", SpanKind.PRODUCER, {"fleet.task": task_id}):
            propagate.inject(headers)
            yield headers

    @contextmanager
    def task(self, task_id: str, request: Mapping[str, Any], queued_ms: int) -> Iterator[Span]:
        """Trace a delivered task: from the moment it was queued, its wait already inside.

        Args:
            task_id: The task.
            request: Headers of its message.
            queued_ms: Milliseconds that it waited in its queue; 0 when nobody said.
        """
        now_ns = time.time_ns()
        queued_ns = max(0, now_ns - queued_ms * 1_000_000)
        carrier = {name: str(request[name]) for name in propagate.get_global_textmap().fields if request.get(name)}
        parent = propagate.extract(carrier)
        facts = {"fleet.task": task_id}
        with (
            self._root(task_id),
            self._span("task", SpanKind.CONSUMER, facts, start_ns=queued_ns, parent=parent) as span,
        ):
            if not carrier:  # submitted in bulk: its producer told when, and nothing else
                self._tracer.start_span("submit", start_time=queued_ns).end(queued_ns)
            self._tracer.start_span("queue_wait", start_time=queued_ns).end(now_ns)
            yield span

    def step(self, name: str, **facts: str | int) -> Any:
        """Trace one step of the task that runs here; a context manager."""
        return self._span(name, SpanKind.INTERNAL, {f"fleet.{key}": value for key, value in facts.items()})

    def say(self, **facts: str | int) -> None:
        """Add facts to the span that runs here; empty ones are left out."""
        trace.get_current_span().set_attributes({f"fleet.{key}": value for key, value in facts.items() if value != ""})

    def close(self) -> None:
        """Send what waits; at most some seconds."""
        self._provider.shutdown()

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, facts: Mapping[str, str | int], *, start_ns: int | None = None,
        parent: Any = None,
    ) -> Iterator[Span]:  # fmt: skip
        with self._tracer.start_as_current_span(
            name, context=parent, kind=kind, attributes=dict(facts), start_time=start_ns,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)  # its message may quote the prompt
                span.set_status(trace.StatusCode.ERROR)
                raise

    @contextmanager
    def _root(self, task_id: str) -> Iterator[None]:
        token = _root_id.set(trace_id_of(task_id))
        try:
            yield
        finally:
            _root_id.reset(token)


def trace_id_of(task_id: str) -> int:
    """Return the trace of a task: its UUID, or a digest of an id that isn't a UUID."""
    try:
        number = uuid.UUID(task_id).int
    except ValueError:
        number = 0
    return number or int.from_bytes(hashlib.sha256(task_id.encode(errors="replace")).digest()[:16], "big")


@lru_cache(maxsize=1)
def tracing_of(settings: SignalsSettings, home: Path) -> Tracing:
    """Return this process's tracing, made once.

    Raises:
        ConfigurationError: When the exporter is not installed, or the file cannot be written.
    """
    return Tracing(_file_exporter(home / FILE_NAME) if settings.traces == "file" else _otlp_exporter())


def _otlp_exporter() -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(
            'signals.traces: expected the OTLP exporter to be installed for "otlp"; pip install "celery-fleet[otel]"'
        ) from error
    exporter: SpanExporter = OTLPSpanExporter()
    return exporter


def _file_exporter(path: Path) -> SpanExporter:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        out = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f'signals.traces: expected to write {path} for "file", got {error.strerror}'
        ) from error
    return _FileExporter(out=out, formatter=lambda span: f"{span.to_json(indent=None)}\n")


class _FileExporter(ConsoleSpanExporter):
    def shutdown(self) -> None:
        self.out.close()
