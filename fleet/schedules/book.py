"""What is done of schedules, in Redis: up to which time, what was submitted last, what is paused, which beats look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from fleet.schedules.times import ClockRule
from fleet.store import schedule_keys
from fleet.store.client import Script, run_script

#: Seconds that a schedule is remembered after its last time: one that is due once a year still knows its last.
LIFE_S = 400 * 86_400
#: Seconds that a beat is remembered.
BEAT_LIFE_S = 86_400
#: Characters of a reason that are kept.
WHY_CHARS = 300

_ADVANCE = Script.beside(__file__, "advance.lua", keys="done schedule", argv="at life_s skipped fields*")


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What is known of one schedule; times are Unix seconds.

    Attributes:
        done_at: Up to when its times are dealt with; None: no beat has seen it.
        sent_for: The time for which tasks were submitted last.
        sent_at: When that was.
        task_id: Of the first of these tasks.
        tasks: How many they were.
        skipped: Times that were left out since it was first seen (count).
        why: What keeps the tasks of a time that is due from being submitted; empty: nothing.
        paused_until: Infinite: until it is resumed; None: it is not paused.
        paused_by: Who paused it.
    """

    done_at: float | None = None
    sent_for: float | None = None
    sent_at: float | None = None
    task_id: str = ""
    tasks: int = 0
    skipped: int = 0
    why: str = ""
    paused_until: float | None = None
    paused_by: str = ""

    def is_paused(self, now_s: float) -> bool:
        return self.paused_until is not None and now_s < self.paused_until


class ScheduleBook:
    """The schedules' state.

    Args:
        client: Plain client of the state Redis. Every method raises `redis.RedisError` when it does not answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def begin(self, name: str, rule: ClockRule, now_s: float) -> ScheduleState:
        """Return a schedule's entry; one that is new, or whose rule is, begins now: nothing of before is due."""
        key = schedule_keys.done(name, rule.digest)
        self._client.set(key, repr(now_s), ex=LIFE_S, nx=True)
        return self.read([(name, rule)])[0]

    def read(self, schedules: Iterable[tuple[str, ClockRule]]) -> list[ScheduleState]:
        """Return the entries of schedules, in one round trip."""
        asked = list(schedules)
        with self._client.pipeline(transaction=False) as pipe:
            for name, rule in asked:
                pipe.get(schedule_keys.done(name, rule.digest))
                pipe.hgetall(schedule_keys.schedule(name))
            replies = pipe.execute() if asked else []
        return [_entry(done, fields) for done, fields in zip(replies[::2], replies[1::2], strict=True)]

    def advance(self, name: str, rule: ClockRule, at: float, *, skipped: int, sent: dict[str, str | float]) -> bool:
        """Note that all of a schedule's times up to `at` are dealt with; False: another beat was first.

        Args:
            name: Its name.
            rule: When it is due.
            at: Unix seconds.
            skipped: Times that were left out (count).
            sent: `sent_for`, `sent_at`, `task_id` and `tasks` of what was submitted; empty: nothing was.
        """
        fields = [str(part) for pair in {**sent, "why": ""}.items() for part in pair]
        call = _ADVANCE.call(
            done=schedule_keys.done(name, rule.digest), schedule=schedule_keys.schedule(name), at=repr(at),
            life_s=LIFE_S, skipped=skipped, fields=fields,
        )  # fmt: skip
        return bool(run_script(self._client, _ADVANCE, *call))

    def blame(self, name: str, why: str) -> None:
        """Note what keeps the tasks of a time that is due from being submitted; no prompt may stand in it."""
        self._set(name, {"why": why[:WHY_CHARS]})

    def pause(self, name: str, *, until: float, by: str) -> None:
        """Leave out a schedule's times until then; infinite: until it is resumed."""
        self._set(name, {"paused_until": repr(until), "paused_by": by})

    def resume(self, name: str) -> bool:
        """Submit at a schedule's times again; False when it was not paused."""
        return bool(self._client.hdel(schedule_keys.schedule(name), "paused_until", "paused_by"))

    def look_in(self, beat: str, now_s: float) -> None:
        """Note that a beat, by its `host:pid`, has looked."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(schedule_keys.beats(), {beat: now_s})
            pipe.zremrangebyscore(schedule_keys.beats(), 0, now_s - BEAT_LIFE_S)
            pipe.expire(schedule_keys.beats(), BEAT_LIFE_S)
            pipe.execute()

    def beats(self) -> dict[str, float]:
        """Return the beats of the last day, and when each of them has looked last."""
        found: Any = self._client.zrange(schedule_keys.beats(), 0, -1, withscores=True)
        return {name.decode("utf-8", "replace"): float(at) for name, at in found}

    def _set(self, name: str, fields: dict[Any, Any]) -> None:
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(schedule_keys.schedule(name), mapping=fields)
            pipe.expire(schedule_keys.schedule(name), LIFE_S)
            pipe.execute()


def _entry(done: bytes | None, fields: dict[bytes, bytes]) -> ScheduleState:
    told = {name.decode(): value.decode("utf-8", "replace") for name, value in fields.items()}

    def number(name: str) -> float | None:
        try:
            return float(told[name])
        except (KeyError, ValueError):
            return None

    return ScheduleState(
        done_at=None if done is None else float(done), sent_for=number("sent_for"), sent_at=number("sent_at"),
        task_id=told.get("task_id", ""), tasks=int(number("tasks") or 0), skipped=int(number("skipped") or 0),
        why=told.get("why", ""), paused_until=number("paused_until"), paused_by=told.get("paused_by", ""),
    )  # fmt: skip
