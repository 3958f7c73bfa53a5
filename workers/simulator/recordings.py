"""Recorded real answers from a JSONL file, looked up by question."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: Field names that an error message lists at most.
_LISTED_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Recordings:
    """Answers by question.

    Args:
        answers: Answer by question, questions stripped.
        duplicates: Records whose question came before; the first answer is kept.
    """

    answers: dict[str, str]
    duplicates: int


def read_recordings(path: Path, *, answer_field: str, question_field: str) -> Recordings:
    """Read a JSONL file of recorded answers. Holds them all in memory.

    Args:
        path: One JSON object a line; empty lines are skipped.
        answer_field: Where the answer stands, dots between levels.
        question_field: Where the question stands.

    Raises:
        ConfigurationError: When the file cannot be read, a line isn't a JSON object, or a field is missing; names the
            fields there are.
    """
    answers: dict[str, str] = {}
    records = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                records += 1
                record = _record(line, f"{path}, line {number}")
                question = _text(record, question_field, f"{path}, line {number}").strip()
                answers.setdefault(question, _text(record, answer_field, f"{path}, line {number}"))
    except OSError as error:
        raise ConfigurationError(
            f"answers: expected a readable JSONL file, got {error.strerror or type(error).__name__} for {path}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"answers: expected {path} to be UTF-8 text, got other bytes") from error
    if not answers:
        raise ConfigurationError(f"answers: expected at least one record in {path}, got none")
    return Recordings(answers, records - len(answers))


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{where}: expected a JSON object, got something else") from None
    if not isinstance(record, dict):
        raise ConfigurationError(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def _text(record: dict[str, Any], field: str, where: str) -> str:
    value: Any = record
    for name in field.split("."):
        if not isinstance(value, dict) or name not in value:
            there = ", ".join(_fields(record)[:_LISTED_FIELDS]) or "none"
            raise ConfigurationError(f"{where}: expected a field {quote(field)}, got only: {there}")
        value = value[name]
    if not isinstance(value, str):
        raise ConfigurationError(f"{where}: expected text in field {quote(field)}, got {type(value).__name__}")
    return value


def _fields(record: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all fields that are not objects."""
    names: list[str] = []
    for name, value in record.items():
        names += _fields(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [prefix + name]
    return names
