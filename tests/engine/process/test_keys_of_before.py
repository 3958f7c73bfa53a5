"""What workers of the release before have written is moved, exactly, while they go on writing."""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytest
import redis

from fleet import config
from fleet.config import HealthSettings, PoolSettings, Settings
from fleet.diversity.fingerprint import Fingerprint
from fleet.diversity.window import Windows
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.levers import quarantine_bot
from fleet.engine.operations.roles import key_patterns
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.process.moving.keys_of_before import BOTS_A_STEP, KeysOfBefore
from fleet.engine.transport.suspicion import Witness
from fleet.errors import BotsQuarantined, StoreUnavailable
from fleet.models import BotResult
from fleet.roster import Checkout, Roster, read_quarantined
from fleet.roster.grading import GRADE, Grade, grade_call, read_grades
from fleet.roster.health import HEAD_BYTES, NORM, ROW, Deed
from fleet.roster.quarantine import release
from fleet.signals.windows import BOT_ROW, BOT_TASK, HOURS, MINUTES, PERIOD, Period
from fleet.store import keys
from fleet.store.client import Script, Store, connect
from tests.before import names_of_before
from tests.counted import counted
from tests.engine.conftest import StartWorker
from tests.signal_truth import untruths
from tests.signals.working_fleet import SETTINGS, WorkingFleet
from tests.waiting import wait_until

POOLS = ("a", "b")
#: What living old workers know by its old name.
STAY = ("bots", "leases", "claims", "quarantined", "quarantine-reasons")


@pytest.fixture
def client(redis_url: str) -> Any:
    with connect(redis_url) as client:
        yield client


def with_store(url: str, work: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = Store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def move(url: str, settings: Settings = SETTINGS) -> int:
    moved: int = with_store(url, lambda store: KeysOfBefore(settings, store).move())
    return moved


def play(fleet: WorkingFleet) -> None:
    """Finish tasks of both pools, good and bad ones, with what they cost."""
    fleet.finish(3, pool="a", bot=1, queued_ms=5, ran_ms=70, usage={"input_tokens": 9, "output_tokens": 4})
    fleet.finish(2, pool="a", bot=2, error="BadAnswer", ran_ms=900, cost_usd_picos=1_234_567)
    fleet.finish(1, pool="b", bot=3, calls={"RateLimited": 2}, ran_ms=33)
    fleet.repeat(fleet.results[-1:])


def left_of_before(client: redis.Redis) -> set[bytes]:
    """Return the old names that are still there, besides those that living old workers know."""
    stay = {keys.former(what, pool).encode() for what in STAY for pool in POOLS}
    own = {name().encode() for name in (keys.totals, keys.recent, keys.failures, keys.events, keys.counted_pools)}
    return set(client.scan_iter("{fleet}:*")) - stay - own


@pytest.mark.parametrize("mixed", ["before", "before, after", "after, before", "before, after, before"])
def test_what_old_and_new_workers_have_counted_is_the_sum_exactly(
    redis_url: str, client: redis.Redis, mixed: str
) -> None:
    fleet = WorkingFleet(redis_url, client)
    for when in mixed.split(", "):
        if when == "before":
            with names_of_before():
                play(fleet)
        else:
            fleet.seed()
            play(fleet)
    assert move(redis_url) > 0
    assert not list(untruths(client, SETTINGS, fleet.results))
    assert move(redis_url) == 0
    assert left_of_before(client) == set()
    view = fleet.overview.read()
    rounds = len(mixed.split(", "))
    assert view.totals["completions"] == 6 * rounds and view.recent.completions == 6 * rounds
    assert view.errors.failures == 2 * rounds
    detail = fleet.overview.bot("a-001")
    assert detail.completions == 3 * rounds and len(detail.failures) == 0
    done = [one.task_id for one in fleet.results if one.bot == "a-001"]
    shown = [line.task_id for line in detail.tasks]
    assert len(set(shown)) == min(4, len(done)) and set(shown) <= set(done)


def test_old_workers_may_go_on_writing_for_as_long_as_they_like(redis_url: str, client: redis.Redis) -> None:
    fleet = WorkingFleet(redis_url, client)
    for _ in range(4):
        with names_of_before():
            play(fleet)
        play(fleet)
        move(redis_url)
    assert not list(untruths(client, SETTINGS, fleet.results))


def test_what_was_counted_of_the_fleet_expires_no_more(redis_url: str, client: redis.Redis) -> None:
    fleet = WorkingFleet(redis_url, client)
    with names_of_before():
        play(fleet)
    client.expire(keys.totals(), keys.STATE_TTL_S)  # as workers of 0.2 do with each task
    move(redis_url)
    assert client.ttl(keys.totals()) == -1
    assert fleet.overview.read().totals["completions"] == 6


def test_what_old_workers_alone_know_costs_a_look_and_no_more(redis_url: str, client: redis.Redis) -> None:
    settings = Settings(pools={f"p{number}": PoolSettings(bots=1) for number in range(120)})

    async def work(store: Store) -> None:
        for pool in settings.pools:
            await Roster(store, settings).check_out(pool, task_id="t", token=pool)

    with names_of_before():
        with_store(redis_url, lambda store: Roster(store, settings).seed())
        with_store(redis_url, work)
        quarantine_bot(client, settings, "p7-001", by="ann", reason="odd answers")
    assert move(redis_url, settings) == 1

    async def move_within(scripts: int) -> int:
        store = Dying(redis_url)
        store.scripts = scripts
        try:
            return await KeysOfBefore(settings, store).move()
        finally:
            await store.close()

    assert asyncio.run(move_within(4)) == 0, "three looks, and one at p7"


def test_answers_that_are_kept_after_all_else_was_moved_are_moved(redis_url: str, client: redis.Redis) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=1)})

    async def answer(store: Store) -> None:
        Windows(store, settings).record("a", "sql", Fingerprint(1, 2, 0, array("H", range(8))))
        await store.command("PING")

    with names_of_before():
        with_store(redis_url, answer)
    assert move(redis_url, settings) == 1
    assert client.llen(keys.answers("a", "sql")) == 1


