"""What an answer's headers say of a key's rates, in the forms of all vendors and proxies (`names.py`).

A pure function of headers and time. A value that makes no sense counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet.rates import RateReading, RateReadings
from fleet.workers.providers.rates.names import (
    HOUR_S,
    LIMIT,
    MINUTE_S,
    PERIOD,
    POLICY,
    REMAINING,
    REQUESTS,
    RESET,
    TOKENS,
    TOKENS_A_SECOND,
    Meaning,
    meaning_of,
)
from fleet.workers.providers.rates.retry_after import AnswerClock, read_duration, read_number, read_reset

#: A limit of so much is none: proxies say the largest integer.
UNLIMITED = 1e12
#: Periods up to this one, in seconds, are told as a minute: its rate, and what is left of it now.
LONGEST_MINUTE_S = 2 * MINUTE_S
#: Places of a reading in `RateReadings`: a minute, an hour (and up to two), a day or longer.
_MINUTE, _HOUR, _DAY = 0, 4, 8
#: What the IETF's drafts call limit, remaining, reset and window, in the order of fields.
_SHORT = {"q": LIMIT, "limit": LIMIT, "r": REMAINING, "remaining": REMAINING, "t": RESET, "reset": RESET, "w": PERIOD,
          "window": PERIOD}  # fmt: skip
_PART = re.compile(r"""\s*([a-z]+)\s*=\s*"?([^";,]*)"?\s*""")
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+")
_NOT_SAID = RateReading()


@dataclass(slots=True)
class _Told:
    """The headers of one rate, one scope and one period, as they came."""

    told_by: int
    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    period_s: float | None = None

    def put(self, field: int, text: str, clock: AnswerClock, *, in_ms: bool) -> None:
        """Take the value of one header; what was told before stays."""
        if field == RESET:
            self.reset_s = read_reset(text, clock, in_ms=in_ms) if self.reset_s is None else self.reset_s
        elif field == PERIOD:
            self.period_s = read_duration(text) or self.period_s
        elif field == REMAINING:
            self.remaining = _amount(text) if self.remaining is None else self.remaining
        elif self.limit is None and (amount := _amount(text)) is not None:
            self.limit, self.period_s = amount, _window_of(text, amount) or self.period_s


def read_rates(headers: Mapping[str, str], *, now_s: float) -> RateReadings | None:
    """Return what the headers say, or None when they say nothing of any rate.

    Where several limits are told of one rate (of a key, of a model per key, ...), the least of each number is returned.

    Args:
        headers: Of the answer.
        now_s: Unix time, for resets that are dates.
    """
    said = [(meaning, value) for name, value in headers.items() if (meaning := meaning_of(name)) is not None]
    if not said:
        return None
    clock = AnswerClock(headers, now_s)
    found: dict[int, list[_Told]] = {}
    for (what, _, _), told in _grouped(said, clock).items():
        if told.limit is not None or told.remaining is not None:
            found.setdefault(what + _place(told.period_s), []).append(told)
    if not found:
        return None
    return tuple([_least(found.get(place, ())) for place in range(4 if max(found) < _HOUR else 12)])


def _grouped(said: list[tuple[Meaning, str]], clock: AnswerClock) -> dict[tuple[int, str, float | None], _Told]:
    """Put together what belongs to one limit."""
    groups: dict[tuple[int, str, float | None], _Told] = {}
    a_second = any(meaning.scope == TOKENS_A_SECOND for meaning, _ in said)
    for meaning, value in said:
        if meaning.field >= POLICY:
            _read_draft(groups, meaning, value, clock)
            continue
        period_s = meaning.period_s
        if a_second and period_s is None and (meaning.what == REQUESTS or meaning.scope == TOKENS_A_SECOND):
            period_s = 1.0
        key = meaning.what, meaning.scope, period_s
        told = groups.get(key)
        if told is None:
            told = groups[key] = _Told(meaning.told_by, period_s=period_s)
        told.put(meaning.field, value, clock, in_ms=meaning.in_ms)
    return groups


def _read_draft(
    groups: dict[tuple[int, str, float | None], _Told], meaning: Meaning, value: str, clock: AnswerClock
) -> None:
    """Read `RateLimit` or `RateLimit-Policy`, in the forms of the IETF's drafts; policies are known by their names."""
    for item in value.split(","):
        head = item.split(";")[0].strip().strip('"') if "=" not in item.split(";")[0] else ""
        parts = dict(_PART.findall(item))
        if "concurren" in parts.get("qu", ""):
            continue
        if meaning.field == POLICY and head.isdigit():  # `100;w=60`: the older drafts name the limit and the window
            parts["q"], head = head, parts.get("w", "")
        what = TOKENS if "token" in f"{head} {parts.get('qu', '')}" else meaning.what
        key = what, f"draft {head}", None
        told = groups.setdefault(key, _Told(meaning.told_by))
        for name, text in parts.items():
            if name in _SHORT:
                told.put(_SHORT[name], text, clock, in_ms=False)


def _place(period_s: float | None) -> int:
    if period_s is None or period_s <= LONGEST_MINUTE_S:
        return _MINUTE
    return _HOUR if period_s <= 2 * HOUR_S else _DAY


def _least(told: Iterable[_Told]) -> RateReading:
    """Return the least that the limits of one rate leave; those told of behind a proxy count when no others do."""
    limits = [_a_minute(one) for one in told]
    if not limits:
        return _NOT_SAID
    if len(limits) == 1:
        (one,) = limits
        return RateReading(one.limit or None, one.remaining, one.reset_s, one.period_s)
    nearest = min(one.told_by for one in limits)
    limits = [one for one in limits if one.told_by == nearest]
    tightest = min(limits, key=lambda one: (one.remaining is None, one.remaining or 0.0, one.limit or UNLIMITED))
    limit = min((one.limit for one in limits if one.limit), default=None)
    return RateReading(limit, tightest.remaining, tightest.reset_s, tightest.period_s)


def _a_minute(told: _Told) -> _Told:
    """Tell the rate of a short period as that of a minute."""
    if told.period_s is not None and 0 < told.period_s <= LONGEST_MINUTE_S:
        told.limit = None if told.limit is None else told.limit * MINUTE_S / told.period_s
        told.period_s = MINUTE_S
    return told


def _amount(text: str) -> float | None:
    """Return the number that a value begins with: `100`, `10,000`, or the first of `100, 100;w=60, 1000;w=3600`."""
    amount = read_number(text)
    if amount is None:
        is_grouped = _GROUPED.fullmatch(text.strip())
        amount = read_number(text.replace(",", "") if is_grouped else re.split("[,;]", text, maxsplit=1)[0])
    return amount if amount is not None and amount < UNLIMITED else None


def _window_of(text: str, amount: float) -> float | None:
    """Return the window that such a list gives for its first number, in seconds."""
    for item in text.split(",") if ";" in text else ():
        head, _, rest = item.partition(";")
        if read_number(head) == amount:
            for name, number in _PART.findall(rest):
                if _SHORT.get(name) == PERIOD:
                    return read_number(number)
    return None
