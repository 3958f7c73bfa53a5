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
    "cooldown", "cooldown_seconds", "cooldown_time", "time_until_reset", "seconds_until_reset", "reset_seconds",
))  # fmt: skip
_IN_MS = frozenset(("retry_after_ms", "retry_in_ms", "reset_in_ms"))
_AS_TIME = frozenset((
    "resets_at", "reset_at", "reset_time", "retry_at", "available_at", "regain_at", "until", "x_ratelimit_reset",
    "x_rate_limit_reset", "next_reset_time", "next_reset_at", "next_retry_at", "reset_timestamp",
))  # fmt: skip
_UNITS_S = {"ms": 1e-3, "mi": 60.0, "m": 60.0, "s": 1.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_ANCHOR = (
    r"(?:\bretry|\btry(?:ing)?\s+again|\bwait|\breset|\bavailable|\bcome back|\bresum|\brenew|\brefresh|\bregain|"
    r"\baccess|\buntil|\blifted|\bback\b|\bcool(?:ing)?[- ]?down|\breplenish|\brefill|\brestor|\bunlock|\bunblock|"
    r"将[在于]|重置|恢复|重试|等待)"
)
_PIECE = (
    r"(\d+(?:\.\d+)?|\ban?(?=\s)|\bone(?=\s))\s*"
    r"(milliseconds?|millis|msecs?|ms|minutes?|mins?|seconds?|secs?|hours?|hrs?|days?|weeks?|[smhdw])(?![a-z])"
)
_IN = re.compile(rf"{_ANCHOR}[^\d\n]{{0,40}}?((?:{_PIECE}[\s,]*(?:and\s+)?)+)", re.IGNORECASE)
#: The same with the time before the words.
_AHEAD = re.compile(rf"\b(?:in|after|within)\s+((?:{_PIECE}[\s,]*(?:and\s+)?)+)[^.\n]{{0,40}}?{_ANCHOR}", re.IGNORECASE)
#: In Chinese, Japanese and Korean the time stands before "after".
_ASIAN = re.compile(
    r"((?:\d+(?:\.\d+)?\s*(?:毫秒|秒|分钟|分鐘|分|小时|小時|時間|天|日|초|분|시간|일)\s*)+)(?:钟)?(?:之后|以后|后|後|후)"
)
_ASIAN_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*(毫秒|秒|分|小|時|天|日|초|분|시|일)")
_ASIAN_S = {
    "毫秒": 1e-3, "秒": 1.0, "초": 1.0, "分": 60.0, "분": 60.0, "小": 3600.0, "時": 3600.0, "시": 3600.0,
    "天": 86_400.0, "日": 86_400.0, "일": 86_400.0,
}  # fmt: skip
_BARE = re.compile(r"retry[- _]?after\W{0,4}(\d+(?:\.\d+)?)(?=\s*(?:$|[.,;)\"'}]))", re.IGNORECASE)
#: Names of zones that mean one place only, and hours ahead of UTC there; with summer time where the name says it.
_ZONES_H = {
    "PST": -8, "PDT": -7, "MST": -7, "MDT": -6, "EST": -5, "EDT": -4, "CET": 1, "CEST": 2, "JST": 9, "KST": 9, "HKT": 8,
    "SGT": 8, "BEIJING TIME": 8,
}  # fmt: skip
_ZONE = (
    r"(?P<zone>(?:UTC|GMT)\s?[+-]\d{1,2}(?::?\d{2})?(?!\d)|UTC|GMT|Z\b|[+-]\d{2}:?\d{2}|"
    rf"(?:{'|'.join(_ZONES_H)})\b)"
)
_CLOCK = (
    r"(?P<clock>\d{1,2}:\d{2}(?::\d{2})?|\d{1,2}(?=\s*[ap]\.?m\b))(?:\.\d+)?"
    rf"\s*(?P<half>[ap]\.?m)?\.?\s*\(?{_ZONE}?"
)
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
_TODAY = re.compile(
    rf"{_ANCHOR}[^\n\d]{{0,30}}?\b(?:(?:at\s+)?{_CLOCK}|midnight\s+\(?{_ZONE.replace('zone', 'night')})", re.IGNORECASE
)
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
    if (found := _IN.search(text) or _AHEAD.search(text)) is not None:
        seconds = sum(_amount(number) * _unit_s(unit) for number, unit in re.findall(_PIECE, found.group(1), re.I))
        return seconds if seconds <= MAX_DELAY_S else None
    if (found := _ASIAN.search(text)) is not None:
        seconds = sum(float(number) * _ASIAN_S[unit] for number, unit in _ASIAN_PIECE.findall(found.group(1)))
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
    zone = parts["zone"] or parts["night"]
    if not zone:
        return None
    hour, minute, second = _clock(parts)
    return (hour * 3600 + minute * 60 + second - _offset_s({"zone": zone}) - now_s) % 86_400


def _clock(parts: Mapping[str, str | None]) -> tuple[int, int, int]:
    hour, minute, *rest = (*(int(part) for part in (parts.get("clock") or "0").split(":")), 0, 0)
    half = (parts.get("half") or "").lower()[:1]
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return hour, minute, rest[0] if rest else 0


def _offset_s(parts: Mapping[str, str | None]) -> int:
    zone = re.sub(r"[:\s]|(?:UTC|GMT)(?=[\s+-])", "", parts.get("zone") or "", flags=re.IGNORECASE)
    if zone[:1] not in ("+", "-"):
        named = (parts.get("zone") or "").upper()
        return _ZONES_H.get(named, 0) * 3600
    digits = zone[1:]
    hours, minutes = (digits, "0") if len(digits) < 3 else (digits[:-2], digits[-2:])
    return (1 if zone[0] == "+" else -1) * (int(hours) * 3600 + int(minutes) * 60)


def _ahead(at: float | None, now_s: float) -> float | None:
    return at - now_s if at is not None and math.isfinite(at) and 0 < at - now_s <= MAX_DELAY_S else None
