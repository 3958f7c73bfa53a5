"""When it passes, as a provider's body says it: `retryDelay`, "try again in 1m30s", "regain access on 2026-12-01".

Headers are read in `rates/retry_after.py`. Pure functions of what was said and the time; what is absurd counts as not
said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fleet.workers.providers.bodies import Said, spelled
from fleet.workers.providers.rates.retry_after import read_duration

#: Longest wait that is believed, in seconds (400 days): a limit a year passes, a wrong clock's date does not count.
MAX_DELAY_S = 400 * 86_400.0

_IN_SECONDS = frozenset((
    "retry_delay", "retry_after", "retry_after_s", "retry_after_seconds", "retry_in", "retry_in_seconds", "resets_in",
    "reset_in", "resets_in_seconds", "reset_in_seconds", "reset_after", "wait_seconds", "wait_time", "estimated_time",
    "cooldown",
))  # fmt: skip
_IN_MS = frozenset(("retry_after_ms", "retry_in_ms", "reset_in_ms"))
_AS_TIME = frozenset((
    "resets_at", "reset_at", "reset_time", "retry_at", "available_at", "regain_at", "until", "x_ratelimit_reset",
    "x_rate_limit_reset",
))  # fmt: skip
_UNITS_S = {"ms": 1e-3, "mi": 60.0, "m": 60.0, "s": 1.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_ANCHOR = (
    r"(?:\bretry|\btry(?:ing)?\s+again|\bwait|\breset|\bavailable|\bcome back|\bresum|\brenew|\brefresh|\bregain|"
    r"\baccess|\buntil|\blifted|\bback\b)"
)
_PIECE = (
    r"(\d+(?:\.\d+)?|\ban?(?=\s)|\bone(?=\s))\s*"
    r"(milliseconds?|millis|msecs?|ms|minutes?|mins?|seconds?|secs?|hours?|hrs?|days?|weeks?|[smhdw])(?![a-z])"
)
_IN = re.compile(rf"{_ANCHOR}[^\d\n]{{0,40}}?((?:{_PIECE}[\s,]*(?:and\s+)?)+)", re.IGNORECASE)
_BARE = re.compile(r"retry[- _]?after\W{0,4}(\d+(?:\.\d+)?)(?=\s*(?:$|[.,;)\"'}]))", re.IGNORECASE)
_ZONE = r"(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})"
_CLOCK = rf"(?P<clock>\d{{1,2}}:\d{{2}}(?::\d{{2}})?)(?:\.\d+)?\s*(?P<half>[ap]\.?m)?\s*\(?{_ZONE}?"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
_DATES = tuple(
    re.compile(rf"{_ANCHOR}[^\n]{{0,80}}?{date}", re.IGNORECASE)
    for date in (
        rf"(?P<year>\d{{4}})-(?P<number>\d{{2}})-(?P<day>\d{{2}})(?:[T ,]+(?:at\s+)?{_CLOCK})?",
        rf"{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year>\d{{4}})(?:,?\s+(?:at\s+)?{_CLOCK})?",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+{_MONTH},?\s+(?P<year>\d{{4}})(?:,?\s+(?:at\s+)?{_CLOCK})?",
    )
)
_TODAY = re.compile(rf"{_ANCHOR}[^\n\d]{{0,30}}?\b(?:at\s+{_CLOCK}|midnight\s+\(?(?P<night>UTC|GMT))", re.IGNORECASE)
_EPOCH = re.compile(rf"(?:{_ANCHOR}[^\n\d]{{0,40}}?|\|)(?<!\d)(\d{{10}}(?:\d{{3}})?)(?!\d)", re.IGNORECASE)


def read_delay(said: Said, *, now_s: float) -> float | None:
    """Return the seconds until it passes, by the fields of a body or else by its sentences; None when neither says.

    Args:
        said: What the body says.
        now_s: Unix time in seconds.
    """
    for layer in said.fields:
        if (seconds := _of_fields(layer, now_s)) is not None:
            return seconds
    for message in said.messages:
        if (seconds := _of_text(message, now_s)) is not None:
            return seconds
    return None


def _of_fields(layer: Mapping[str, Any], now_s: float) -> float | None:
    for name, value in layer.items():
        word = spelled(name) if isinstance(name, str) and len(name) <= 40 else ""
        if isinstance(value, dict):
            value = value.get("seconds")
        if word in _IN_SECONDS:
            seconds = _number(value)
        elif word in _IN_MS:
            seconds = None if (ms := _number(value)) is None else ms / 1e3
        elif word in _AS_TIME:
            seconds = _until(value, now_s)
        else:
            continue
        if seconds is not None and 0 <= seconds <= MAX_DELAY_S:
            return seconds
    return None


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return read_duration(value[:40])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and -1e15 < value < 1e15 else None  # type: ignore[operator, arg-type]


def _until(value: object, now_s: float) -> float | None:
    """Return the seconds until a time: RFC 3339, or seconds or milliseconds of the epoch."""
    number = _number(value)
    if number is not None:
        return _ahead(number / 1e3 if number > 1e11 else number, now_s)
    return _of_text(f"until {value[:60]}", now_s) if isinstance(value, str) else None


def _of_text(text: str, now_s: float) -> float | None:
    if (found := _IN.search(text)) is not None:
        seconds = sum(_amount(number) * _unit_s(unit) for number, unit in re.findall(_PIECE, found.group(1), re.I))
        return seconds if seconds <= MAX_DELAY_S else None
    if (found := _BARE.search(text)) is not None:
        return min(float(found.group(1)), MAX_DELAY_S)
    for pattern in _DATES:
        if (found := pattern.search(text)) is not None:
            return _ahead(_time(found.groupdict()), now_s)
    if (found := _EPOCH.search(text)) is not None:
        number = float(found.group(1))
        return _ahead(number / 1e3 if number > 1e11 else number, now_s)
    if (found := _TODAY.search(text)) is not None:
        return _next(found.groupdict(), now_s)
    return None


def _amount(number: str) -> float:
    return float(number) if number[0].isdigit() else 1.0


def _unit_s(unit: str) -> float:
    unit = unit.lower()
    return _UNITS_S["ms"] if unit.startswith(("ms", "mil")) else _UNITS_S[unit[:2] if unit[:2] == "mi" else unit[0]]


def _time(parts: Mapping[str, str | None]) -> float | None:
    """Return the Unix time of a date and a clock; without a zone it is UTC's, without a clock the day's begin."""
    month = parts.get("number") or 1 + _MONTHS.index(str(parts.get("month"))[:3].lower())
    hour, minute, second = _clock(parts)
    try:
        day = datetime(int(parts["year"] or 0), int(month), int(parts["day"] or 0), tzinfo=UTC)
        return (day + timedelta(hours=hour, minutes=minute, seconds=second)).timestamp() - _offset_s(parts)
    except (ValueError, OverflowError):
        return None


def _next(parts: Mapping[str, str | None], now_s: float) -> float | None:
    """Return the seconds until a clock shows a time next; only where its zone is said."""
    if not (parts["zone"] or parts["night"]):
        return None
    hour, minute, second = _clock(parts)
    return (hour * 3600 + minute * 60 + second - _offset_s(parts) - now_s) % 86_400


def _clock(parts: Mapping[str, str | None]) -> tuple[int, int, int]:
    hour, minute, *rest = (int(part) for part in (parts.get("clock") or "0:0").split(":"))
    half = (parts.get("half") or "").lower()[:1]
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return hour, minute, rest[0] if rest else 0


def _offset_s(parts: Mapping[str, str | None]) -> int:
    zone = (parts.get("zone") or "").replace(":", "")
    if zone[:1] not in ("+", "-"):
        return 0
    return (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 3600 + int(zone[3:5]) * 60)


def _ahead(at: float | None, now_s: float) -> float | None:
    return at - now_s if at is not None and math.isfinite(at) and 0 < at - now_s <= MAX_DELAY_S else None
