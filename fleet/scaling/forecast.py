"""How many tasks a second will come: a short average, lifted by yesterday's shape where days are alike. Pure.

Holt's trend was measured to add little over an average (EVIDENCE), so there is none. The season is looked for in whole
hours: what rises within minutes of one hour is seen as it comes, not before.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Minutes after which a minute counts half: long enough that chance of a minute moves nothing, short beside a rush.
HALF_LIFE_MIN = 2.0
#: Minutes of the average at most.
MOST_MINUTES = 10
#: Minutes that bursts are looked for in, at most and at least: of fewer than these nobody can tell.
BURST_MINUTES, LEAST_MINUTES = 30, 4
#: Most that bursts may count: beyond, what is wanted is a fixed size.
MOST_BURSTY = 400.0
#: Hours of a season.
SEASON_H = 24
#: Yesterday's hour must tell of today's with this share of the error that the hour before makes, or less.
IS_SEASON = 0.7
#: Hours that must be compared at least before a season is believed.
COMPARED_H = 12
#: Most that yesterday's shape may multiply the average by: one odd hour shall not buy a hundred workers.
MOST_LIFT = 2.0


def arrivals(minutes: Sequence[float]) -> float:
    """Return the tasks a second of the last minutes, the latest counting most; 0 without any."""
    recent = minutes[-MOST_MINUTES:]
    weights = [0.5 ** (age / HALF_LIFE_MIN) for age in range(len(recent) - 1, -1, -1)]
    return sum(w * n for w, n in zip(weights, recent, strict=True)) / sum(weights) / 60 if recent else 0.0


def burstiness(minutes: Sequence[float]) -> float:
    """Return how much more the minutes vary than chance has it (Poisson: 1): variance over mean, of steps not levels.

    The peakedness of teletraffic (Hayward's approximation), estimated from the squares of the steps between minutes, so
    that a slow rise counts as none.
    """
    seen = minutes[-BURST_MINUTES:]
    mean = sum(seen) / len(seen) if seen else 0.0
    if len(seen) < LEAST_MINUTES or mean <= 0:
        return 1.0
    steps = sum((one - other) ** 2 for one, other in zip(seen[1:], seen, strict=False)) / (len(seen) - 1)
    return min(MOST_BURSTY, max(1.0, steps / 2 / mean))


def is_seasonal(hours: Sequence[float]) -> bool:
    """True when yesterday's hours tell of today's better than the hour before each of them does."""
    compared = range(SEASON_H, len(hours))
    if len(compared) < COMPARED_H:
        return False
    by_day = sum(abs(hours[at] - hours[at - SEASON_H]) for at in compared)
    by_hour = sum(abs(hours[at] - hours[at - 1]) for at in compared)
    return by_day < IS_SEASON * by_hour


def lift(hours: Sequence[float], at: float, lead_s: float) -> float:
    """Return by how much yesterday rose within `lead_s` at this time of day; 1: it did not, or there is no season.

    Args:
        hours: Tasks of each of the last whole hours, the oldest first.
        at: Unix time.
        lead_s: Seconds.
    """
    if not is_seasonal(hours):
        return 1.0
    hour = at / 3600 % 1
    now, then = _yesterday(hours, hour), _yesterday(hours, hour + lead_s / 3600)
    return min(MOST_LIFT, max(1.0, then / now)) if now > 0 else 1.0


def _yesterday(hours: Sequence[float], hour: float) -> float:
    """Return the tasks an hour a day ago, `hour` hours after this one began: between the middles of two hours."""
    whole, part = divmod(hour - 0.5, 1)
    first = min(len(hours) - SEASON_H + int(whole), len(hours) - 1)
    return hours[first] * (1 - part) + hours[min(first + 1, len(hours) - 1)] * part
