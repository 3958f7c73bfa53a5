"""When a provider says to come back: `retry-after-ms`, `retry-after`, else the reset headers of either vendor.

Pure functions of headers and time. A value that makes no sense counts as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Longest wait that is believed, in seconds (1 day): a wrong clock over there must not stop a fleet for years.
MAX_RETRY_AFTER_S = 86_400.0
#: What OpenAI and Anthropic call the things they count.
_FAMILIES = (
    ("x-ratelimit-remaining-{}", "x-ratelimit-reset-{}", ("requests", "tokens")),
    (
        "anthropic-ratelimit-{}-remaining",
        "anthropic-ratelimit-{}-reset",
        ("requests", "tokens", "input-tokens", "output-tokens"),
    ),
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|h|m|s|d)")
_UNITS_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def read_retry_after(headers: Mapping[str, str], *, now_s: float, resets: bool = True) -> float | None:
    """Return the seconds a provider asks to wait, or None when it does not say.

    Args:
        headers: Of the answer; names in any case when the mapping allows it, else lower case.
        now_s: Unix time, for dates when the answer has no `date` of its own.
        resets: Also read the reset headers, which say when an exhausted limit is full again: of the exhausted ones
            the latest, or of all when none is at 0 (then one call was larger than what remained).
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        seconds = read_number(headers.get(name))
        if seconds is not None:
            return _bounded(seconds * scale)
    now_s = read_date(headers.get("date")) or now_s
    at = read_date(headers.get("retry-after"))
    if at is not None:
        return _bounded(at - now_s)
    return _bounded(_latest_reset(headers, now_s)) if resets else None


def read_duration(text: str | None) -> float | None:
    """Return the seconds of a Go-style duration such as `1.2s`, `6m0s` or `120ms`, or of a plain number."""
    if text is None:
        return None
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return read_number(text)


def _latest_reset(headers: Mapping[str, str], now_s: float) -> float | None:
    all_resets: list[float] = []
    exhausted: list[float] = []
    for remaining, reset, names in _FAMILIES:
        for name in names:
            text = headers.get(reset.format(name))
            seconds = read_duration(text)
            if seconds is None:
                at = read_rfc3339(text)
                seconds = None if at is None else at - now_s
            if seconds is None or seconds < 0:
                continue
            all_resets.append(seconds)
            left = read_number(headers.get(remaining.format(name)))
            if left is not None and left <= 0:
                exhausted.append(seconds)
    return max(exhausted or all_resets, default=None)


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


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
