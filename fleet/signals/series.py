"""The minutes and hours of pools as they are read: one array of numbers for each pool, summed over pools by number.

A ring of minutes, then a ring of hours (`windows.py`). In arrays, because with 1,000 pools 112,000 periods would keep
Python's garbage collector busy for longer than all sums take. Right on the little-endian machines that Fleet runs on.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fleet.signals.windows import HOURS, MINUTES, PERIOD, Period

_WIDTH = len(Period._fields)
_BYTES = (MINUTES + HOURS) * PERIOD.size
_OK, _DEGRADED, _COST = map(Period._fields.index, ("ok", "degraded", "cost_usd_micros"))
_MINUTE_PLACES = range(0, MINUTES * _WIDTH, _WIDTH)
_HOUR_PLACES = range(MINUTES * _WIDTH, (MINUTES + HOURS) * _WIDTH, _WIDTH)
#: Seconds that a rate is taken over at least: one task a moment ago is no rate.
LEAST_SPAN_S = 10.0
#: Minutes of an hour, hours of a day.
_MINUTES_EACH, _HOURS_EACH = 60, 24


def series_of(raw: bytes) -> array[float]:
    """Return what Redis has of a pool; what was never written is 0."""
    whole = raw[: len(raw) - len(raw) % PERIOD.size]
    return array("d", whole[:_BYTES].ljust(_BYTES, b"\0"))


def minutes_in(series: Sequence[array[float]], now_s: float) -> dict[int, Period]:
    """Return the sum over pools of each of the minutes (since 1970) that the rings have place for, the oldest first."""
    last = int(now_s // 60)
    numbers = range(last - MINUTES + 1, last + 1)
    return {number: _summed(number, _rows(series, _MINUTE_PLACES[number % MINUTES], number)) for number in numbers}


def hours_in(series: Sequence[array[float]], minutes: Mapping[int, Period], numbers: range) -> list[Period]:
    """Return the sum over pools of each hour: those that were folded, and the minutes that wait to be.

    Args:
        series: Of the pools.
        minutes: Their sums, as `minutes_in` told them.
        numbers: Of the hours, since 1970.
    """
    found: dict[int, list[Iterable[float]]] = {
        number: list(_rows(series, _HOUR_PLACES[number % HOURS], number)) for number in numbers
    }
    for number, of_all in minutes.items():
        if number // _MINUTES_EACH in found:
            found[number // _MINUTES_EACH].append(of_all)
        at = _MINUTE_PLACES[number % MINUTES]
        for one in series:  # a minute of hours ago is folded when its place is needed
            if one[at] != number and (same := found.get(int(one[at]) // _MINUTES_EACH)) is not None:
                same.append(one[at : at + _WIDTH])
    return [_summed(number, parts) for number, parts in found.items()]


def day_in(series: Sequence[array[float]], minutes: Mapping[int, Period], *, now_s: float) -> dict[int, Period]:
    """Return the last 24 hours by their number, the oldest first, the one that runs last; else as `hours_in`."""
    last = int(now_s // 3600)
    numbers = range(last - _HOURS_EACH + 1, last + 1)
    return dict(zip(numbers, hours_in(series, minutes, numbers), strict=True))


def last_hour(one: array[float], *, now_s: float) -> Period:
    """Return the sums of a pool's last 60 minutes, the one that runs among them."""
    return last_minutes(one, now_s=now_s, count=_MINUTES_EACH)


def last_minutes(one: array[float], *, now_s: float, count: int) -> Period:
    """Return the sums of a pool's last minutes (at most 60), the one that runs among them; zeros of an empty array."""
    last = int(now_s // 60)
    places = _MINUTE_PLACES if one else ()
    return _summed(0, [one[at : at + _WIDTH] for at in places if last - count < one[at] <= last])


def rate_now(one: array[float], field: str, *, minutes: int, now_s: float) -> float:
    """Return what a pool counts a second, over its last minutes, from the first of them in which it counted anything.

    Args:
        one: Of the pool.
        field: What is counted, as `Period` calls it.
        minutes: How many are looked at, the one that runs among them.
        now_s: Unix time.
    """
    last, place = int(now_s // 60), Period._fields.index(field)
    counted = {
        one[at]: one[at + place] for at in _MINUTE_PLACES if last - minutes < one[at] <= last and one[at + place]
    }
    return sum(counted.values()) / max(LEAST_SPAN_S, now_s - min(counted) * 60) if counted else 0.0


def cost_of_answer(one: array[float]) -> float | None:
    """Return the micro-dollars that an answered task of a pool has cost on average, what failed beside it included.

    Over all that the rings still hold: about two days. None: nothing was answered.
    """
    places = [*_MINUTE_PLACES, *_HOUR_PLACES]
    answered = sum(one[at + _OK] + one[at + _DEGRADED] for at in places)
    return sum(one[at + _COST] for at in places) / answered if answered else None


def spent_in(one: array[float], hours: range) -> float:
    """Return the micro-dollars that a pool has spent in these hours (since 1970)."""
    first, last = hours[0], hours[-1]
    folded = sum(one[at + _COST] for at in _HOUR_PLACES if first <= one[at] <= last)
    return folded + sum(one[at + _COST] for at in _MINUTE_PLACES if first <= one[at] // _MINUTES_EACH <= last)


def _rows(series: Iterable[array[float]], at: int, number: int) -> Iterator[array[float]]:
    return (one[at : at + _WIDTH] for one in series if one[at] == number)


def _summed(number: int, rows: Iterable[Iterable[float]]) -> Period:
    sums: list[float] = list(map(sum, zip(*rows, strict=True)))
    return Period(number, *(sums or [0.0] * _WIDTH)[1:])
