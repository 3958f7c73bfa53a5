"""What people see of schedules: when they are due next, what was submitted last, and what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass

import redis

from fleet.config import Settings
from fleet.quoting import counted, duration, stamp
from fleet.schedules import ClockRule, ScheduleBook, ScheduleState, due, next_times, rule_of
from fleet.schedules.times import GRACE_S

#: Times that are shown ahead (count).
AHEAD = 5
#: Seconds after which a beat that has not looked is one no more: six looks.
SILENT_S = 30.0


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """One schedule; times are Unix seconds.

    Attributes:
        name: Its name.
        rule: When, for people.
        missed: What is done about times at which no beat ran.
        next: Its next times.
        sent_for: The time for which tasks were submitted last; None: none was.
        task_id: Of the first of them.
        tasks: How many they were.
        skipped: Times that were left out (count).
        overdue_s: For how long tasks that should be submitted are not.
        paused_until: None: it is not paused; infinite: until it is resumed.
        state: In a few words.
    """

    name: str
    rule: str
    missed: str
    next: tuple[float, ...]
    sent_for: float | None
    task_id: str
    tasks: int
    skipped: int
    overdue_s: float
    paused_until: float | None
    state: str


@dataclass(frozen=True, slots=True)
class ScheduleBoard:
    """All schedules, the beats that look (by `host:pid`: when last), and what is wrong with them in one sentence."""

    schedules: tuple[ScheduleView, ...]
    beats: dict[str, float]
    trouble: str


def read_schedules(client: redis.Redis, settings: Settings, now_s: float) -> ScheduleBoard:
    """Return the schedules of fleet.toml as they stand, in two round trips; none where there are none."""
    if not settings.schedules:
        return ScheduleBoard((), {}, "")
    book, rules = ScheduleBook(client), [(name, rule_of(one)) for name, one in settings.schedules.items()]
    beats = book.beats()
    views = tuple(
        _view(name, rule, settings.schedules[name].missed, entry, now_s)
        for (name, rule), entry in zip(rules, book.read(rules), strict=True)
    )
    return ScheduleBoard(views, beats, _trouble(views, beats, now_s))


def _view(name: str, rule: ClockRule, missed: str, entry: ScheduleState, now_s: float) -> ScheduleView:
    found = None if entry.done_at is None else due(rule, "all", entry.done_at, now_s)
    overdue_s = 0.0 if found is None or entry.is_paused(now_s) else max(0.0, now_s - found.times[0])
    begin = max(now_s, entry.paused_until or 0.0)
    ahead = () if math.isinf(begin) else tuple(next_times(rule, begin, AHEAD))
    if entry.is_paused(now_s):
        until = entry.paused_until or 0.0
        state = f"paused by {entry.paused_by}{'' if math.isinf(until) else f' until {stamp(until)}'}"
    elif overdue_s > GRACE_S:
        state = f"overdue for {duration(overdue_s)}{f': {entry.why}' if entry.why else ''}"
    else:
        state = entry.why or ("on time" if entry.sent_for or entry.done_at else "not seen by a beat yet")
    return ScheduleView(
        name=name, rule=rule.told, missed=missed, next=ahead, sent_for=entry.sent_for,
        task_id=entry.task_id, tasks=entry.tasks, skipped=entry.skipped, overdue_s=overdue_s,
        paused_until=entry.paused_until if entry.is_paused(now_s) else None, state=state,
    )  # fmt: skip


def _trouble(views: tuple[ScheduleView, ...], beats: dict[str, float], now_s: float) -> str:
    late = [view for view in views if view.overdue_s > GRACE_S]
    if not any(now_s - at <= SILENT_S for at in beats.values()):
        last = f"none has looked since {stamp(max(beats.values()))}" if beats else "none has looked in the last day"
        behind = f"; {', '.join(view.name for view in late)} should have run" if late else ""
        return f"no beat submits the tasks of {counted(len(views), 'schedule')}: {last}{behind}"
    return "; ".join(f"{view.name}: {view.state}" for view in late)
