"""Spans of one task in memory: whose trace they belong to, and what they never say."""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path

import pytest

from fleet.config import Settings, SignalsSettings
from fleet.engine.telemetry import taps
from fleet.engine.telemetry.occupancy import DirectCall
from fleet.errors import ConfigurationError

pytest.importorskip("opentelemetry.sdk", reason='pip install "celery-fleet[otel]"')

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fleet.engine.telemetry.tracing import Tracing, trace_id_of, tracing_of
from tests.every import every

TASK = "0f8fad5b-d9cb-469f-a165-70867728950e"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def traced(headers: dict[str, str], queued_ms: int = 0) -> dict[str, ReadableSpan]:
    """Work for a task that fails, and return its spans by name."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter)
    with pytest.raises(ValueError, match="secret"), tracing.task(TASK, headers, queued_ms):
        with tracing.step("checkout"):
            tracing.say(bot="a-001", error="")
        with tracing.step("provider_call", model="m"):
            raise ValueError("the prompt is secret")
    tracing.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_the_trace_of_a_task_has_its_id_and_begins_when_it_was_queued() -> None:
    began_ns = time.time_ns()
    spans = traced({}, queued_ms=60_000)
    assert {span.context.trace_id for span in spans.values()} == {uuid.UUID(TASK).int}
    assert set(spans) == {"submit", "task", "queue_wait", "checkout", "provider_call"}
    assert spans["task"].parent is None
    wait = spans["queue_wait"]
    assert wait.start_time is not None
    assert spans["task"].start_time == wait.start_time >= began_ns - 60e9
    assert (wait.end_time or 0) - wait.start_time == 60e9
    assert spans["checkout"].attributes == {"fleet.bot": "a-001"}


def test_a_trace_that_came_with_the_message_goes_on() -> None:
    spans = traced({"traceparent": PARENT})
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {PARENT.split("-")[1]}
    parent = spans["task"].parent
    assert parent is not None
    assert f"{parent.span_id:016x}" == PARENT.split("-")[2]
    assert "submit" not in spans  # its producer has told of it


@pytest.mark.parametrize("odd", ["", "garbage", "00-0-0-00", "\x00", "00-" + "f" * 5000])
def test_a_header_that_is_no_trace_does_not_hurt(odd: str) -> None:
    assert traced({"traceparent": odd})["task"].context.trace_id == uuid.UUID(TASK).int


@pytest.mark.parametrize("odd", [float("nan"), float("-inf"), -1e300, "yesterday", None])
def test_a_time_of_queueing_that_is_none_does_not_hurt(tmp_path: Path, odd: object) -> None:
    settings = Settings(signals=SignalsSettings(traces="file"))
    told = taps.Telemetry(settings, tmp_path, DirectCall("test"))
    with told.task(TASK, {"queued_at": odd}), told.step("checkout"):
        pass
    told.close()
    tracing_of.cache_clear()
    assert (tmp_path / "traces.jsonl").read_text().count("\n") == 4


def test_of_an_exception_only_its_type_is_told() -> None:
    spans = traced({})
    assert spans["provider_call"].attributes is not None
    assert spans["provider_call"].attributes["error.type"] == "ValueError"
    assert every("secret" not in span.to_json() for span in spans.values())


def test_submitting_gives_the_header_that_the_message_carries() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter)
    with tracing.submit(TASK) as headers:
        pass
    tracing.close()
    (span,) = exporter.get_finished_spans()
    assert headers["traceparent"].startswith(f"00-{uuid.UUID(TASK).hex}-{span.context.span_id:016x}-")


def test_an_id_that_is_no_uuid_has_a_trace_of_its_own() -> None:
    assert trace_id_of("job-7") == trace_id_of("job-7") != trace_id_of("job-8")
    assert 0 < trace_id_of("00000000-0000-0000-0000-000000000000") < 2**128


def test_when_traces_are_off_there_is_nothing(tmp_path: Path) -> None:
    assert taps.tracing(Settings(), tmp_path) is None


def test_without_the_exporter_otlp_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match=r"fleet\[otel\]"):
        tracing_of(SignalsSettings(traces="otlp"), tmp_path)


def test_a_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").mkdir()
    with pytest.raises(ConfigurationError, match=r"traces\.jsonl"):
        tracing_of(SignalsSettings(traces="file"), tmp_path)
