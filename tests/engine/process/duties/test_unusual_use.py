"""Use far beyond the usual, from the bill to what is done about it: on a real Redis, time handed in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import pytest

from fleet import roster
from fleet.config import LimitSettings, PoolSettings, Settings
from fleet.config.vault import KeysSettings
from fleet.economy.bill.rows import DAY_S, ROW, Row
from fleet.engine.operations.levers import resume_use
from fleet.engine.operations.overview import Overview
from fleet.engine.process.duties.unusual_use import UnusualUse
from fleet.limiter.live import change, rpm_of
from fleet.models import bot_name
from fleet.signals.unusual.alarms import RESUMED, STAGES, Alarm, key_of, read_alarms, read_packed, swap
from fleet.signals.unusual.detector import LOOK_S
from fleet.signals.unusual.watch import UseWatch
from fleet.store import bill_keys, keys, vault_keys
from fleet.store.client import Store, connect
from fleet.vault.revocations import hear_suspended

LIMIT, BOTS = "acme/m/default", 4
#: Calls of each bot in five seconds.
USUAL, STOLEN = [1, 2, 1, 2], [10, 20, 10, 20]
#: A midnight, so that nothing turns within the test.
START_S = 20_000.0 * DAY_S


def settings_of(act: str, **anomaly: float) -> Settings:
    return Settings.model_validate(
        {
            "pools": {"a": PoolSettings(bots=BOTS, provider="acme", model="m")},
            "providers": {"acme": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
            "limits": {"acme/m": LimitSettings(rpm=1000)},
            "keys": KeysSettings.model_validate({"anomaly": {"act": act, "suspend_after_s": 120, **anomaly}}),
        }
    )


@cache
def known() -> dict[str, bytes]:
    """Return what an hour and more of usual use has taught."""
    watch, done = UseWatch(), {"a": dict(enumerate(map(float, USUAL), 1))}
    for number in range(800):
        assert not watch.look({"acme": float(sum(USUAL))}, done, hour=23 - number // 720)
    return watch.packed()


class Use:
    """Calls that go into the bill, and the duty that looks at it."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.client, self.store, self.settings = connect(url), Store(url), settings
        self.now_s, self.calls = START_S, [0] * BOTS
        self.next_worker()

    def next_worker(self, settings: Settings | None = None) -> None:
        """The one before was killed."""
        self.settings = settings or self.settings
        self.duty = UnusualUse(self.settings, self.store, self.store, lambda: self.client)

    async def go_on(self, looks: int, each: list[int], queued: int = 0) -> None:
        for _ in range(looks):
            self.now_s += LOOK_S
            self.calls = [was + more for was, more in zip(self.calls, each, strict=True)]
            rows = {
                json.dumps(["a", bot_name("a", bot), LIMIT, ""], separators=(",", ":")): ROW.struct.pack(
                    *Row(calls=calls)
                )
                for bot, calls in enumerate(self.calls, 1)
            }
            self.client.hset(bill_keys.bots(int(START_S // DAY_S)), mapping=rows)  # type: ignore[arg-type]
            if queued > 0:
                self.client.rpush(keys.queue("a"), *["x"] * queued)
            elif queued < 0:
                self.client.lpop(keys.queue("a"), -queued)
            await self.duty.look(self.now_s)

    @property
    def alarms(self) -> dict[str, Alarm]:
        return {one.field_name: one for one in read_alarms(self.client)}

    @property
    def stages(self) -> dict[str, str]:
        return {name: alarm.stage for name, alarm in self.alarms.items()}

    @property
    def set_rpm(self) -> float:
        return rpm_of(self.client, LIMIT)

    @property
    def events(self) -> list[str]:
        """What was told and done, the oldest first."""
        rows: Any = self.client.xrange(keys.events())
        told = [{name.decode(): text.decode() for name, text in fields.items()} for _, fields in rows]
        return [f"{one['event']} {one.get('done', '')} by {one['by']}" for one in told if "use_" in one["event"]]

    def resume(self, kind: Literal["key", "bot"], name: str) -> bool:
        return resume_use(self.client, self.client, self.settings, kind, name, by="ann")

    async def suspended(self) -> frozenset[str]:
        return await hear_suspended(self.store)


Play = Callable[[Settings, Callable[[Use], Awaitable[None]]], None]


@pytest.fixture
def play(redis_url: str) -> Play:
    """Play a scene after an hour and more of usual use: 72 calls a minute."""

    def run(settings: Settings, scene: Callable[[Use], Awaitable[None]]) -> None:
        async def whole() -> None:
            use = Use(redis_url, settings)
            try:
                use.client.hset(vault_keys.usual(), mapping=known())  # type: ignore[arg-type]
                await use.go_on(14, USUAL)
                assert not use.alarms
                await scene(use)
            finally:
                await use.store.close()
                use.client.close()

        asyncio.run(whole())

    return run


def test_a_key_used_ten_times_as_much_is_told_once_and_only_told_by_default(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(300, STOLEN)
        assert use.stages == {"key acme": "alarm"}
        assert (use.set_rpm, await use.suspended()) == (-1, frozenset())
        assert use.events == ["use_unusual alarm by fleet"]
        found = Overview(use.settings, state=use.client, broker=use.client).read().diagnoses
        told = next(one for one in found if one.kind == "use_unusual")
        assert "Key acme is used far more than usual" in told.sentence
        assert told.help.command == "fleet keys resume acme"

    play(settings_of("alarm"), scene)


def test_one_bot_at_ten_times_is_told_by_name(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(36, [10, 2, 1, 2])
        assert use.stages == {"bot a-001": "alarm"}

    play(settings_of("throttle"), scene)


def test_a_backlog_that_drains_at_ten_times_the_rate_raises_no_alarm(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(120, [0, 0, 0, 0], queued=6)
        await use.go_on(13, STOLEN, queued=-54)
        assert not use.alarms

    play(settings_of("alarm"), scene)


def test_a_key_is_throttled_then_suspended_and_resumed_as_it_was(play: Play) -> None:
    async def scene(use: Use) -> None:
        use.client.hset(keys.limit_keys(LIMIT).facts, "set", "900 -1 -1 -1 -1 -1 -1")
        await use.go_on(20, STOLEN)
        assert use.stages == {"key acme": "throttled"}
        assert use.set_rpm == pytest.approx(2 * use.alarms["key acme"].usual_rpm, abs=1)
        await use.go_on(20, STOLEN)
        assert (use.stages, await use.suspended()) == ({"key acme": "suspended"}, {"acme"})
        await use.go_on(200, USUAL)
        assert use.stages == {"key acme": "suspended"}  # until somebody resumes it
        assert use.resume("key", "acme")
        assert (use.alarms, use.set_rpm, await use.suspended()) == ({}, 900, frozenset())
        assert not use.resume("key", "acme")
        await use.go_on(60, STOLEN)
        assert not use.alarms  # it is the usual now
        assert use.events == [*(f"use_unusual {stage} by fleet" for stage in STAGES), "use_usual  by ann"]

    play(settings_of("suspend"), scene)


def test_a_throttled_key_goes_on_as_before_once_its_use_is_usual(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(20, STOLEN)
        assert use.set_rpm > 0
        await use.go_on(200, USUAL)
        assert (use.alarms, use.set_rpm) == ({}, -1)
        assert use.client.hget(keys.limit_keys(LIMIT).facts, "set") != b""
        assert use.events[-1] == "use_usual  by fleet"

    play(settings_of("throttle"), scene)


def test_a_throttled_key_stays_so_when_redis_forgets_it_or_the_worker_dies_before_it_was_done(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(13, STOLEN)
        use.next_worker()
        await use.go_on(20, STOLEN)
        held = use.set_rpm
        use.client.hdel(keys.limit_keys(LIMIT).facts, "set")  # as if it had died between writing and doing
        use.next_worker()
        await use.go_on(3, STOLEN)
        assert use.set_rpm == held
        assert use.events == ["use_unusual alarm by fleet", "use_unusual throttled by fleet"]

    play(settings_of("throttle"), scene)


def test_what_an_operator_sets_on_a_throttled_limit_stays(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(20, STOLEN)
        change(use.client, LIMIT, {"rpm": 500}, configured=use.settings.limits_by_key[LIMIT])
        await use.go_on(3, STOLEN)
        assert use.set_rpm == 500
        assert use.resume("key", "acme")
        assert use.set_rpm == 500

    play(settings_of("throttle"), scene)


def test_a_resumption_that_died_halfway_is_finished_by_whoever_looks_next(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(20, STOLEN)
        (alarm,) = read_alarms(use.client)
        packed = read_packed(use.client)[alarm.field_name]
        assert swap(use.client, alarm.field_name, packed, replace(alarm, stage=RESUMED))  # and there it died
        assert use.set_rpm > 0
        use.next_worker()
        await use.go_on(40, STOLEN)
        assert (use.alarms, use.set_rpm, read_packed(use.client)) == ({}, -1, {})
        use.next_worker()  # knows that it was resumed: the old usual is forgotten
        await use.go_on(40, STOLEN)
        assert not use.alarms

    play(settings_of("throttle"), scene)


def test_two_hands_do_not_undo_each_other(play: Play) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(10, STOLEN)
        (alarm,) = read_alarms(use.client)
        old = read_packed(use.client)[alarm.field_name]
        assert use.resume("key", "acme")
        assert not swap(use.client, alarm.field_name, old, replace(alarm, stage="throttled"))  # who has slept
        assert not use.alarms

    play(settings_of("throttle"), scene)


@pytest.mark.parametrize("act", ["alarm", "off"])
def test_what_the_settings_allow_no_more_is_taken_back(play: Play, act: str) -> None:
    async def scene(use: Use) -> None:
        await use.go_on(20, STOLEN)
        assert use.set_rpm > 0
        use.next_worker(settings_of(act))
        if act == "off":
            await use.duty.attend()
        await use.go_on(3 if act == "alarm" else 0, STOLEN)
        assert (use.stages, use.set_rpm) == ({"key acme": "alarm"} if act == "alarm" else {}, -1)

    play(settings_of("throttle"), scene)


def test_a_bot_is_quarantined_where_keys_are_suspended_and_resumed(play: Play) -> None:
    async def scene(use: Use) -> None:
        use.client.zadd(keys.bots("a"), {bot_name("a", number): 0 for number in range(1, BOTS + 1)})
        await use.go_on(60, [10, 2, 1, 2])
        assert use.stages == {"bot a-001": "suspended"}
        assert list(roster.read_quarantined(use.client, ["a"])) == ["a-001"]
        roster.release_all(use.client, [("a", "a-001")])
        await use.go_on(3, [10, 2, 1, 2])
        assert not roster.read_quarantined(use.client, ["a"])  # an operator has the last word
        assert use.resume("bot", "a-001")

    play(settings_of("suspend"), scene)


def test_resuming_a_bot_brings_it_back_unless_somebody_else_has_taken_it_out(play: Play) -> None:
    async def scene(use: Use) -> None:
        use.client.zadd(keys.bots("a"), {bot_name("a", number): 0 for number in range(1, BOTS + 1)})
        await use.go_on(60, [10, 2, 1, 2])
        assert use.resume("bot", "a-001")
        assert not roster.read_quarantined(use.client, ["a"])

    play(settings_of("suspend"), scene)


def test_the_next_worker_goes_on_from_what_was_known(play: Play) -> None:
    async def scene(use: Use) -> None:
        use.client.delete(vault_keys.usual())
        await use.go_on(14, USUAL)  # more than a minute
        assert use.client.ttl(vault_keys.usual()) > 0  # type: ignore[operator]
        use.next_worker()
        await use.go_on(36, STOLEN)
        assert use.stages == {"key acme": "alarm"}

    play(settings_of("alarm"), scene)


def test_more_calls_a_minute_than_may_be_are_told_whatever_is_usual_and_held_to_that(redis_url: str) -> None:
    async def whole() -> None:
        use = Use(redis_url, settings_of("throttle", most_rpm=100, most_bot_rpm=70))
        try:
            await use.go_on(30, [8, 5, 5, 5])  # 276 a minute, and 96 by one bot, from the first minute on
            assert use.stages == {"key acme": "throttled", "bot a-001": "alarm"}
            assert use.set_rpm == 100
            use.next_worker()
            await use.go_on(20, [8, 5, 5, 5])
            assert len(use.events) == 3  # and not again with each look, nor by each worker
            assert use.resume("key", "acme")
            await use.go_on(30, [8, 5, 5, 5])
            assert use.stages == {"bot a-001": "alarm"}  # whoever resumes it has allowed that
            await use.go_on(30, [1, 1, 1, 1])
            assert not use.alarms
            await use.go_on(30, [8, 5, 5, 5])
            assert use.alarms["key acme"].most_rpm == 100
        finally:
            await use.store.close()
            use.client.close()

    asyncio.run(whole())


def test_keys_are_named_as_people_know_them() -> None:
    names = ("openai/gpt-5/default", "openai/org/gpt-5/team-a", "tools/stock/default")
    assert [key_of(name) for name in names] == ["openai", "openai/team-a", "tools/stock"]