class Interrupted(Store):
    """A connection: behind each step that moves rows of many bots, an old worker ends a task of the first bot."""

    ended = 0

    async def run(self, script: Script, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        reply = await super().run(script, keys, args)
        if script.name == "move_rows.lua":
            old = BOT_ROW.unpack(await self.command("GETRANGE", keys[0], 0, BOT_ROW.size - 1) or bytes(BOT_ROW.size))
            await self.command("SETRANGE", keys[0], 0, BOT_ROW.pack(old[0] + 1, *old[1:]))
            Interrupted.ended += 1
        return reply


def test_rows_of_many_bots_are_added_up_in_steps_while_old_workers_write(redis_url: str, client: redis.Redis) -> None:
    settings, bots = Settings(pools={"a": PoolSettings(bots=1)}), 2 * BOTS_A_STEP + 3

    def row(number: int, completions: int) -> bytes:
        return BOT_ROW.pack(completions, 0, 0, 0, 0, 0, float(number), 1.0, 2.0, 3.0)

    def task(number: int, at: int) -> bytes:
        ring = [BOT_TASK.pack(b"", 0, 0, 0)] * 4
        ring[1] = BOT_TASK.pack(f"{number}-{at}".encode(), at, 1, 0)  # its first one
        return b"".join(ring)

    evidence = ROW.struct.pack(1.0, 0.0, 0.0, 0, 0, 0, 0, 7, 7, 0, 0)
    for at, rows, tasks, health in (
        (1, keys.former("signals:bots", "a"), keys.former("signals:tasks", "a"), keys.former("health", "a")),
        (2, keys.bot_rows("a"), keys.bot_tasks("a"), keys.health("a")),
    ):
        client.set(rows, b"".join(row(number, int(number % 3 > 0)) for number in range(bots)))
        client.set(tasks, b"".join(task(number, at) for number in range(bots)))
        client.set(health, bytes(HEAD_BYTES) + evidence * bots)

    async def interrupted() -> None:
        store = Interrupted(redis_url)
        try:
            await KeysOfBefore(settings, store).move()
        finally:
            await store.close()

    asyncio.run(interrupted())
    assert Interrupted.ended == 3 and client.exists(keys.former("signals:bots", "a"))
    move(redis_url, settings)
    assert not client.exists(keys.former("signals:bots", "a"), keys.former("health", "a"))
    stored: Any = client.mget(keys.bot_rows("a"), keys.bot_tasks("a"), keys.health("a"))
    rows = list(BOT_ROW.iter_unpack(stored[0]))
    assert [one[0] for one in rows[1:]] == [2 * (number % 3 > 0) for number in range(1, bots)] and rows[0][0] == 3
    assert {one[7:] for one in rows} == {(2.0, 4.0, 6.0)}
    last = [one[0].rstrip(b"\0") for one in BOT_TASK.iter_unpack(stored[1])]
    for number in range(1, bots):
        ring = last[number * 4 : number * 4 + 4]
        newest_first = [b"%d-2" % number, b"%d-1" % number]
        assert number % 3 == 0 or [ring[2], ring[1]] == newest_first
    assert {one[7:9] for one in ROW.struct.iter_unpack(stored[2][HEAD_BYTES:])} == {(14, 14)}


class Dying(Store):
    """A connection that is cut before, or just after, a script."""

    scripts = 0
    after = False

    async def run(self, script: Script, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        if self.scripts == 0:
            if self.after:
                await super().run(script, keys, args)
            raise StoreUnavailable("cut")
        self.scripts -= 1
        return await super().run(script, keys, args)


@pytest.mark.parametrize("after", [False, True])
def test_who_dies_while_moving_loses_nothing_and_doubles_nothing(
    redis_url: str, client: redis.Redis, after: bool
) -> None:
    fleet = WorkingFleet(redis_url, client)

    async def die_at(number: int) -> bool:
        store = Dying(redis_url)
        store.scripts, store.after = number, after
        try:
            await KeysOfBefore(SETTINGS, store).move()
        except StoreUnavailable:
            return True
        finally:
            await store.close()
        return False

    for number in itertools.count():
        with names_of_before():
            play(fleet)
        play(fleet)
        died = asyncio.run(die_at(number))
        move(redis_url)
        assert not list(untruths(client, SETTINGS, fleet.results)), f"cut at script {number}"
        if not died:
            break
    assert number >= 8, "four scripts of each pool"


def test_minutes_that_meet_an_older_or_a_newer_one_in_their_place_go_to_their_hour(
    redis_url: str, client: redis.Redis
) -> None:
    minute = int(time.time() // 60)

    def put(key: str, place: int, number: int, count: float) -> None:
        client.setrange(key, place * PERIOD.size, PERIOD.pack(number, *[count] * 15))

    old, new = keys.former("signals:series", "a"), keys.series("a")
    for step, (in_old, in_new) in enumerate([(0, 64), (64, 0), (0, 0), (128, 64), (64, 128)]):
        place = (minute - step) % MINUTES
        put(old, place, minute - step - in_old, 2.0**step)
        put(new, place, minute - step - in_new, 2.0 ** (step + 10))
    hour = minute // 60
    put(old, MINUTES + (hour - 20) % HOURS, hour - 20, 7.0)
    put(new, MINUTES + (hour - 20) % HOURS, hour - 20, 8.0)
    put(old, MINUTES + (hour - 21) % HOURS, hour - 21 - HOURS, 100_000.0)  # of more than two days ago
    put(new, MINUTES + (hour - 21) % HOURS, hour - 21, 9.0)
    move(redis_url)
    raw: Any = client.get(new)
    periods = [Period(*fields) for fields in PERIOD.iter_unpack(raw)]
    assert sum(one.completions for one in periods) == sum(2.0**n + 2.0 ** (n + 10) for n in range(5)) + 7 + 8 + 9
    assert {one.number: one.completions for one in periods[MINUTES:]}[hour - 20] == 15


def test_a_bot_that_an_old_worker_found_bad_stays_out_and_released_it_stays_in(
    redis_url: str, client: redis.Redis
) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=2)})
    with names_of_before():
        with_store(redis_url, lambda store: Roster(store, settings).seed())
        quarantine_bot(client, settings, "a-001", by="ann", reason="odd answers")
    with_store(redis_url, lambda store: Roster(store, settings).seed())  # a new worker has begun before it is moved
    quarantine_bot(client, settings, "a-002", by="bob", reason="slow")
    move(redis_url, settings)
    out = read_quarantined(client, ["a"])
    assert {name: (one.by, one.reason) for name, one in out.items()} == {
        "a-001": ("ann", "odd answers"), "a-002": ("bob", "slow"),
    }  # fmt: skip
    with pytest.raises(BotsQuarantined):
        with_store(redis_url, lambda store: Roster(store, settings).check_out("a", task_id="t", token="k"))


