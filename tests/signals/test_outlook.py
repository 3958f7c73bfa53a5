"""When a backlog is gone and when a budget ends, in words: pure, with the clock handed in."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from fleet.signals.ahead.outlook import budget_ends_at, drain_of, told_budget
from fleet.signals.series import cost_of_answer, rate_now, series_of
from fleet.signals.windows import MINUTES, PERIOD, Period

NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC
HOUR = 3600.0


@pytest.mark.parametrize(
    ("tasks", "per_s", "why", "short", "line", "left_s"),
    [
        (0, 2.0, {}, "", "", None),
        (1200, 2.0, {}, "10 min", "10 min at 2.0 a second", 600),
        (30, 0.5, {}, "60 s", "60 s at 30.0 a minute", 60),
        (100, 0.0, {}, "unknown", "nothing was finished in the last minutes", None),
        (1200, 2.0, {"cause": "limit", "stopped": 1200}, "10 min", "10 min at 2.0 a second", 600),
        (100, 1.0, {"cause": "operator", "stopped": 100}, "stands still", "stands still: operator", None),
        (100, 1.0, {"cause": "operator", "stopped": 10}, "100 s", "100 s at 1.0 a second", 100),
        (
            600, 1.0, {"cause": "money", "stopped": 600, "opens_at": NOON + 9000},
            "opens 14:30 UTC", "opens 14:30 UTC, then 10 min", 9600,
        ),
        (
            600, 0.0, {"cause": "money", "stopped": 600, "opens_at": NOON + 13 * HOUR},
            "opens 2027-01-16 01:00 UTC", "opens 2027-01-16 01:00 UTC", None,
        ),
        (9, 1.0, {"cause": "outage", "stopped": 9, "opens_at": NOON - 5}, "stands still", "stands still: outage", None),
        (9, 1.0, {"cause": "key", "stopped": 9, "opens_at": NOON + 58}, "stands still", "stands still: key", None),
    ],
)  # fmt: skip
def test_a_pool_says_when_what_waits_in_it_is_gone(
    tasks: int, per_s: float, why: dict[str, Any], short: str, line: str, left_s: float | None
) -> None:
    drain = drain_of(tasks, per_s, now_s=NOON, **why)
    assert (drain.short, drain.line, drain.left_s) == (short, line, left_s)


@pytest.mark.parametrize(
    ("used", "allowed", "per_s", "told"),
    [
        (1.27, 2.0, 0.73 / (7 * HOUR + 40 * 60), "$1.27 of $2.00, at this pace ends 19:40 UTC"),
        (1.0, 2.0, None, "$1.00 of $2.00, lasts the day at this pace"),  # as much again by midnight, and no more
        (1.5, 2.0, None, "$1.50 of $2.00, at this pace ends 16:00 UTC"),
        (1.0, 2.0, 0.0, "$1.00 of $2.00, lasts the day at this pace"),
        (0.0, 2.0, 0.0, "$0.00 of $2.00, lasts the day at this pace"),
        (2.01, 2.0, 1.0, "$2.01 of $2.00, used up until 2027-01-16 00:00 UTC"),
        (0.0221, 0.2, 0.0, "$0.0221 of $0.20, lasts the day at this pace"),
        (0.00002, 0.2, 0.0, "<$0.0001 of $0.20, lasts the day at this pace"),
    ],
)
def test_a_budget_says_when_it_ends_at_this_pace(used: float, allowed: float, per_s: float | None, told: str) -> None:
    assert told_budget(used, allowed, now_s=NOON, per_s=per_s) == told


def test_a_budget_of_requests_is_told_in_requests_and_a_young_day_knows_no_pace_of_its_own() -> None:
    line = told_budget(800, 1000, now_s=NOON, per_s=200 / HOUR, unit="requests")
    assert line == "800 of 1,000 requests, at this pace ends 13:00 UTC"
    midnight = NOON + 12 * HOUR
    assert budget_ends_at(0.001, 2.0, now_s=midnight + 0.5) is None  # 0.001 in half a second is no $172 a day


def series(*minutes: tuple[float, float], ok: float = 0) -> array[float]:
    """Return the ring of a pool with (minutes before noon, completions) and micro-dollars of 10 each."""
    ring = bytearray(PERIOD.size * MINUTES)
    for before, done in minutes:
        number = NOON // 60 - before
        one = Period(*[0.0] * len(Period._fields))._replace(
            number=number, completions=done, ok=ok if ok else done, cost_usd_micros=10 * done
        )
        at = int(number % MINUTES) * PERIOD.size
        ring[at : at + PERIOD.size] = PERIOD.pack(*one)
    return series_of(bytes(ring))


def test_a_rate_is_taken_from_the_first_minute_in_which_anything_was_done() -> None:
    now_s = NOON + 30
    assert rate_now(series((0, 30)), "completions", minutes=5, now_s=now_s) == 1.0
    assert rate_now(series((2, 100), (1, 100), (0, 50)), "completions", minutes=5, now_s=now_s) == 250 / 150
    assert rate_now(series((9, 100)), "completions", minutes=5, now_s=now_s) == 0.0
    assert rate_now(series((0, 5)), "completions", minutes=5, now_s=NOON + 1) == 0.5  # over 10 s at least


def test_what_an_answer_costs_counts_what_failed_beside_it() -> None:
    assert cost_of_answer(series((0, 10), (5, 10))) == 10.0
    assert cost_of_answer(series((0, 10), ok=5)) == 20.0
    assert cost_of_answer(series_of(b"")) is None
