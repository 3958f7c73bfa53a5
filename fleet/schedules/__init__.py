"""Schedules: when tasks are due, and what of that is done. Who submits them: `engine/operations/schedules/`."""

from fleet.schedules.book import ScheduleBook, ScheduleState
from fleet.schedules.times import ClockRule, Due, due, next_times, rule_of

__all__ = ["ClockRule", "Due", "ScheduleBook", "ScheduleState", "due", "next_times", "rule_of"]