def test_a_quarantine_holds_for_old_workers_that_start_later_and_a_release_here_lasts(
    redis_url: str, client: redis.Redis
) -> None:
    settings, tokens = Settings(pools={"a": PoolSettings(bots=1)}), map(str, itertools.count())

    async def start_and_take(store: Store) -> None:
        roster = Roster(store, settings)
        await roster.seed()
        await roster.check_out("a", task_id="t", token=next(tokens))

    def put_out() -> None:
        with names_of_before():
            quarantine_bot(client, settings, "a-001", by="ann", reason="odd answers")

    with_store(redis_url, lambda store: Roster(store, settings).seed())
    with names_of_before():
        with_store(redis_url, lambda store: Roster(store, settings).seed())
    put_out()
    assert move(redis_url, settings) == 1
    with names_of_before(), pytest.raises(BotsQuarantined):
        with_store(redis_url, start_and_take)
    release(client, "a", "a-001")
    assert move(redis_url, settings) == 0
    with_store(redis_url, start_and_take)
    put_out()
    assert move(redis_url, settings) == 1, "put out anew"
    with pytest.raises(BotsQuarantined):
        with_store(redis_url, start_and_take)


def test_a_quarantine_that_is_moved_first_holds_for_bots_that_are_made_after(
    redis_url: str, client: redis.Redis
) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=1)})
    with names_of_before():
        with_store(redis_url, lambda store: Roster(store, settings).seed())
        quarantine_bot(client, settings, "a-001", by="ann", reason="odd answers")
        client.zadd(keys.probation("a"), {"a-001": 3})
    move(redis_url, settings)
    with pytest.raises(BotsQuarantined):
        with_store(redis_url, lambda store: Roster(store, settings).check_out("a", task_id="t", token="k"))
    assert not client.exists(keys.probation("a"))


