"""When schedules are due: the same times whoever asks, and what is done about those that were missed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.config import ScheduleSettings
from fleet.schedules import ClockRule, due, next_times, rule_of
from fleet.schedules.times import GRACE_S, MOST_MISSED

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC).timestamp()
HOURLY = ClockRule(None, 3600, "UTC")


def local(*when: int) -> float:
    return datetime(*when, tzinfo=BERLIN).timestamp()  # type: ignore[arg-type, misc]


@given(
    every_s=st.integers(1, 10_000), at=st.floats(1e9, 2e9), steps=st.lists(st.floats(0.1, 40), min_size=1, max_size=20)
)
def test_looks_at_any_times_find_each_time_once(every_s: int, at: float, steps: list[float]) -> None:
    rule, begun, done, found = ClockRule(None, every_s, "UTC"), at, at, []
    for step in steps:
        at += step
        if (now := due(rule, "all", done, at)) is not None:
            found += now.times
            done = now.done_at
    whole = due(rule, "all", begun, at)
    assert found == list(() if whole is None else whole.times)


def test_a_time_of_the_day_is_the_places_own_also_when_its_clocks_change() -> None:
    morning = ClockRule("0 7 * * *", None, "Europe/Berlin")
    before = local(2026, 3, 28, 12)  # clocks go forward in the night after
    assert next_times(morning, before, 2) == [local(2026, 3, 29, 7), local(2026, 3, 30, 7)]
    assert local(2026, 3, 29, 7) - before == 18 * 3600


def test_a_time_that_a_day_does_not_have_is_due_all_the_same_and_one_that_comes_twice_is_due_once() -> None:
    lost, doubled = ClockRule("30 2 * * *", None, "Europe/Berlin"), ClockRule("30 2 * * *", None, "Europe/Berlin")
    in_march = due(lost, "all", local(2026, 3, 29, 0), local(2026, 3, 29, 23))
    in_october = due(doubled, "all", local(2026, 10, 25, 0), local(2026, 10, 25, 23))
    assert in_march is not None and in_october is not None
    assert len(in_march.times) == len(in_october.times) == 1


@pytest.mark.parametrize(
    ("missed", "hours", "skipped"), [("once", [12], 4), ("all", [8, 9, 10, 11, 12], 0), ("skip", [12], 4)]
)
def test_of_times_that_were_missed_as_many_are_submitted_as_is_wanted(
    missed: str, hours: list[int], skipped: int
) -> None:
    found = due(HOURLY, missed, NOW - 4.5 * 3600, NOW + 1)
    assert found is not None
    assert [datetime.fromtimestamp(at, UTC).hour for at in found.times] == hours
    assert (found.skipped, found.done_at) == (skipped, NOW)


def test_only_a_time_that_is_just_over_is_submitted_where_missed_ones_are_not() -> None:
    late = due(HOURLY, "skip", NOW - 1800, NOW + GRACE_S + 1)
    once = due(HOURLY, "once", NOW - 1800, NOW + GRACE_S + 1)
    assert late is not None and (late.times, late.skipped, late.done_at) == ((), 1, NOW)
    assert once is not None and once.times == (NOW,)


@pytest.mark.parametrize("rule", [ClockRule(None, 1, "UTC"), ClockRule("* * * * *", None, "UTC")])
def test_a_year_without_a_beat_is_dealt_with_at_once_and_says_how_much_it_leaves_out(rule: ClockRule) -> None:
    span_s = 60 * MOST_MISSED * 2
    found = due(rule, "all", NOW - span_s, NOW)
    assert found is not None and len(found.times) == MOST_MISSED
    assert found.skipped == span_s / (rule.every_s or 60) - MOST_MISSED and found.done_at == NOW


def test_nothing_is_due_before_its_time() -> None:
    assert due(HOURLY, "all", NOW, NOW + 3599) is None
    assert due(ClockRule("0 7 * * mon", None, "UTC"), "all", NOW, NOW + 6 * 86_400) is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cron": "0 7 * *"}, "expected five fields"),
        ({"cron": "0 25 * * *"}, "Bad hour"),
        ({"cron": "0 0 31 2 *"}, "cron: expected"),
        ({"cron": "0 0 7 * * *"}, "expected five fields"),
        ({"cron": "0 7 * * *", "timezone": "Europ/Berlin"}, "IANA"),
        ({"cron": "0 7 * * *", "timezone": "../etc/passwd"}, "IANA"),
        ({"cron": "0 7 * * *", "every_s": 5}, "got both"),
        ({}, "got none"),
        ({"every_s": 0}, "greater than or equal to 1"),
        ({"every_s": 1.5}, "integer"),
        ({"every_s": 5, "tasks": "prompts.jsonl"}, "either task or tasks"),
        ({"every_s": 5, "task": None}, "either task or tasks"),
    ],
)
def test_what_is_no_schedule_is_told_when_settings_are_read(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ScheduleSettings.model_validate({"task": {"prompt": "x"}, **fields})


def test_a_schedule_whose_time_is_edited_is_another_one() -> None:
    one = ScheduleSettings(cron="0 7 * * *", task={"prompt": "x"})
    other = ScheduleSettings(cron="0 8 * * *", task={"prompt": "x"})
    assert rule_of(one).digest != rule_of(other).digest
    assert rule_of(one).digest == rule_of(one.model_copy(update={"task": {"prompt": "y"}, "missed": "all"})).digest
