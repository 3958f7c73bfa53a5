"""Sums of 15 minutes, an hour and a day, the last minute beside its hour, and marks of what happened. Pure."""

from __future__ import annotations

import pytest

from fleet.signals import catalogue
from fleet.signals.catalogue import Event
from fleet.signals.marks import marks_of
from fleet.signals.series import series_of
from fleet.signals.spans import SPANS, spans_in, trends_of
from fleet.signals.view import EventView
from fleet.signals.windows import HOURS, MINUTES, PERIOD, Period

#: Half past a minute, half past an hour.
NOW_S = 480_000 * 3600 + 1800 + 30.0
MINUTE = int(NOW_S // 60)


def period(number: int, done: float, *, failed: float = 0, calls: float = 0, cost: float = 0) -> Period:
    empty = Period(number, *[0.0] * 15)
    return empty._replace(completions=done, failed=failed, calls=calls, calls_failed=failed, cost_usd_micros=cost)


def ring(minutes: dict[int, Period], hours: dict[int, Period]) -> bytes:
    """Return a pool's series as it lies in Redis; minutes and hours by how long ago they were."""
    raw = bytearray((MINUTES + HOURS) * PERIOD.size)
    for one in minutes.values():
        PERIOD.pack_into(raw, int(one.number) % MINUTES * PERIOD.size, *one)
    for one in hours.values():
        PERIOD.pack_into(raw, (MINUTES + int(one.number) % HOURS) * PERIOD.size, *one)
    return bytes(raw)


def test_each_span_has_what_happened_in_it_of_all_pools_and_nothing_else() -> None:
    minutes = {ago: period(MINUTE - ago, 2**place, cost=10.0) for place, ago in enumerate((0, 14, 15, 59, 60))}
    hour = int(NOW_S // 3600)
    hours = {ago: period(hour - ago, 1000 * ago) for ago in (2, 23, 24)}
    pools = [series_of(ring(minutes, hours)), series_of(ring({0: period(MINUTE, 0.0, failed=3, calls=9)}, {}))]
    found = {span.name: span for span in spans_in(pools, now_s=NOW_S)}
    assert tuple(found) == SPANS == ("15m", "1h", "24h")
    assert found["15m"].completions == 1 + 2
    assert found["1h"].completions == 1 + 2 + 4 + 8
    assert found["24h"].completions == 31 + 2000 + 23_000  # the minute of 60 minutes ago waits to be folded
    assert [span.cost_usd_micros for span in found.values()] == [20, 40, 50]
    assert {(span.failed, span.calls) for span in found.values()} == {(3, 9)}


def by_number(*periods: Period) -> dict[int, Period]:
    known = {int(one.number): one for one in periods}
    return {number: known.get(number, period(number, 0)) for number in range(MINUTE - MINUTES + 1, MINUTE + 1)}


def test_the_last_minute_is_told_beside_the_hour_before_it() -> None:
    # 10 a minute for 20 minutes with a tenth failed; the last 60 s: 5 of this minute, half of the 20 before it.
    steady = [period(MINUTE - ago, 10, failed=1, calls=10, cost=100) for ago in range(2, 22)]
    minutes = by_number(
        *steady, period(MINUTE - 1, 20, failed=8, calls=20, cost=20), period(MINUTE, 5, failed=5, calls=5)
    )
    trends = trends_of(minutes, now_s=NOW_S)
    assert (trends.completions.minute, trends.completions.hour) == (15, 10)  # of the minutes since the first task
    assert trends.completions.change == pytest.approx(0.5)
    assert trends.failed_share.minute == pytest.approx(9 / 15)
    assert trends.failed_share.change == pytest.approx(9 / 15 - 0.1)
    assert trends.calls_failed_share.minute == pytest.approx(9 / 15)
    assert trends.cost_usd_micros.change == pytest.approx(-0.9)


def test_a_fleet_that_has_just_begun_has_no_change_to_tell() -> None:
    trends = trends_of(by_number(period(MINUTE, 5)), now_s=NOW_S)
    assert (trends.completions.minute, trends.completions.hour, trends.completions.change) == (5, None, None)
    assert (trends.calls_failed_share.minute, trends.calls_failed_share.change) == (None, None)
    nothing = trends_of(by_number(), now_s=NOW_S)
    assert (nothing.completions.minute, nothing.failed_share.minute) == (0, None)


def event(event: Event, ago_s: float, **fields: str) -> EventView:
    return EventView(id="1-0", at=NOW_S - ago_s, name=event.name, level=event.level, fields=fields)


def test_marks_tell_outages_lost_workers_quarantines_and_what_an_operator_did() -> None:
    marks = marks_of(
        [
            event(catalogue.BREAKER_OPENED, 40, limit="openai/gpt-5/default"),
            event(catalogue.BOT_QUARANTINED, 100, bot="research-007", by="health"),
            event(catalogue.BOT_RELEASED, 100, bot="research-007", by="health"),
            event(catalogue.LIMIT_CHANGED, 200, limit="openai/gpt-5/default", by="ada"),
            event(catalogue.POOL_PAUSED, 210, pool="research", by="ada"),
            event(catalogue.WORKER_LOST, 4000, worker="celery@a"),
            event(catalogue.WORKER_STARTED, 4000, worker="celery@b"),
            event(catalogue.WORKER_LOST, 90_000, worker="celery@old"),
        ],
        now_s=NOW_S,
    )
    assert [(mark.kind, mark.count, mark.words) for mark in marks] == [
        ("worker", 1, "worker lost celery@a"),
        ("action", 2, "limit changed openai/gpt-5/default, by ada"),
        ("quarantine", 1, "bot quarantined research-007, by health"),
        ("outage", 1, "breaker opened openai/gpt-5/default"),
    ]
    assert [mark.at % 60 for mark in marks] == [0] * 4 and marks[0].at % 3600 == 0


def test_a_storm_of_events_makes_few_marks() -> None:
    storm = [event(catalogue.BOT_QUARANTINED, 60.0 * n, bot=f"research-{n:03d}") for n in range(1440)]
    marks = marks_of(storm, now_s=NOW_S)
    assert sum(mark.count for mark in marks) == 1440
    assert len(marks) <= 60 + 24
