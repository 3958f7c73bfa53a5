"""What is done about unusual use, as `[keys.anomaly]` says: told, then held to twice the usual, then suspended.

Each step is written down before it is done, and done again until the alarm is over: whoever dies in between, the next
worker goes on. What an operator has set meanwhile stays. Blocking: for a thread of the worker that looks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import redis

from fleet import roster
from fleet.config import Settings
from fleet.limiter.live import rpm_of, swap_rpm
from fleet.signals import catalogue
from fleet.signals.events import record_event_now
from fleet.signals.unusual.alarms import STAGES, Alarm, alarm_in, field_of, key_of, read_packed, swap
from fleet.signals.unusual.watch import Overuse, UseWatch

logger = logging.getLogger("fleet.worker")

#: Who did it, in events and quarantines, and why a bot was taken out.
FLEET, REASON = "fleet", "used far more than usual"
#: The step that each setting goes to at most.
_FURTHEST = {"off": -1, "alarm": 0, "throttle": 1, "suspend": 2}
#: Share of what a throttled key may do that each of its models has at least: one may be the fallback of another.
LEAST_SHARE = 0.1


def undo(client: redis.Redis, settings: Settings, alarm: Alarm) -> None:
    """Take back what was done about an alarm; once more changes nothing, and what an operator has set stays.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    for limit, (before, held) in alarm.held.items():
        if (configured := settings.limits_by_key.get(limit)) is not None:
            swap_rpm(client, limit, held, before, configured=configured)
    if alarm.kind == "bot":
        pool = alarm.name.rpartition("-")[0]
        out = roster.read_quarantined(client, [pool]).get(alarm.name) if pool in settings.pools else None
        if out is not None and (out.by, out.reason) == (FLEET, REASON):
            roster.release_all(client, [(pool, alarm.name)])


