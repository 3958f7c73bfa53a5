"""Submits what is due, each time of a schedule once, however many beats look and whenever one of them dies.

The order makes it so: the tasks are submitted under idempotency keys that are made of the schedule's name, the time
and the line, then it is noted that the time is dealt with. A beat that dies in between leaves the time undone; whoever
looks next submits the same keys, which queue nothing that was queued. What it lets through: a beat that stands
still right there for longer than results are kept (`results.expires_s`), and then goes on.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import redis

from fleet.config import ScheduleSettings, Settings, config_path
from fleet.engine.messages.producer import submit_many
from fleet.errors import ConfigurationError, FleetError, InvalidTask
from fleet.models import BotTask
from fleet.quoting import counted, stamp
from fleet.schedules import ClockRule, ScheduleBook, due, next_times, rule_of
from fleet.signals import catalogue
from fleet.signals.events import record_event_now

#: Seconds between two looks at the schedules: what another process has paused or dealt with is seen by then.
LOOK_EVERY_S = 5.0
#: Seconds until a time whose tasks could not be submitted is tried again.
AGAIN_S = 30.0
#: Field of the metadata of each task that a schedule has submitted: `fleet tasks --metadata schedule=NAME`.
METADATA = "schedule"
#: Another one: the time for which it is, in UTC, as ISO 8601 has it.
TIME = "scheduled_for"
#: What a task is told that is only checked.
NOTHING: Mapping[str, str] = MappingProxyType({})

_LOG = logging.getLogger(__name__)


class Clockwork:
    """The schedules of fleet.toml over one state Redis.

    Args:
        client: Plain client of the state Redis.
        settings: With the schedules.
        beat: Who looks, as `host:pid`; empty: somebody who is no beat.
    """

    def __init__(self, client: redis.Redis, settings: Settings, *, beat: str = "") -> None:
        self._client, self._settings, self._beat = client, settings, beat
        self._book = ScheduleBook(client)
        self._again_at: dict[str, float] = {}
        self._rules = {name: rule_of(one) for name, one in settings.schedules.items()}

    def look(self, now_s: float) -> float:
        """Submit what is due, and return in how many seconds to look again.

        Raises:
            redis.RedisError, StoreUnavailable: When Redis doesn't answer; what was due is due at the next look.
        """
        if self._beat:
            self._book.look_in(self._beat, now_s)
        waits = [LOOK_EVERY_S]
        for name, rule in self._rules.items():
            if now_s >= self._again_at.get(name, 0.0):
                self._look_at(name, rule, now_s)
            waits += [at - time.time() for at in next_times(rule, now_s, 1)]
        return max(0.05, min(waits))

    def _look_at(self, name: str, rule: ClockRule, now_s: float) -> None:
        entry, schedule = self._book.begin(name, rule, now_s), self._settings.schedules[name]
        found = due(rule, schedule.missed, now_s if entry.done_at is None else entry.done_at, now_s)
        if found is None:
            return
        if entry.is_paused(now_s):
            self._book.advance(name, rule, found.done_at, skipped=found.skipped + len(found.times), sent={})
            return
        sent: dict[str, str | float] = {}
        for at in found.times:
            try:
                ids = submit(name, schedule, at)
            except (InvalidTask, ConfigurationError) as error:
                self._blame(name, at, error, now_s)
                return
            sent = {"sent_for": at, "sent_at": time.time(), "task_id": ids[0] if ids else "", "tasks": len(ids)}
            _LOG.info("schedule_submitted schedule=%s due=%s tasks=%d", name, stamp(at), len(ids))
        if self._book.advance(name, rule, found.done_at, skipped=found.skipped, sent=sent) and found.skipped:
            _LOG.warning("schedule_times_left_out schedule=%s count=%d missed=%s", name, found.skipped, schedule.missed)
            told = f"{counted(found.skipped, 'time')} left out: no beat ran"
            record_event_now(self._client, catalogue.SCHEDULE_MISSED, schedule=name, why=told)

    def _blame(self, name: str, at: float, error: FleetError, now_s: float) -> None:
        """Say what is wrong with a schedule's tasks: the time stays due, and is tried again."""
        self._again_at[name] = now_s + AGAIN_S
        told = str(error).partition(", got ")[0]  # what came may be a prompt
        why = f"the tasks of {stamp(at)} cannot be submitted: {told}"
        _LOG.error("schedule_failed schedule=%s why=%s", name, why)
        self._book.blame(name, why)


def submit(name: str, schedule: ScheduleSettings, at: float, *, by_hand: bool = False) -> list[str]:
    """Submit a schedule's tasks for one of its times, each once, and return their ids.

    Args:
        name: Its name.
        schedule: Its settings.
        at: The time, in Unix seconds.
        by_hand: It is no time of the schedule's, but one at which somebody wants its tasks.

    Raises:
        InvalidTask: When one is none; those before it may be queued, and are queued once.
        ConfigurationError: When their file cannot be read.
        StoreUnavailable: When the broker did not confirm; the same call can be repeated safely.
    """
    time_of = datetime.fromtimestamp(at, UTC).isoformat()
    stem = f"schedule:{name}:{'now:' if by_hand else ''}{time_of}"
    about = {METADATA: name, TIME: time_of}
    tasks = tasks_of(name, schedule, None if schedule.expires_s is None else at + schedule.expires_s, about)
    return list(submit_many(tasks, idempotency_keys=(f"{stem}:{line}" for line in range(10**9))))


def tasks_of(
    name: str, schedule: ScheduleSettings, expires_at: float | None = None, about: Mapping[str, str] = NOTHING
) -> Iterator[BotTask]:
    """Yield a schedule's tasks as they are submitted; `about`: what their metadata says beside their own.

    Raises:
        InvalidTask: When one is none.
        ConfigurationError: When their file cannot be read.
    """
    given = [(f"schedules.{name}.task", schedule.task)] if schedule.tasks is None else _lines(schedule.tasks)
    for where, fields in given:
        try:
            task = BotTask.parse(fields)
        except InvalidTask as error:
            raise InvalidTask(f"{where}: {error}") from error
        update: dict[str, object] = {"metadata": {**task.metadata, **about}, "idempotency_key": None}
        if expires_at is not None and task.expires_at is None:
            update["expires_at"] = expires_at
        yield task.model_copy(update=update)


def _lines(file: Path) -> Iterator[tuple[str, object]]:
    """Yield the lines of a file, which lies beside fleet.toml when its path is not absolute."""
    beside = config_path()
    file = file if beside is None else beside.parent / file
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file} line {number}", json.loads(line)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: expected a JSONL file with a task a line, got {error}") from error
    except json.JSONDecodeError as error:
        raise InvalidTask(f"{file} line {number}: expected JSON, got {error}") from error
