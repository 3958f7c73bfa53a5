"""When a provider says to come back: `retry-after-ms`, `retry-after`, else the reset headers of all vendors.

Pure functions of headers and time. A value that makes no sense counts as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from fleet.workers.providers.rates.names import REMAINING, RESET, meaning_of

#: Longest wait that is believed, in seconds (1 day): a wrong clock over there must not stop a fleet for years.
MAX_RETRY_AFTER_S = 86_400.0
#: Longest reset that is believed, in seconds (40 days, for limits a month).
MAX_RESET_S = 40 * 86_400.0
#: A reset so long ago, in seconds, is over; one before that is nonsense.
_JUST_NOW_S = 60.0
#: Seconds by which the provider's `date` may differ from ours before resets are read by its clock: `date` has whole
#: seconds only, which would spoil a reset of a tenth of one.
_SKEW_S = 5.0
#: Where a wait is told, and what a plain number counts there, in seconds. A proxy hands on its provider's as the last.
_WAITS = (
    ("retry-after-ms", 1e-3), ("retry-after", 1.0), ("x-ratelimit-timeremaining", 1.0),
    ("llm_provider-retry-after", 1.0),
)  # fmt: skip
#: Units in which numbers are times since 1970, and how near to now one has to be to be taken for one, in seconds.
_EPOCH_UNITS_S, _NEAR_S, _LEAST_EPOCH = (1.0, 1e-3, 1e-6, 1e-9), 400 * 86_400.0, 1e8
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d)")
_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class AnswerClock:
    """The time by which an answer's dates are read: ours, or that of its `date` where the two are far from each other.

    Read only when asked for: most answers have no dates in their limits.

    Args:
        headers: Of the answer.
        now_s: Unix time, ours.
        skew_s: Seconds by which the two may differ.
    """

    __slots__ = ("_headers", "_now_s", "_ours_s", "_skew_s")

    def __init__(self, headers: Mapping[str, str], now_s: float, *, skew_s: float = _SKEW_S) -> None:
        self._headers, self._ours_s, self._skew_s = headers, now_s, skew_s
        self._now_s: float | None = None

    def now_s(self) -> float:
        """Return the Unix time."""
        if self._now_s is None:
            theirs = read_date(self._headers.get("date"))
            is_far = theirs is not None and abs(theirs - self._ours_s) > self._skew_s
            self._now_s = theirs if theirs is not None and is_far else self._ours_s
        return self._now_s


def read_retry_after(headers: Mapping[str, str], *, now_s: float, resets: bool = True) -> float | None:
    """Return the seconds a provider asks to wait, or None when it does not say.

    Args:
        headers: Of the answer; names in any case when the mapping allows it, else lower case.
        now_s: Unix time, for dates when the answer has no `date` of its own.
        resets: Also read the reset headers, which say when an exhausted limit is full again: of the exhausted ones
            the latest, or of all when none is at 0 (then one call was larger than what remained).
    """
    clock = AnswerClock(headers, now_s, skew_s=0.0)
    for name, unit_s in _WAITS:
        seconds = _wait_s(headers.get(name), unit_s, clock)
        if seconds is not None:
            return min(seconds, MAX_RETRY_AFTER_S)
    latest = _latest_reset(headers, clock) if resets else None
    return None if latest is None else min(latest, MAX_RETRY_AFTER_S)


def _wait_s(text: str | None, unit_s: float, clock: AnswerClock) -> float | None:
    """Return a wait; a time that is over is one of 0, and one that is too long is cut by the caller."""
    number = read_number(text)
    if number is not None:
        seconds = _until_epoch(number, clock)
        return max(0.0, number * unit_s if seconds is None else seconds)
    seconds = read_duration(text)
    if seconds is None:
        at = _read_moment(text)
        seconds = None if at is None else max(0.0, at - clock.now_s())
    return seconds


def read_reset(text: str | None, clock: AnswerClock, *, in_ms: bool = False) -> float | None:
    """Return the seconds until a reset, or None when the text tells no believable one.

    Args:
        text: Seconds, a duration, or a time: RFC 3339, an HTTP date, or seconds, ms, us or ns since 1970.
        clock: What times are read by.
        in_ms: A plain number is milliseconds.
    """
    number = read_number(text)
    if number is not None:
        seconds = _until_epoch(number, clock)
        if seconds is None:
            seconds = number * 1e-3 if in_ms else number
    else:
        seconds = read_duration(text)
        if seconds is None:
            at = _read_moment(text)
            seconds = None if at is None else at - clock.now_s()
    if seconds is None or not -_JUST_NOW_S <= seconds <= MAX_RESET_S:
        return None
    return max(0.0, seconds)


def _until_epoch(number: float, clock: AnswerClock) -> float | None:
    """Return the seconds until a time since 1970; None for a number that is none near now."""
    if number >= _LEAST_EPOCH:
        for unit_s in _EPOCH_UNITS_S:
            seconds = number * unit_s - clock.now_s()
            if abs(seconds) < _NEAR_S:
                return seconds
    return None


def read_duration(text: str | None) -> float | None:
    """Return the seconds of a Go-style duration such as `1.2s`, `6m0s` or `120ms`, or of a plain number."""
    if text is None:
        return None
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return read_number(text)


def _latest_reset(headers: Mapping[str, str], clock: AnswerClock) -> float | None:
    resets: dict[object, float] = {}
    exhausted: set[object] = set()
    for name, text in headers.items():
        meaning = meaning_of(name)
        if meaning is None:
            continue
        rate = meaning.what, meaning.scope, meaning.period_s
        if meaning.field == RESET:
            seconds = read_reset(text, clock, in_ms=meaning.in_ms)
            if seconds is not None and (seconds > 0 or read_number(text) is not None):
                resets[rate] = seconds
        elif meaning.field == REMAINING and read_number(text) == 0:
            exhausted.add(rate)
    return max([resets[rate] for rate in exhausted & resets.keys()] or resets.values(), default=None)


def _read_moment(text: str | None) -> float | None:
    at = read_rfc3339(text)
    return read_date(text) if at is None else at


def read_number(text: str | None) -> float | None:
    """Return a finite number from 0 on, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def read_date(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date, or None."""
    try:
        at = parsedate_to_datetime(text or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def read_rfc3339(text: str | None) -> float | None:
    """Return the Unix time of a date such as `2026-01-01T00:00:00Z`, or None."""
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