def test_leases_of_living_old_workers_stay_theirs_and_those_that_ran_out_are_reaped(
    redis_url: str, client: redis.Redis
) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=2)})

    async def take(store: Store) -> list[Checkout]:
        roster = Roster(store, settings)
        taken = [await roster.check_out("a", task_id=f"t{n}", token=f"k{n}") for n in range(2)]
        return [one for one in taken if one is not None]

    with names_of_before():
        living, dead = with_store(redis_url, take)
        client.zadd(keys.bot_leases("a"), {dead.member: 1})
    move(redis_url, settings)
    witness = Witness(redis_url, ["a"])
    begun = set(witness._begun(connect(redis_url), dict.fromkeys(("k0", "k1", "k2"), "")))
    assert begun == {"k0", "k1"}, "both had begun; nobody knows of the third"
    assert client.zscore(keys.pool_reaped("a"), "k1") is not None
    with names_of_before():
        assert not client.hexists(keys.bot_claims("a"), "k1")
        result = BotResult(task_id="t0", status="ok", answer="x", bot=living.bot, pool="a", finished_at=1.0)
        assert with_store(redis_url, lambda s: Finisher(s, settings).finish(Finish(result, checkout=living)))
        assert client.zcard(keys.bot_leases("a")) == 0
        assert [load for _, load in client.zrange(keys.bots("a"), 0, -1, withscores=True) if load >= 2**40] == []
    assert client.zcard(keys.bot_leases("a")) == 0


def test_what_was_learnt_of_kinds_is_added_up(redis_url: str, client: redis.Redis) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=3)})
    health = HealthSettings()

    async def learn(store: Store) -> None:
        roster, finisher, windows = Roster(store, settings), Finisher(store, settings), Windows(store, settings)
        await roster.seed()
        for _ in range(40):
            number = next(numbers)
            checkout = await roster.check_out("a", task_id=f"t{number}", token=f"k{number}", kind="sql")
            assert checkout is not None
            deed = Deed(checkout.bot, chars=100, ran_ms=50, cost=7)
            result = BotResult(
                task_id=checkout.task_id, status="ok", answer="x", bot=checkout.bot, pool="a", finished_at=1.0
            )
            await finisher.finish(Finish(result, checkout=checkout, deeds=[deed], kind="sql"))
            windows.record("a", "sql", Fingerprint(1, 2, 0, array("H", range(8))))
            call = grade_call(
                Grade(f"t{number}", "sql", number % 4 > 0, "a", checkout.bot), health, mark_life_s=60, counter="graded"
            )
            await store.run(GRADE, *call)

    numbers = itertools.count()
    with names_of_before():
        with_store(redis_url, learn)
    with_store(redis_url, learn)
    move(redis_url, settings)
    of_fleet = {b"{fleet}:doubted", b"{fleet}:graded-models:sql", b"{fleet}:diversity:counts"}
    assert left_of_before(client) <= of_fleet | set(client.scan_iter("{fleet}:graded:*"))
    grades = [one for number in (1, 2, 3) for one in read_grades(client, "a", number)]
    assert sum(one.accuracy.grades for one in grades) > 60, "40 of each, which fade"
    answers: Any = client.llen(keys.answers("a", "sql"))
    assert answers == 80
    assert client.hget(keys.answer_counts(), "a|sql") == b"80"
    raw: Any = client.hget(keys.norms("a"), "sql")
    norm = NORM.struct.unpack(raw)
    assert norm[2] == 80 and abs(norm[0] - 100) < 3 and abs(norm[1] - 50) < 2
    assert counted(client, "graded") == 80
    assert client.strlen(keys.skills("a", "sql")) == 4 * 16


