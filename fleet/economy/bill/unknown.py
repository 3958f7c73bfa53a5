"""Calls of which nobody knows what was counted: how they are kept one by one, and what takes their place at last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from fleet.economy.bill.rows import arguments_of, summed
from fleet.economy.bill.scripts import RESOLVE
from fleet.entries import Entry
from fleet.store import bill_keys
from fleet.usage import Usage

#: What stands in the place of an entry that is resolved begins so; its Unix time follows.
RESOLVED = "-"
#: Entries that are read in one step (count).
STEP = 1000


@dataclass(frozen=True, slots=True)
class Unknown:
    """An unknown entry, and how it is written in Redis."""

    entry: Entry
    written: bytes


def written(entry: Entry) -> str:
    """Return an entry as JSON, of one line."""
    fields = entry._asdict() | {"usage": entry.usage.model_dump()}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def read(text: bytes) -> Entry | None:
    """Return the entry that was written so; None for one that is resolved, or of a release that knows other fields."""
    if text.startswith(RESOLVED.encode()):
        return None
    try:
        fields: dict[str, object] = json.loads(text)
        return Entry(**{**fields, "usage": Usage.model_validate(fields["usage"])})  # type: ignore[arg-type]
    except (ValueError, TypeError, KeyError):
        return None


def resolve_call(before: Unknown, settled: Entry) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `resolve.lua`: the settled entry is counted in the hour of the unknown one."""
    rows = summed([settled._replace(at_s=before.entry.at_s)], taken_back=[before.entry])
    hashes, listed = arguments_of(rows)
    return RESOLVE.call(
        unknown=bill_keys.unknown(), id=before.entry.id, before=before.written,
        mark=f"{RESOLVED}{settled.at_s:.0f}", rows=listed, **hashes,
    )  # fmt: skip


def read_unknown(client: redis.Redis, *, of_task: str = "", most: int | None = None) -> Iterator[Unknown]:
    """Yield the unknown entries, in no order.

    Args:
        client: Plain client of the state Redis.
        of_task: Only those of this task; empty: all.
        most: Entries looked at (count), about; None: all.
    """
    cursor, seen = 0, 0
    while True:
        reply: Any = client.hscan(bill_keys.unknown(), cursor, count=STEP)
        cursor, rows = reply
        for text in rows.values():
            entry = read(text) if of_task.encode() in text else None
            if entry is not None and of_task in ("", entry.task):
                yield Unknown(entry, text)
        seen += len(rows)
        if not cursor or (most is not None and seen >= most):
            return
