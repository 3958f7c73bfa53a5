"""A limit that is full is told without a break, though minutes differ and for moments nobody waits; then it ends."""

from __future__ import annotations

import random

import pytest

from fleet.signals.diagnosis.engine import diagnose
from fleet.signals.diagnosis.symptoms import Symptoms
from fleet.signals.view import FleetView
from tests.signals.played_fleet import NOW_S, minutes_of_pool, steady, symptoms_of, view_of, wait_line

ALPHA = "alpha/m-1/default"
WAITING = [wait_line("research", "limit", 40, about=ALPHA)]


def used(*shares: float) -> Symptoms:
    """Return an hour in which so many of a hundred calls a minute were used, the last whole minute last."""
    rows = {ago: {**steady()[0], "calls": 100.0 * share} for ago, share in enumerate(reversed(shares), 1)}
    return symptoms_of(series={"research": minutes_of_pool(rows)})


def is_told(symptoms: Symptoms, view: FleetView | None = None) -> bool:
    found = diagnose(view_of(waits=WAITING) if view is None else view, symptoms)
    return "limit_saturated" in [one.kind for one in found]


@pytest.mark.parametrize("seed", range(5))
def test_a_full_limit_is_told_in_every_minute_though_calls_count_when_their_tasks_end(seed: int) -> None:
    draw, shares, owed = random.Random(seed), list[float](), 0.0
    for _ in range(59):  # what ends late in one minute is there in the next
        late = draw.uniform(0.0, 0.35)
        shares.append(0.98 - late + owed)
        owed = late
    told = [is_told(used(*shares[:minutes])) for minutes in range(7, 60)]
    assert told == [True] * len(told)


def test_it_begins_with_five_full_minutes_and_ends_with_two_that_are_not() -> None:
    idle, full = [0.2] * 20, [1.0] * 5
    assert not is_told(used(*idle, *full[:4])) and is_told(used(*idle, *full))
    assert is_told(used(*idle, *full, 0.5)), "one odd minute"
    assert not is_told(used(*idle, *full, 0.4, 0.4)) and not is_told(used(*idle, *full, 0.4, 0.4, *full[:4]))


@pytest.mark.parametrize(("seen", "still"), [((40, 12), True), ((40, 0), True), ((0, 0), False), ((), False)])
def test_it_lasts_while_tasks_have_waited_lately(seen: tuple[int, ...], still: bool) -> None:
    last = int(NOW_S // 60)
    backlogs = {"research": tuple((last - len(seen) + n, tasks) for n, tasks in enumerate(seen, 1))}
    symptoms = Symptoms(series=used(*[1.0] * 30).series, backlogs=backlogs)
    assert is_told(symptoms, view_of()) is still


def test_minutes_that_used_more_than_the_limit_allows_were_before_it_was_lowered() -> None:
    def told(*shares: float) -> str:
        found = diagnose(view_of(waits=WAITING), used(*shares))
        return next(one.sentence for one in found if one.kind == "limit_saturated")

    assert "since" not in told(*[2.4] * 30)
    assert "since 14:00:00 UTC" in told(*[2.4] * 30, 1.0, 1.3)
    assert "since 13:32:00 UTC" in told(*[1.0] * 30)