#: What is usual for a class, and what is known against a bot, as 0.2 packed it.
NORM_OF_0_2, ROW_OF_0_2 = struct.Struct("<6d"), struct.Struct("<3f4B2I")


@pytest.mark.parametrize("has_begun", [False, True])
def test_what_0_2_found_usual_is_usual_here(redis_url: str, client: redis.Redis, has_begun: bool) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=1)})
    norm, samples = (400.0, 900.0, 300.0, 200.0, 40.0, 7.0), [bytes([n, n + 50, n + 100]) for n in range(31)]
    client.hset(keys.former("norms", "a"), "sql", NORM_OF_0_2.pack(*norm))
    row = ROW_OF_0_2.pack(0.5, 0.0, 2.0, 10, 20, 30, 1, 70, 60)
    client.set(keys.former("health", "a"), b"".join(samples).ljust(HEAD_BYTES, b"\0") + bytes(len(row)) + row)
    if has_begun:
        client.hset(keys.norms("a"), "sql", NORM.struct.pack(400.0, 900.0, 100.0, 50.0, 10.0, 7.0, 5.0))
        client.set(keys.health("a"), b"".join(bytes([n, 1, 2, 1]) for n in range(31)).ljust(HEAD_BYTES, b"\0"))
    assert move(redis_url, settings) == 2
    stored: Any = client.hget(keys.norms("a"), "sql")
    known = (400.0, 900.0, 400.0, 250.0, 50.0, 7.0, 5.0) if has_begun else (*norm, 0.0)
    assert NORM.struct.unpack(stored) == pytest.approx(known)
    raw: Any = client.get(keys.health("a"))
    usual = [bytes([n, 1, 2, 1]) for n in range(31)] if has_begun else [one + b"\0" for one in samples]
    assert raw[:HEAD_BYTES] == b"".join(usual).ljust(HEAD_BYTES, b"\0")
    found = ROW.struct.unpack(raw[-len(row) :])
    assert found == pytest.approx((0.5, 0.0, 2.0, 10, 20, 30, 1, 70, 60, 0, 0))


def test_one_pool_that_cannot_be_moved_stops_no_other(redis_url: str, client: redis.Redis) -> None:
    fleet = WorkingFleet(redis_url, client)
    with names_of_before():
        play(fleet)
    client.set(keys.errors("a"), "somebody else wrote here")
    move(redis_url)
    assert client.exists(keys.series("b")) and client.exists(keys.former("signals:errors", "a"))
    client.delete(keys.errors("a"))
    move(redis_url)
    assert not list(untruths(client, SETTINGS, fleet.results))


def test_a_worker_that_starts_takes_over_what_the_release_before_has_kept(
    start_worker: StartWorker, redis_url: str, client: redis.Redis
) -> None:
    settings = config.current()
    fleet = WorkingFleet(redis_url, client, settings)
    with names_of_before():
        fleet.seed()
        fleet.finish(7, pool="research", bot=1, ran_ms=70, usage={"input_tokens": 9, "output_tokens": 4})
        fleet.finish(2, pool="writing", bot=2, error="BadAnswer", ran_ms=900)
        quarantine_bot(client, settings, "research-001", by="ann", reason="odd answers")
    worker = start_worker()
    counted_before = [keys.former(f"signals:{what}", "research") for what in ("series", "bots", "sketch", "errors")]
    assert not client.exists(*counted_before), "before it is ready"
    ids = list(submit_many({"prompt": f"What is {n} + 2?", "pool": "research"} for n in range(20)))
    wait_until(lambda: client.exists(*map(keys.result, ids)) == 20, 30, "all are done")
    stored: Any = client.mget(map(keys.result, ids))
    results = [BotResult.model_validate(json.loads(raw)["result"]) for raw in stored]
    assert "research-001" not in {one.bot for one in results}
    assert not list(untruths(client, settings, [*fleet.results, *results]))
    assert "moved keys=" in worker.log


def test_backups_have_the_keys_of_pools_by_both_names() -> None:
    patterns = list(key_patterns(Settings()))
    assert any(fnmatchcase(keys.bots("a"), one) for one in patterns)
    assert any(fnmatchcase(keys.former("bots", "a"), one) for one in patterns)
