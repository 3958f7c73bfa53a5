"""What an answer's headers say of a key's rates: OpenAI's `x-ratelimit-*` and Anthropic's `anthropic-ratelimit-*`.

A pure function of headers and time. A value that makes no sense counts as not said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fleet.rates import RateReading, RateReadings
from fleet.workers.providers.retry_after import read_date, read_duration, read_number, read_rfc3339

#: What is counted, in the order of `RateReadings`.
_WHAT = ("requests", "tokens", "input-tokens", "output-tokens")
#: Header names of each in both families: limit, remaining, reset.
_NAMES = tuple(
    (
        tuple(f"x-ratelimit-{field}-{what}" for field in ("limit", "remaining", "reset")),
        tuple(f"anthropic-ratelimit-{what}-{field}" for field in ("limit", "remaining", "reset")),
    )
    for what in _WHAT
)
#: Seconds by which the provider's `date` may differ from ours before resets are read by its clock: `date` has whole
#: seconds only, which would spoil a reset of a tenth of one.
_SKEW_S = 5.0
_NOT_SAID = RateReading()


def read_rates(headers: Mapping[str, str], *, now_s: float) -> RateReadings | None:
    """Return what the headers say, or None when they say nothing of any rate.

    Args:
        headers: Of the answer; names in any case when the mapping allows it, else lower case.
        now_s: Unix time, for resets that are dates.
    """
    theirs = read_date(headers.get("date"))
    if theirs is not None and abs(theirs - now_s) > _SKEW_S:
        now_s = theirs
    requests, tokens, given, made = (_read(headers, families, now_s) for families in _NAMES)
    if requests is tokens is given is made is _NOT_SAID:
        return None
    return requests, tokens, given, made


def _read(headers: Mapping[str, str], families: tuple[tuple[str, ...], ...], now_s: float) -> RateReading:
    for limit, remaining, reset in families:
        allowed, left = read_number(headers.get(limit)), read_number(headers.get(remaining))
        if allowed is not None or left is not None:
            return RateReading(allowed or None, left, _reset_s(headers.get(reset), now_s))
    return _NOT_SAID


def _reset_s(text: str | None, now_s: float) -> float | None:
    seconds = read_duration(text)
    if seconds is None:
        at = read_rfc3339(text)
        seconds = None if at is None else at - now_s
    return max(0.0, seconds) if seconds is not None and math.isfinite(seconds) else None
