"""Log lines of workers as JSON objects, one a line, when `worker.log_format` says so.

A line of ours is an event and `key=value` pairs, which become fields. Of an exception only its type and the places in
the code are told: its message may quote a prompt.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import Any

from celery import signals

from fleet import config

#: Loggers whose lines are events with fields; other lines are only a message.
OURS = ("fleet", "workers")
_PAIR = re.compile(r"(?:^|\s)(\w+)=(\S*)")


class JsonFormatter(logging.Formatter):
    """One JSON object per record: at, level, logger, event, its fields, message."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.name.partition(".")[0] in OURS:
            line |= fields_of(message)
        line["message"] = message
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, default=str)


def fields_of(message: str) -> dict[str, str]:
    """Return the event and the fields of one of our lines; of a value with spaces only the first word."""
    first = _PAIR.search(message)
    event = message[: first.start()] if first else message.partition(":")[0]
    fields = {name: value.rstrip(":;,") for name, value in _PAIR.findall(message)}
    return {"event": "_".join(event.lower().split()).rstrip(":"), **fields}


def use_json(logger: logging.Logger, **_: Any) -> None:
    """Give a logger's handlers the JSON format, if it is configured. Celery calls it when it has set logging up."""
    if config.current().worker.log_format == "json":
        for handler in logger.handlers:
            handler.setFormatter(JsonFormatter())


def install() -> None:
    """Have Celery's workers ask for the format."""
    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(use_json, weak=False)
