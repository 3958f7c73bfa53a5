"""Files given to `fleet run` that aren't JSON lines: named for what they are, with the way to make lines of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: How files begin -> what they are, and what makes text of them.
_MAGIC = (
    (b"\x1f\x8b", "a gzip file", "`gunzip -c IN > lines.jsonl`"),
    (b"BZh", "a bzip2 file", "`bunzip2 -c IN > lines.jsonl`"),
    (b"\xfd7zXZ\x00", "an xz file", "`xz -dc IN > lines.jsonl`"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "`zstd -dc IN > lines.jsonl`"),
    (b"PK\x03\x04", "a zip file", "`unzip -p IN > lines.jsonl`"),
    (b"PAR1", "a Parquet file", "`python -c \"import pandas; pandas.read_parquet('IN').to_json('lines.jsonl', "
     "orient='records', lines=True)\"`"),
    (b"\xff\xfe", "UTF-16 text", "`iconv -f UTF-16 -t UTF-8 IN > lines.jsonl`"),
    (b"\xfe\xff", "UTF-16 text", "`iconv -f UTF-16 -t UTF-8 IN > lines.jsonl`"),
)  # fmt: skip
_FROM_CSV = (
    "`python -c \"import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin{})]\" "
    "< IN > lines.jsonl`"
)  # fmt: skip
_CELL = re.compile(r"\s*\"?([^\"{}\[\]]{1,64})\"?\s*")
_SEPARATORS = {
    ",": ("a CSV file", ""),
    "\t": ("a TSV file", ", delimiter='\\t'"),
    ";": ("a CSV file", ", delimiter=';'"),
}


def refuse_other_kinds(first: bytes, fields: Collection[str]) -> None:
    """Refuse a file that isn't made of JSON lines, by its first line.

    Args:
        first: Its first line that isn't blank, without a BOM.
        fields: Names by which a table's header is known: those of prompts and ids.

    Raises:
        ConfigurationError: Naming what it is, and what makes lines of it.
    """
    found = next(((what, remedy) for magic, what, remedy in _MAGIC if first.startswith(magic)), None)
    found = found or _json_kind(first) or _table_kind(first, fields)
    if found is not None:
        what, remedy = found
        raise ConfigurationError(
            f"IN: expected one JSON object or string per line, got {what}; {remedy} makes lines of it"
        )


def _json_kind(first: bytes) -> tuple[str, str] | None:
    if first.startswith(b"["):
        return "a JSON array", "`jq -c '.[]' IN > lines.jsonl`"
    if first == b"{":
        return "a JSON object over several lines", "`jq -c . IN > lines.jsonl`"
    return None


def _table_kind(first: bytes, fields: Collection[str]) -> tuple[str, str] | None:
    """A table's header: at least two cells without brackets, one of them a field that is looked for."""
    if first.startswith((b"{", b"[")) or _is_json(first):
        return None
    text = first.decode(errors="replace")
    for separator, (what, option) in _SEPARATORS.items():
        cells = [_CELL.fullmatch(cell) for cell in text.split(separator)]
        names = [cell[1].strip() for cell in cells if cell]
        if len(cells) > 1 and len(names) == len(cells) and any(name in fields for name in names):
            return f"{what} with the columns {quote(', '.join(names))}", _FROM_CSV.format(option)
    return None


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
