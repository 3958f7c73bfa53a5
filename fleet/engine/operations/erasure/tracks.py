"""What tells whether something that is stored is of the tenant or the tasks that are to be forgotten. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fleet.economy.bill.notes import Note
from fleet.engine.outcomes.cancelling import AskedFor, Selection, fields_in
from fleet.engine.outcomes.dead_letters import DeadLetter
from fleet.engine.outcomes.stored import TYPED


def is_result_of(raw: bytes, chosen: Selection) -> bool:
    """True for a result, as it is stored, of a task that is meant. One of an earlier release says no tenant."""
    if chosen.tenant and chosen.tenant.encode() not in raw:
        return False
    try:
        meta = json.loads(raw)
        return _is_of(meta.get(TYPED) or meta.get("result"), chosen)
    except (ValueError, AttributeError, RecursionError):
        return False


def is_chord_of(member: bytes, chosen: Selection) -> bool:
    """True for one member's end in a chord, as Celery writes it ([1, task id, state, result]), when that is meant."""
    try:
        value = json.loads(member)[3]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return _is_of(value, chosen)


def is_letter_of(letter: DeadLetter, body: bytes, chosen: Selection) -> bool | None:
    """True for a dead letter that is meant; None: its body was not kept or cannot be read, so only its id is known."""
    try:
        fields: Mapping[str, Any] = fields_in(body)
    except (ValueError, TypeError, LookupError, RecursionError):
        return letter.task_id in chosen.task_ids or (None if chosen.tenant is not None or chosen.metadata else False)
    return chosen.applies(AskedFor({"id": letter.task_id}, fields), letter.pool or "")


def names_scope(text: str, scope: str) -> bool:
    """True for a text that names a budget's scope (`tenant:T`), not one that merely begins so."""
    return re.search(rf"(?<![\w.-]){re.escape(scope)}(?![\w.-])", text) is not None


def note_renamed(raw: bytes, before: str, after: str) -> bytes | None:
    """Return the note of a call that is not billed yet with another tenant; None: it is not of this one.

    The JSON of a note holds a tenant where `fleet/economy/bill/notes.py: Note` has it.
    """
    times, bracket, rest = raw.partition(b"[")
    try:
        parts = json.loads(bracket + rest)
    except ValueError:
        return None
    place = Note._fields.index("tenant")
    if len(parts) <= place or parts[place] != before:
        return None
    parts[place] = after
    return times + json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()


def _is_of(value: object, chosen: Selection) -> bool:
    if not isinstance(value, dict) or "task_id" not in value:
        return False
    return chosen.applies(AskedFor({"id": value["task_id"]}, value), str(value.get("pool") or ""))
