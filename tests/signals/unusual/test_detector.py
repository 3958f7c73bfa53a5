"""What is told of counts: sustained use far beyond the usual, and nothing else. Seeded; time comes as looks."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fleet.signals.unusual.detector import FEWEST_LOOKS, LOOKS_A_MINUTE, Usual, threshold
from tests.keys.anomaly import poisson

ALARM_AT, AN_HOUR = threshold(101), 60 * LOOKS_A_MINUTE


def used(looks: int, mean: float, *, usual: Usual | None = None, start: int = 0, batch: int = 1) -> Usual:
    """Return what is usual after so many looks of Poisson arrivals, in batches."""
    draw, usual = random.Random(start), usual or Usual()
    for number in range(start, start + looks):
        calls = batch * poisson(mean / batch, draw)
        usual.look(calls, hour=number // AN_HOUR % 24, alarm_at=ALARM_AT)
    return usual


def looks_until(usual: Usual, calls: Callable[[], float], most: int = 360) -> int:
    """Return after how many looks there is an alarm; `most`: there is none."""
    for number in range(most):
        if usual.look(calls(), hour=3, alarm_at=ALARM_AT) >= ALARM_AT:
            return number + 1
    return most


@pytest.mark.parametrize(("mean", "within"), [(0.3, 24), (5, 5), (500, 5)])
def test_ten_times_the_usual_use_is_told_within_two_minutes(mean: float, within: int) -> None:
    draw, usual = random.Random(1), used(3 * AN_HOUR, mean)
    assert usual.evidence < ALARM_AT / 2
    assert FEWEST_LOOKS <= looks_until(usual, lambda: poisson(10 * mean, draw)) <= within


def test_one_batch_of_any_size_is_no_alarm() -> None:
    usual = used(3 * AN_HOUR, 5)
    usual.look(100_000, hour=3, alarm_at=ALARM_AT)
    assert 0 < usual.evidence < ALARM_AT
    assert used(60, 5, usual=usual, start=3 * AN_HOUR).evidence == 0


def test_arrivals_in_batches_raise_no_alarm_in_a_day() -> None:
    worst = 0.0
    draw, usual = random.Random(5), Usual()
    for number in range(24 * AN_HOUR):
        calls = 50 * poisson(0.05, draw)
        worst = max(worst, usual.look(calls, hour=number // AN_HOUR, alarm_at=ALARM_AT))
    assert worst < ALARM_AT
    assert usual.overdispersion > 10


def test_a_bot_whose_rare_tasks_make_thirty_calls_in_a_minute_raises_no_alarm_in_a_day() -> None:
    draw, usual, worst, until = random.Random(5), Usual(knows_days=False), 0.0, -1
    for number in range(24 * AN_HOUR):
        if draw.random() < 1 / (20 * LOOKS_A_MINUTE):
            until = number + LOOKS_A_MINUTE
        calls = poisson(2.5, draw) if number < until else 0
        worst = max(worst, usual.look(calls, hour=0, alarm_at=ALARM_AT))
    assert usual.is_warm
    assert worst < ALARM_AT


def test_what_all_others_of_a_pool_do_as_well_is_no_reproach() -> None:
    usual = used(3 * AN_HOUR, 0.3)
    for _ in range(60):
        usual.look(3, hour=3, alarm_at=ALARM_AT, growth=10)
    assert usual.evidence < ALARM_AT / 2


def test_the_morning_of_a_second_day_is_usual() -> None:
    usual = Usual()
    for day in range(2):
        for hour in range(24):
            used(AN_HOUR, 20.0 if 8 <= hour < 18 else 0.0, usual=usual, start=(day * 24 + hour) * AN_HOUR)
            assert usual.evidence < ALARM_AT, (day, hour)


def test_nobody_is_accused_before_an_hour_of_use_is_known() -> None:
    usual = Usual()
    for _ in range(5 * AN_HOUR):
        usual.look(0, hour=3, alarm_at=ALARM_AT)
    assert not usual.is_warm
    assert looks_until(usual, lambda: 100, most=AN_HOUR - LOOKS_A_MINUTE) == AN_HOUR - LOOKS_A_MINUTE


def test_what_is_under_suspicion_teaches_nothing() -> None:
    usual = used(3 * AN_HOUR, 5)
    looks_until(usual, lambda: 50)
    before = usual.rate
    looks_until(usual, lambda: 50, most=AN_HOUR)
    assert usual.rate == before < 8
