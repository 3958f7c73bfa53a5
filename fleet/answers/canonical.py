"""One form for answers that mean the same, so that they can be counted. Pure, stdlib only.

JSON is compared as values, numbers as numbers, other text without regard to case, width, spaces and a last full stop.
Words that mean the same stay apart: ask for an answer of few forms, by a schema or a last line to be cut out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import deque
from collections.abc import Mapping
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any

#: A number as people write it: thousands separated, a currency before it, a full stop after it.
_NUMBER = re.compile(r"[$€£¥]?\s*([+-]?)\s*[$€£¥]?\s*(\d{1,3}(?:,\d{3})+|\d*)(\.\d+)?(e[+-]?\d{1,3})?\.?", re.I)
_FENCED = re.compile(r"\A```\w*\s*\n(.*)\n?```\Z", re.S)
#: Longest text in which a number is looked for (characters).
_MOST_DIGITS = 64
#: Numbers are taken as they are, whatever their digits: none is rounded, none is too large.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
#: Deepest JSON that is compared as values (levels); deeper is compared as text.
_DEEPEST = 50


def canonical(answer: str, *, pattern: re.Pattern[str] | None = None, field: str | None = None) -> str | None:
    """Return the form under which an answer is counted; None when it lacks what is to be counted.

    Args:
        answer: As a bot gave it.
        pattern: Cuts out what counts: the first group of its last match, or all of the match.
        field: Cuts a field out of a JSON answer; dots lead into objects and lists (`total.value`, `items.0`).
    """
    text = answer.strip()
    if pattern is not None:
        last = deque(pattern.finditer(text), maxlen=1)
        if not last or (cut := last[0][1 if pattern.groups else 0]) is None:
            return None
        text = cut.strip()
    value = _json_of(text)
    if field is not None:
        try:
            value = _inside(value, field)
        except LookupError:
            return None
    try:
        return _spelt(text if value is _NO_JSON else value)
    except RecursionError:  # nested deeper than this process can go
        return None if field is not None else _folded(text)


_NO_JSON: Any = object()


def _json_of(text: str) -> Any:
    fenced = _FENCED.match(text)
    inner = fenced[1].strip() if fenced else text
    if inner[:1] not in ("{", "["):
        return _NO_JSON
    try:
        return json.loads(inner, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError, InvalidOperation):
        return _NO_JSON


def _inside(value: Any, field: str) -> Any:
    for name in field.split("."):
        if isinstance(value, Mapping):
            value = value[name]
        elif isinstance(value, list) and name.isdecimal():
            value = value[int(name)]
        else:
            raise LookupError(name)
    return value


def _spelt(value: Any, depth: int = 0) -> str:
    """Return one spelling of a value; objects in the order of their names."""
    if depth > _DEEPEST:
        return json.dumps(value, default=str, sort_keys=True)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(k)}:{_spelt(value[k], depth + 1)}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_spelt(one, depth + 1) for one in value) + "]"
    if isinstance(value, Decimal):
        return _number(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value) if depth == 0 else json.dumps(_folded(str(value)))
    return _text(text) if depth == 0 else text


def _text(text: str) -> str:
    match = _NUMBER.fullmatch(text.strip()) if len(text) <= _MOST_DIGITS else None
    if match and (match[2] or match[3]):
        sign, whole, fraction, exponent = match.groups()
        return _number(Decimal(f"{sign}{whole.replace(',', '') or '0'}{fraction or ''}{exponent or ''}"))
    folded = _folded(text)
    return folded.removesuffix(".").rstrip() or folded


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _number(value: Decimal) -> str:
    if not value.is_finite():
        return str(value).casefold()
    plain = value.normalize(_EXACT)
    digits = f"{plain:f}" if abs(plain.adjusted()) <= _MOST_DIGITS else str(plain)
    return "0" if plain.is_zero() else digits
