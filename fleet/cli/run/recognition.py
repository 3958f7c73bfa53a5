"""How `fleet run` knows a line of IN again: by what it asks, not by its number.

What a line asks is its id, its prompt or messages, and its own options; those of the command line are no part of it.
Equal lines are as many questions: the k-th of them is the k-th. Each record of OUT tells what it answers (`asked`).
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.quoting import counted

#: Hexadecimal digits of what names a question: 128 bits.
_DIGITS = 32
_FIRST_PLACES = 1024
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_ASKED = re.compile(rf"(?:id|line):[0-9a-f]{{{_DIGITS}}}")


class NumberTable:
    """Numbers by 64-bit keys, in two arrays: 10 million take 270 MB, a quarter of what a dict takes.

    Open addressing with linear probing. Key 0 marks a free place, and stands for 1.
    """

    def __init__(self) -> None:
        self._keys = array("Q", bytes(8 * _FIRST_PLACES))
        self._values = array("Q", bytes(8 * _FIRST_PLACES))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        return bool(self._keys[self._place(key or 1)])

    def get(self, key: int) -> int:
        """Return the number of a key, 0 when there is none."""
        return self._values[self._place(key or 1)]

    def set(self, key: int, value: int) -> None:
        """Store a number under a key."""
        key = key or 1
        place = self._place(key)
        if not self._keys[place]:
            self._count += 1
            self._keys[place] = key
        self._values[place] = value
        if self._count * 5 > len(self._keys) * 3:
            self._grow()

    def _place(self, key: int) -> int:
        keys, last = self._keys, len(self._keys) - 1
        place = key & last
        while keys[place] and keys[place] != key:
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        old = zip(self._keys, self._values, strict=True)
        size = 2 * len(self._keys)
        self._keys, self._values = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        for key, value in old:
            if key:
                place = self._place(key)
                self._keys[place], self._values[place] = key, value


def digest_of(value: Any) -> bytes:
    """Return 16 bytes that stand for a JSON value, however its fields are ordered.

    Raises:
        ValueError: When it holds NaN or Infinity, which JSON does not have.
    """
    return hashlib.sha256(_canonical(value).encode()).digest()[: _DIGITS // 2]


class Occurrences:
    """Tells equal lines apart, by how many were before."""

    def __init__(self) -> None:
        self._seen = NumberTable()

    def asked(self, digest: bytes, *, has_id: bool) -> str:
        """Return what names the next question of this digest: `id:...`, or `line:...` when the line has no id."""
        key = int.from_bytes(digest[:8])
        before = self._seen.get(key)
        self._seen.set(key, before + 1)
        if before:
            digest = hashlib.sha256(digest + before.to_bytes(8)).digest()
        return f"{'id' if has_id else 'line'}:{digest.hex()[:_DIGITS]}"


@dataclass(slots=True)
class Survey:
    """What a run found in IN and OUT before it asks anything.

    Attributes:
        answered: Lines of IN with an answer.
        fresh: Lines without one.
        moved: AnswerIndex whose line has another number now.
        gone: AnswerIndex to no line of IN.
        by_place: AnswerIndex of the previous release, known by number and id only.
    """

    answered: int = 0
    fresh: int = 0
    moved: int = 0
    gone: int = 0
    by_place: int = 0

    def __str__(self) -> str:
        """Return it as one line."""
        parts = [f"{counted(self.answered, 'line')} answered before, {self.fresh:,} to ask"]
        if self.moved:
            parts.append(
                f"{counted(self.moved, 'answer')} moved with {'its line' if self.moved == 1 else 'their lines'}"
            )
        if self.gone:
            stay = "it stays" if self.gone == 1 else "they stay"
            parts.append(f"{counted(self.gone, 'answer')} to no line of IN any more: {stay}, with `line` null")
        if self.by_place:
            parts.append(f"{counted(self.by_place, 'answer')} of an earlier release, known by line number and id only")
        return "; ".join(parts)


#: What is kept of an answer beside its line's number: whether a line of IN asks for it.
_MET, _FLAGS = 1, 1


class AnswerIndex:
    """The answers in OUT, and which lines of IN ask for them.

    Attributes:
        survey: What was found so far.
    """

    def __init__(self) -> None:
        self.survey = Survey()
        self._table = NumberTable()
        #: Key of a place -> what is asked there, for answers of the previous release.
        self._asked_at: dict[int, str] = {}
        self._has_places = False
        #: AnswerIndex that still have a number of a line that was not met yet.
        self._unmet = 0

    def has(self, question: Asking) -> bool:
        """True when the question is answered."""
        return self._find(question) is not None

    def __bool__(self) -> bool:
        return bool(self._table) or self.survey.gone > 0

    @property
    def is_out_of_date(self) -> bool:
        """True when numbers of lines in OUT are not those of IN, or were all that is known of a line."""
        return bool(self.survey.moved or self.survey.by_place or self._unmet)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take a record of OUT in; the first of two equal ones stands."""
        key, line = _key_in(record), record["line"]
        if key is None:
            self.survey.gone += 1
        elif key not in self._table:
            self._table.set(key, (line or 0) << _FLAGS)
            self.survey.gone += 1
            self._unmet += line is not None
            self._has_places = self._has_places or not _is_named(record)

    def meet(self, question: Asking) -> None:
        """Take a line of IN in."""
        key = self._find(question)
        if key is None:
            self.survey.fresh += 1
            return
        line = self._table.get(key) >> _FLAGS
        self._table.set(key, question.line << _FLAGS | _MET)
        self.survey.answered += 1
        self.survey.gone -= 1
        self._unmet -= line != 0
        self.survey.moved += line != question.line
        if key != key_of(question.asked):
            self.survey.by_place += 1
            self._asked_at[key] = question.asked

    def is_met(self, record: Mapping[str, Any]) -> bool:
        """True when a line of IN asks for what this record answers."""
        key = _key_in(record)
        return key is not None and bool(self._table.get(key) & _MET)

    def settled(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record with the number that its line has now, null when it has none; the same when that is so."""
        key = _key_in(record)
        value = 0 if key is None else self._table.get(key)
        line = value >> _FLAGS if value & _MET else None
        asked = record.get("asked") if key is None else self._asked_at.get(key, record.get("asked"))
        if line == record["line"] and asked == record.get("asked"):
            return record
        has_own_id = not (isinstance(asked, str) and asked.startswith("line:"))
        return {**record, "id": record["id"] if has_own_id else line, "line": line, "asked": asked}

    def _find(self, question: Asking) -> int | None:
        key = key_of(question.asked)
        if key in self._table:
            return key
        if self._has_places:
            key = int(place_name(question.line, question.id)[:16], 16)
            if key in self._table:
                return key
        return None


class Asking(Protocol):
    """A line of IN."""

    @property
    def line(self) -> int:
        """Its number."""
        ...

    @property
    def id(self) -> Any:
        """Its own id, or its number."""
        ...

    @property
    def asked(self) -> str:
        """What names the question."""
        ...


def _is_named(record: Mapping[str, Any]) -> bool:
    return bool(_ASKED.fullmatch(str(record.get("asked"))))


def _key_in(record: Mapping[str, Any]) -> int | None:
    """Return the key of what a record answers; None when it tells neither that nor a line."""
    if _is_named(record):
        return key_of(record["asked"])
    return None if record["line"] is None else int(place_name(record["line"], record.get("id"))[:16], 16)


def key_of(asked: str) -> int:
    """Return a question's key in a `NumberTable`."""
    return int(asked.rpartition(":")[2][:16], 16)


def place_name(line: int, name: Any) -> str:
    """Return the digits for a line's number and id, by which the previous release knew it."""
    return hashlib.sha256(f"{line}:{json.dumps(name)}".encode()).hexdigest()[:_DIGITS]