class Consequences:
    """Tells of alarms, and acts on them.

    Args:
        settings: How far it goes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._furthest = _FURTHEST[settings.keys.anomaly.act]

    def follow(
        self,
        client: redis.Redis,
        watch: UseWatch,
        found: list[Overuse],
        calls: Mapping[str, float],
        now_s: float,
        keep: Callable[[], None],
    ) -> None:
        """Tell of new alarms, go on with old ones, and end those that are over or resumed.

        Args:
            client: Plain client of the state Redis.
            watch: What is usual.
            found: Who is under alarm now.
            calls: Of today by limit.
            now_s: Unix time.
            keep: Writes down what is usual.

        Raises:
            redis.RedisError: When Redis does not answer; what was not done is done with the next look.
        """
        standing = self._standing(client, watch, keep)
        suspects = {field_of(one.kind, one.name): one for one in found}
        for name, (packed, alarm) in standing.items():
            if alarm is None:
                suspects.pop(name, None)
            elif name not in suspects and alarm.stage != "suspended" and watch.is_calm(alarm.kind, alarm.name):
                self._end(client, packed, alarm)
            else:
                asked = suspects.get(name)
                now = alarm if asked is None else replace(alarm, rpm=asked.rpm)
                self._go_on(client, packed, now, calls, now_s)
        new = suspects.keys() - standing.keys()
        if new:
            keep()  # before they are told: the next worker must not think that they are over
        for name in new:
            self._tell(client, b"", Alarm.of(suspects[name], now_s))

    def end_all(self, client: redis.Redis) -> None:
        """End all alarms: nobody watches any more."""
        for name, packed in read_packed(client).items():
            if (alarm := alarm_in(packed)) is not None and alarm.stage in STAGES:
                self._end(client, packed, alarm)
            else:
                swap(client, name, packed, None)

    def _standing(
        self, client: redis.Redis, watch: UseWatch, keep: Callable[[], None]
    ) -> dict[str, tuple[bytes, Alarm | None]]:
        """Return what stands, as it lies there and as it is meant; None: it was resumed, and is forgotten now."""
        found: dict[str, tuple[bytes, Alarm | None]] = {}
        for name, packed in read_packed(client).items():
            alarm = alarm_in(packed)
            if alarm is None:  # of another release
                swap(client, name, packed, None)
                continue
            found[name] = packed, alarm if alarm.stage in STAGES else None
            if found[name][1] is None:
                watch.relearn(alarm.kind, alarm.name)
                undo(client, self._settings, alarm)
                keep()  # before the mark goes: the next worker must not begin with the old usual
                swap(client, name, packed, None)
        return found

    def _go_on(
        self, client: redis.Redis, packed: bytes, alarm: Alarm, calls: Mapping[str, float], now_s: float
    ) -> None:
        wanted, lasted_s, done = self._settings.keys.anomaly, now_s - alarm.since, STAGES.index(alarm.stage)
        if done > self._furthest:  # [keys.anomaly] was changed
            undo(client, self._settings, alarm)
            swap(client, alarm.field_name, packed, replace(alarm, stage="alarm", held={}))
            return
        is_due = self._furthest == 2 and lasted_s >= wanted.suspend_after_s and done < 2
        if is_due and (alarm.kind == "key" or self._take_out(client, alarm.name)):
            alarm = replace(alarm, stage="suspended")  # all workers hear of a key by themselves
        elif self._furthest >= 1 and not done and lasted_s >= wanted.throttle_after_s and alarm.kind == "key":
            alarm = replace(alarm, stage="throttled", held=self._held(client, alarm, calls))
        if STAGES.index(alarm.stage) > done and not self._tell(client, packed, alarm):
            return
        for limit, (before, held) in alarm.held.items():
            if (configured := self._settings.limits_by_key.get(limit)) is not None:
                swap_rpm(client, limit, before, held, configured=configured)

    def _take_out(self, client: redis.Redis, bot: str) -> bool:
        """Quarantine a bot, before that is written down: an operator who releases it has the last word.

        False when it is the last of its pool, or its pool is not of these settings.
        """
        pool = bot.rpartition("-")[0]
        if (known := self._settings.pools.get(pool)) is None:
            return False
        out = roster.read_quarantined(client, [pool])
        if bot not in out and len(out) + 1 >= known.bots:
            return False
        if bot not in out:
            roster.quarantine_all(client, [(pool, bot)], by=FLEET, reason=REASON)
        return True

    def _held(self, client: redis.Redis, alarm: Alarm, calls: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return for each limit of a key what was set on it, and its part of what the key may do: never more."""
        mine = {limit: rates for limit, rates in self._settings.limits_by_key.items() if key_of(limit) == alarm.name}
        total = sum(calls.get(limit, 0.0) for limit in mine)
        most_rpm = min(alarm.held_rpm, self._settings.keys.anomaly.most_rpm or alarm.held_rpm)
        held = {}
        for limit, rates in mine.items():
            share = calls.get(limit, 0.0) / total if total else 1.0
            before = rpm_of(client, limit)
            now = before if before >= 0 else rates.rpm or 0
            rpm = max(1.0, round(most_rpm * max(share, LEAST_SHARE)))
            held[limit] = before, min(rpm, now) if now else rpm
        return held

    def _tell(self, client: redis.Redis, packed: bytes, alarm: Alarm) -> bool:
        """Write an alarm down and tell of it, once; False: somebody else has changed it."""
        if not swap(client, alarm.field_name, packed, alarm):
            return False
        done = f"; {alarm.done}" if alarm.done else ""
        logger.warning("use_unusual %s: %s%s", alarm.field_name, alarm.told, done)
        about = {"about": alarm.field_name, "told": alarm.told, "done": alarm.stage}
        record_event_now(client, catalogue.USE_UNUSUAL, **about, by=FLEET)
        return True

    def _end(self, client: redis.Redis, packed: bytes, alarm: Alarm) -> None:
        undo(client, self._settings, alarm)
        if swap(client, alarm.field_name, packed, None):
            logger.info("use_usual %s", alarm.field_name)
            record_event_now(client, catalogue.USE_USUAL, about=alarm.field_name, by=FLEET)
