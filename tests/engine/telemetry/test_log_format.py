"""Log lines as JSON objects: events with fields, and nothing of what an exception says."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from fleet import config
from fleet.engine.telemetry.log_format import JsonFormatter, fields_of, use_json


def line_of(name: str, message: str, *, failing: bool = False) -> dict[str, str]:
    exc_info = None
    if failing:
        try:
            raise ValueError("the prompt is secret")
        except ValueError:
            exc_info = sys.exc_info()
    record = logging.LogRecord(name, logging.WARNING, "here.py", 1, message, None, exc_info)
    return dict(json.loads(JsonFormatter().format(record)))


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("finished task=t1 status=ok bot=a-001", {"event": "finished", "task": "t1", "status": "ok", "bot": "a-001"}),
        ("lease lost task=t1: stopping", {"event": "lease_lost", "task": "t1"}),
        ("simulated pools=a,b: the simulator answers", {"event": "simulated", "pools": "a,b"}),
        ("waiting for Redis: no answer", {"event": "waiting_for_redis"}),
    ],
)
def test_a_line_of_ours_is_an_event_with_fields(message: str, fields: dict[str, str]) -> None:
    assert fields_of(message) == fields


def test_a_line_of_others_is_only_a_message() -> None:
    line = line_of("celery.worker", "Connected to redis://x?a=1")
    assert set(line) == {"at", "level", "logger", "message"}
    assert (line["level"], line["message"]) == ("warning", "Connected to redis://x?a=1")


def test_of_an_exception_the_type_and_the_places_are_told_but_not_what_it_says() -> None:
    line = line_of("fleet.worker", "task_crashed task=t", failing=True)
    assert line["exception"] == "ValueError"
    assert line["frames"][0].endswith("line_of")
    assert "secret" not in json.dumps(line)


@pytest.mark.parametrize(("wanted", "is_json"), [("json", True), ("text", False)])
def test_handlers_get_the_format_that_is_configured(
    monkeypatch: pytest.MonkeyPatch, wanted: str, is_json: bool
) -> None:
    monkeypatch.setenv("FLEET_WORKER__LOG_FORMAT", wanted)
    config.current.cache_clear()
    logger = logging.Logger("fleet.test")
    logger.addHandler(logging.StreamHandler())
    use_json(logger)
    assert isinstance(logger.handlers[0].formatter, JsonFormatter) is is_json
