"""A call whose process dies is in the bill once: settled where it was told, else unknown. Killed at every step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from fleet.config import LimitSettings, Settings
from fleet.economy.bill import sweep, unknown
from fleet.economy.bill.reader import read_bill
from fleet.economy.bill.rows import Sums
from fleet.economy.bill.scripts import MOST_LISTED
from fleet.economy.bill.sweep import GRACE_S, LONGEST_CALL_S, Sweeper, longest_call_s
from fleet.economy.bill.unknown import read_unknown
from fleet.economy.bill.writer import Batch, ScriptCall, Writer
from fleet.economy.exports.checking import resolve
from fleet.entries import Entry, packed_end
from fleet.grants import Grant
from fleet.limiter import Limiter
from fleet.limiter.layouts import BESIDE, STATE, At
from fleet.store import bill_keys, keys
from fleet.store.client import Store, connect
from tests.economy.bill.calls import LIMIT, entry

#: What a call may cost at most, in micro-dollars, with parts.
MOST_MICROS = 12.345678
RESERVED = Sums(calls=1, unknown_calls=1, unknown_usd_picos=12_345_678)
SETTLED = Sums(calls=1, usd_picos=420_000, usage=entry().usage)


class Killed(BaseException):
    """The process has died."""


class Dying(Store):
    """Dies before, or right after, the first command or script of that name."""

    before = after = ""

    async def command(self, *parts: Any) -> Any:
        return await self._at(parts[0], super().command(*parts))

    async def run(self, script: Any, *call: Any) -> Any:
        return await self._at(script.name, super().run(script, *call))

    async def _at(self, name: str, reply: Awaitable[Any]) -> Any:
        if name == self.before:
            reply.close()  # type: ignore[attr-defined]
            raise Killed
        came = await reply
        if name == self.after:
            raise Killed
        return came


class Fleet:
    """Two processes: one that makes a call, and one that sweeps."""

    def __init__(self, redis_url: str, process: str = "p1") -> None:
        self.stores = [Dying(redis_url), Dying(redis_url)]
        self.mine, self.other = self.stores
        self.limiter = Limiter(self.mine, {LIMIT: LimitSettings(rpm=600_000)}, draw=lambda: 0.0)
        self.writer = Writer(self.mine, process=lambda: process)
        self.later_s = 0.0
        self.heard: list[Batch] = []
        self.sweeper = Sweeper(self.other, [LIMIT], frozenset, books=[self.hear], clock=self.now_s)

    def hear(self, batch: Batch) -> ScriptCall | None:
        self.heard.append(batch)
        return None

    def now_s(self) -> float:
        with connect(self.other._url) as client:
            seconds, micros = client.time()  # type: ignore[misc]
        return float(seconds) + micros / 1e6 + self.later_s

    async def granted(self) -> Grant:
        """Return the grant of a call with its note."""
        asked = entry(id="", state="unknown", usd_picos=12_345_678)
        return await self.limiter.acquire(
            LIMIT, tokens=21, timeout_s=5, cost_usd_micros=MOST_MICROS, note=self.writer.opened(asked)
        )

    def settled(self, grant: Grant) -> Entry:
        return entry(id=grant.ticket, at_s=self.now_s())

    async def over(self, grant: Grant) -> Entry:
        """Settle a call under its limit: the limiter hears of it at once, the bill a moment later."""
        told = self.settled(grant)
        self.limiter.settle(grant._replace(came=packed_end(told)), used_tokens=told.usage.total_tokens)
        await self.mine.command("PING")
        return told

    async def die(self, *, before: str = "", after: str = "") -> None:
        """Send what is entered, and die there."""
        self.mine.before, self.mine.after = before, after
        task = asyncio.ensure_future(self.writer._send())
        with pytest.raises(Killed):
            await task

    async def sweep(self, *living: str, later_s: float = GRACE_S + 1) -> int:
        self.later_s = later_s
        try:
            return await self.sweeper.sweep(living)
        finally:
            self.later_s = 0.0

    async def notes(self) -> int:
        return int(await self.other.command("HLEN", keys.limit_keys(LIMIT).open))

    def total(self) -> Sums:
        with connect(self.other._url) as client:
            return read_bill(client, since_s=self.now_s() - 3600, until_s=self.now_s() + 1, by=["pool"]).total


def run(redis_url: str, body: Callable[[Fleet], Awaitable[None]], **options: str) -> None:
    async def whole() -> None:
        fleet = Fleet(redis_url, **options)
        await until_closed(fleet, body)

    asyncio.run(whole())


F = TypeVar("F", bound=Fleet)


async def until_closed(fleet: F, body: Callable[[F], Awaitable[None]]) -> None:
    """Run `body` with these processes, and close their connections."""
    try:
        await body(fleet)
    finally:
        for store in fleet.stores:
            store.before = store.after = ""
            await store.close()


def test_a_call_of_a_process_that_dies_before_its_answer_is_unknown_at_what_was_reserved(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        assert await fleet.sweep("p1") == 0 and fleet.total() == Sums()  # it lives
        assert await fleet.sweep(later_s=1) == 1 and fleet.total() == Sums()  # it may be too new to have reported
        assert await fleet.sweep() == 0
        assert fleet.total() == RESERVED and await fleet.notes() == 0
        await fleet.sweep()
        assert fleet.total() == RESERVED
        assert [batch.entries[0].id for batch in fleet.heard] == [grant.ticket]

    run(redis_url, body)


@pytest.mark.parametrize(
    ("point", "bill"),
    [({"before": "bill.lua"}, RESERVED), ({"after": "bill.lua"}, SETTLED), ({"before": "HDEL"}, SETTLED),
     ({"after": "HDEL"}, SETTLED)],
)  # fmt: skip
def test_a_writer_that_dies_at_a_step_neither_loses_nor_doubles(
    redis_url: str, point: dict[str, str], bill: Sums
) -> None:
    async def body(fleet: Fleet) -> None:
        fleet.writer.enter(fleet.settled(await fleet.granted()))
        await fleet.die(**point)
        await fleet.sweep()
        assert fleet.total() == bill and await fleet.notes() == 0

    run(redis_url, body)


@pytest.mark.parametrize(
    "point", [{"before": "bill.lua"}, {"after": "bill.lua"}, {"before": "HDEL"}, {"after": "HDEL"}]
)
def test_a_call_that_was_settled_is_never_unknown_wherever_its_process_dies(
    redis_url: str, point: dict[str, str]
) -> None:
    async def body(fleet: Fleet) -> None:
        under_way = await fleet.granted()
        fleet.writer.enter(await fleet.over(await fleet.granted()))
        await fleet.die(**point)
        await fleet.sweep()
        await fleet.sweep()
        assert fleet.total() == RESERVED + SETTLED and await fleet.notes() == 0
        with connect(redis_url) as client:
            assert [one.entry.id for one in read_unknown(client)] == [under_way.ticket]

    run(redis_url, body)


def test_what_was_settled_and_is_sent_after_a_sweep_has_entered_it_counts_once(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        told = await fleet.over(await fleet.granted())
        await fleet.sweep()
        assert fleet.total() == SETTLED
        fleet.writer.enter(told)  # it had only been cut off
        fleet.writer.enter(entry(7, at_s=fleet.now_s()))
        await fleet.writer.close()
        await fleet.sweep()
        assert fleet.total() == SETTLED + SETTLED

    run(redis_url, body)


def test_a_call_that_is_settled_after_the_bill_has_it_leaves_no_note(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        fleet.writer.enter(fleet.settled(grant))
        await fleet.writer.close()
        await fleet.over(grant)
        assert await fleet.notes() == 0

    run(redis_url, body)


@pytest.mark.parametrize("point", [{"before": "enter_lost.lua"}, {"after": "enter_lost.lua"}, {"before": "HDEL"}])
@pytest.mark.parametrize("is_resolved", [False, True])
def test_a_sweep_that_dies_at_a_step_is_finished_by_the_next(
    redis_url: str, point: dict[str, str], is_resolved: bool
) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        fleet.other.before, fleet.other.after = point.get("before", ""), point.get("after", "")
        with pytest.raises(Killed):
            await fleet.sweep()
        fleet.other.before = fleet.other.after = ""
        bill = RESERVED
        with connect(redis_url) as client:
            if is_resolved and (listed := list(read_unknown(client))):
                assert resolve(client, listed[0], fleet.settled(grant))
                bill = SETTLED
        await fleet.sweep()
        assert fleet.total() == bill and await fleet.notes() == 0

    run(redis_url, body)


def test_calls_beyond_those_that_are_listed_are_summed_once_and_stay_unknown(redis_url: str) -> None:
    fill = "for n = 3, tonumber(ARGV[1]) do redis.call('HSET', KEYS[1], n, '-9999999999') end"

    async def body(fleet: Fleet) -> None:
        await fleet.other.command("EVAL", fill, 1, bill_keys.unknown(), MOST_LISTED)
        grants = [await fleet.granted() for _ in range(4)]
        fleet.other.before = "HDEL"  # all are entered, no note is gone
        with pytest.raises(Killed):
            await fleet.sweep()
        fleet.other.before = ""
        await fleet.sweep()
        assert fleet.total() == RESERVED + RESERVED + RESERVED + RESERVED and await fleet.notes() == 0
        assert await fleet.other.command("HLEN", bill_keys.unknown()) == MOST_LISTED
        fleet.writer.enter(entry(7, at_s=fleet.now_s()))
        await fleet.writer._send()
        for one in grants:  # it had only been cut off
            fleet.writer.enter(fleet.settled(one))
        await fleet.writer.close()
        assert fleet.total() == SETTLED + SETTLED + SETTLED + RESERVED + RESERVED

    run(redis_url, body)


def test_of_all_processes_one_tidies(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        other = Sweeper(fleet.mine, [LIMIT], frozenset)
        assert [await one._may_tidy() for one in (fleet.sweeper, other, fleet.sweeper)] == [True, False, False]

    run(redis_url, body)


def test_what_a_process_settles_late_takes_the_place_of_its_unknown_entry(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant, other = await fleet.granted(), await fleet.granted()
        await fleet.sweep()
        assert fleet.total() == RESERVED + RESERVED
        for one in (grant, other):
            fleet.writer.enter(fleet.settled(one))
        fleet.writer.enter(entry(7, at_s=fleet.now_s()))
        await fleet.writer.close()
        assert fleet.total() == SETTLED + SETTLED + SETTLED
        await fleet.sweep()
        assert fleet.total() == SETTLED + SETTLED + SETTLED

    run(redis_url, body)


def test_a_call_that_its_own_process_does_not_know_either_stays_listed(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        await fleet.sweep()
        fleet.writer.enter(entry(id=grant.ticket, state="unknown", usd_picos=1, at_s=fleet.now_s()))
        await fleet.writer.close()
        assert fleet.total() == RESERVED
        with connect(redis_url) as client:
            assert [one.entry.id for one in read_unknown(client)] == [grant.ticket]

    run(redis_url, body)


def test_a_process_that_comes_back_during_a_sweep_is_not_doubled(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        read = fleet.sweeper._enter

        async def back(call: Any, number: str) -> int:
            for one in (fleet.settled(grant), entry(8, at_s=fleet.now_s())):  # two batches: the first is forgotten
                fleet.writer.enter(one)
                await fleet.writer._send()
            return await read(call, number)

        fleet.sweeper._enter = back  # type: ignore[method-assign]
        await fleet.sweep()
        assert fleet.total() == SETTLED + SETTLED

    run(redis_url, body)


def test_a_lost_reply_is_unknown_at_last_although_its_process_lives(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.granted()
        await fleet.sweep("p1", later_s=LONGEST_CALL_S - 5)
        assert fleet.total() == Sums()
        await fleet.sweep("p1", later_s=LONGEST_CALL_S + 5)
        assert fleet.total() == RESERVED

    run(redis_url, body)


def test_a_call_that_its_provider_may_still_answer_is_not_taken_for_lost(redis_url: str) -> None:
    slow = Settings.model_validate({"providers": {"slow": {"kind": "simulator", "timeout_s": 1800}}})
    assert (longest_call_s(Settings()), longest_call_s(slow)) == (LONGEST_CALL_S, 2700.0)

    async def body(fleet: Fleet) -> None:
        await fleet.granted()
        fleet.sweeper = Sweeper(
            fleet.other, [LIMIT], frozenset, clock=fleet.now_s, longest_call_s=longest_call_s(slow)
        )  # fmt: skip
        await fleet.sweep("p1", later_s=2600)
        assert fleet.total() == Sums()
        await fleet.sweep("p1", later_s=2705)
        assert fleet.total() == RESERVED

    run(redis_url, body)


def test_who_does_not_report_is_not_taken_for_dead_soon(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.granted()
        await fleet.sweep("p2")
        assert fleet.total() == Sums() and await fleet.notes() == 1

    run(redis_url, body, process="")


def test_a_grant_that_is_given_back_leaves_no_note(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        asked = asyncio.ensure_future(fleet.granted())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await fleet.mine.command("PING")
        await asyncio.sleep(0)
        await fleet.mine.command("PING")
        fleet.writer.void(LIMIT, (await fleet.granted()).ticket)
        await fleet.writer.close()
        assert await fleet.notes() == 0

    run(redis_url, body)


def test_notes_expire_however_soon_one_grant_follows_another(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        names, week_ms = keys.limit_keys(LIMIT), 7 * 86_400_000

        async def lives_ms() -> int:
            return int(await fleet.other.command("PTTL", names.open))

        for _ in range(3):  # each empties the hash, which deletes it
            grant = await fleet.granted()
            assert 0 < await lives_ms() <= week_ms
            await fleet.other.command("HDEL", names.open, grant.ticket)
        await fleet.granted()
        await fleet.other.command("PEXPIRE", names.open, week_ms // 2)
        await fleet.granted()
        assert await lives_ms() <= week_ms // 2  # not at each grant
        beside = list(BESIDE.unpack(await fleet.other.command("HGET", names.facts, "beside")))
        beside[At.RESERVED_AT - STATE.size] -= 3600e6
        await fleet.other.command("HSET", names.facts, "beside", BESIDE.pack(beside[1:]))
        await fleet.granted()
        assert await lives_ms() > week_ms // 2

    run(redis_url, body)


def test_what_is_noted_is_learnt_not_the_worst_case(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        for _ in range(40):
            grant = await fleet.granted()
            fleet.limiter.settle(grant, used_tokens=9, used_output_tokens=1, cost_usd_micros=MOST_MICROS / 10)
            fleet.writer.void(LIMIT, grant.ticket)
        await fleet.writer.close()
        grant = await fleet.granted()
        assert MOST_MICROS / 10 <= grant.noted_usd_micros < MOST_MICROS / 5
        await fleet.sweep()
        assert fleet.total().unknown_usd_picos == round(grant.noted_usd_micros * 1e6)

    run(redis_url, body)


def test_resolved_entries_are_forgotten_after_two_weeks(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        await fleet.sweep()
        with connect(redis_url) as client:
            resolve(client, next(read_unknown(client)), fleet.settled(grant))
        await fleet.sweeper.tidy()
        assert await fleet.other.command("HLEN", bill_keys.unknown()) == 1
        fleet.later_s = 15 * 86_400
        await fleet.sweeper.tidy()
        assert await fleet.other.command("HLEN", bill_keys.unknown()) == 0

    run(redis_url, body)


def test_an_entry_of_another_release_is_not_read() -> None:
    assert unknown.read(json.dumps({"colour": "red"}).encode()) is None


@pytest.mark.parametrize(
    ("living", "gone", "left"),
    [(["p1"], ["p1/a"], 0), (["p1"], [], 1), (["p1"], ["p1/b"], 1), (["p2"], [], 0)],
    ids=["it has ended", "it lives", "another one has ended", "its worker is gone"],
)
def test_the_calls_of_a_child_are_left_behind_once_it_has_ended_though_its_worker_lives(
    redis_url: str, living: list[str], gone: list[str], left: int
) -> None:
    async def body(fleet: Fleet) -> None:
        fleet.sweeper._gone = gone
        await fleet.granted()
        assert await fleet.sweep(*living) == 0
        assert (await fleet.notes(), fleet.total().unknown_calls) == (left, 1 - left)

    run(redis_url, body, process="p1/a")


def test_a_child_that_has_ended_is_looked_after_by_its_worker_whoever_has_the_turn(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep, "GRACE_S", 0.5)

    async def body(fleet: Fleet) -> None:
        ended: list[str] = []
        fleet.sweeper = Sweeper(fleet.other, [LIMIT], lambda: ["p1"], clock=fleet.now_s, gone=ended)
        attending = asyncio.ensure_future(fleet.sweeper.attend())
        try:
            while not await fleet.other.command("EXISTS", bill_keys.turn()):
                await asyncio.sleep(0.01)  # somebody goes by the same crew
            await fleet.granted()
            ended.append("p1/a")
            while fleet.total().unknown_calls == 0:
                await asyncio.sleep(0.01)
        finally:
            attending.cancel()
            await asyncio.wait([attending])

    run(redis_url, lambda fleet: asyncio.wait_for(body(fleet), 30), process="p1/a")


def test_limits_with_notes_are_listed_again_while_a_worker_runs(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep, "TIDY_EVERY_S", 0.02)

    async def listed(fleet: Fleet) -> None:
        while await fleet.other.command("SMEMBERS", bill_keys.limits()) != [LIMIT.encode()]:
            await asyncio.sleep(0.01)

    async def body(fleet: Fleet) -> None:
        monkeypatch.setattr(fleet.sweeper, "_may_tidy", _no)
        attending = asyncio.ensure_future(fleet.sweeper.attend())
        try:
            await listed(fleet)
            await fleet.other.command("DEL", bill_keys.limits())  # it has expired, or Redis has lost it
            await listed(fleet)
        finally:
            attending.cancel()
            await asyncio.wait([attending])

    run(redis_url, lambda fleet: asyncio.wait_for(body(fleet), 30))


async def _no() -> bool:
    return False
