"""A file of a provider's usage, whatever kind it is: it is recognised by what stands in it, not by its name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from fleet.economy.exports.anthropic_exports import read_anthropic, read_anthropic_csv
from fleet.economy.exports.export import ProviderExport, UnreadableExport
from fleet.economy.exports.fields import ExportRow, objects
from fleet.economy.exports.openai_exports import read_openai, read_openai_csv
from fleet.economy.exports.plain_exports import read_ledger, read_plain
from fleet.quoting import quote

#: Bytes of a file at most: a year of a large organisation by day, model and key is far below.
MAX_BYTES = 256_000_000


def read_export(path: Path) -> ProviderExport:
    """Read an export.

    Args:
        path: JSON (an object, a list, or a line each) or CSV.

    Raises:
        UnreadableExport: It is none that Fleet knows, or a value of it cannot be.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnreadableExport(f"{path}: expected at most {MAX_BYTES} bytes, got {size}; export a shorter period")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableExport(f"{path}: expected text in UTF-8, got byte {error.start} that is none") from error
    try:
        export = _read(text)
    except UnreadableExport as error:
        raise UnreadableExport(f"{path}: {error}") from error
    if not export.lines and export.vendor != "simulator":
        raise UnreadableExport(f"{path}: expected lines of usage or costs, got none: the period is empty")
    return export


def _read(text: str) -> ProviderExport:
    start = text.lstrip()[:1]
    if not start:
        raise UnreadableExport("expected an export of usage or costs, got an empty file")
    return _read_json(list(_documents(text))) if start in "{[" else _read_csv(text)


def _documents(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield all objects of a text: one, a list of them, or one after another (pages, JSON lines)."""
    decoder = json.JSONDecoder(parse_float=Decimal)
    place, end = 0, len(text)
    while place < end:
        if text[place].isspace():
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError, ArithmeticError) as error:  # a number may be beyond what Python reads
            line = text.count("\n", 0, place) + 1
            raise UnreadableExport(f"line {line}: expected JSON, got {quote(text[place : place + 40])}") from error
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, dict):
                raise UnreadableExport(f"expected JSON objects, got {quote(one)}")
            yield one


def _read_json(documents: Sequence[Mapping[str, Any]]) -> ProviderExport:
    first = documents[0] if documents else {}
    if first.get("simulator") is True:
        return read_ledger(first)
    if isinstance(first.get("data"), list):
        buckets = [one for page in documents for one in objects(page.get("data"), "data")]
        if any("starting_at" in bucket for bucket in buckets):
            return read_anthropic(documents)
        if any("start_time" in bucket for bucket in buckets):
            return read_openai(documents)
        raise UnreadableExport("data: expected buckets with `start_time` (OpenAI) or `starting_at` (Anthropic)")
    columns = dict.fromkeys(name for one in documents for name in one)
    return read_plain([ExportRow(one, f"object {number}") for number, one in enumerate(documents, 1)], columns)


def _read_csv(text: str) -> ProviderExport:
    lines = text.splitlines()
    delimiter = ";" if lines[0].count(";") > lines[0].count(",") else ","
    reader = csv.DictReader(lines, delimiter=delimiter)
    try:
        columns = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [ExportRow(values, f"line {reader.line_num}") for values in reader]
    except csv.Error as error:
        raise UnreadableExport(f"line {reader.line_num}: expected CSV, {error}") from error
    known = frozenset(columns)
    if "usage_date_utc" in known and known & {"cost_usd", "usage_output_tokens"}:
        return read_anthropic_csv(rows, is_costs="cost_usd" in known)
    if {"start_time", "end_time"} <= known and known & {"amount_value", "input_tokens"}:
        return read_openai_csv(rows, is_costs="amount_value" in known)
    return read_plain(rows, columns)
