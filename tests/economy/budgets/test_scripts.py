"""The scripts of budgets on a real Redis: exact, all or nothing, over the ends of periods, whoever dies."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.config import PERIODS, BudgetSettings
from fleet.economy.budgets import (
    BudgetKeeper,
    Payer,
    Reached,
    Settlement,
    change_budget,
    drop_budget,
    read_budgets,
    reset_budget,
    settle_call,
)
from fleet.economy.budgets import keeper as budget_keeper
from fleet.economy.budgets.keeper import VERSION
from fleet.economy.budgets.layouts import LIFE_S, STATE, BudgetAt
from fleet.economy.budgets.reader import BudgetReading, bounds
from fleet.economy.budgets.runs import forget_left_runs
from fleet.economy.budgets.scripts import RESERVE, SETTLE
from fleet.errors import ConfigurationError, FleetError, NotSoon
from fleet.grants import Caller
from fleet.models import Priority
from fleet.store import bill_keys, keys, patience
from fleet.store.client import Store, connect
from fleet.waits import Wait
from tests.redis_server import RedisServer

ANN = Caller(bot="a-001", tenant="ann")
NORMAL = Priority.NORMAL


def keeper(store: Store, budgets: dict[str, BudgetSettings], told: list[Reached] | None = None) -> BudgetKeeper:
    """A process's side."""
    heard = [] if told is None else told
    return BudgetKeeper(store, budgets, process=f"p{time.time_ns():x}", on_reached=heard.append)


def run(url: str, body: Callable[[Store], Awaitable[None]]) -> None:
    async def within() -> None:
        store = Store(url)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(within())


async def settled(one: BudgetKeeper) -> None:
    """Wait until all that ended has been counted."""
    if one._settling is not None:
        await one._settling


def readings(url: str, budgets: dict[str, BudgetSettings]) -> dict[str, BudgetReading]:
    with connect(url) as client:
        return {one.scope: one for one in read_budgets(client, budgets)}


async def refused(one: BudgetKeeper, micros: float, *, pool: str = "a", caller: Caller = ANN) -> Wait:
    with pytest.raises(NotSoon) as caught:
        await one.reserve(one.counting(pool, caller), micros, priority=caller.priority)
    return caught.value.wait()


async def reserve(one: BudgetKeeper, micros: float, *, pool: str = "a", caller: Caller = ANN) -> str:
    return await one.reserve(one.counting(pool, caller), micros, priority=caller.priority)


def test_a_call_is_reserved_in_all_of_its_budgets_or_in_none(redis_url: str) -> None:
    allowed = {"fleet": BudgetSettings(usd_per_day=1), "pool:a": BudgetSettings(usd_per_hour=0.5),
               "tenant:*": BudgetSettings(usd_in_all=0.1)}  # fmt: skip

    async def body(store: Store) -> None:
        one = keeper(store, allowed)
        assert one.counting("a", ANN) == ("fleet", "pool:a", "tenant:ann")
        assert one.counting("b", Caller()) == ("fleet",)
        held = await reserve(one, 60_000)
        wait = await refused(one, 50_000)
        assert (wait.cause, wait.about, wait.is_everyones) == ("money", "budget tenant:ann, in all", False)
        assert wait.opens_at is not None and wait.opens_at - time.time() < 5  # only reserved: it comes back
        await reserve(one, 50_000, caller=Caller(tenant="bob"))
        one.settle(held, 95_000_000_001)
        await settled(one)
        wait = await refused(one, 50_000)
        assert (wait.cause, wait.opens_at, wait.is_lasting) == ("budget", None, True)

    run(redis_url, body)
    found = readings(redis_url, allowed)
    spent = {scope: [amount.spent_picos for amount in one.amounts] for scope, one in found.items()}
    whole = 95_000_000_001
    assert spent == {"fleet": [whole], "pool:a": [whole], "tenant:ann": [whole], "tenant:bob": [0]}
    assert {scope: one.reserved_usd for scope, one in found.items()} == {
        "fleet": 0.05, "pool:a": 0.05, "tenant:ann": 0.0, "tenant:bob": 0.05,
    }  # fmt: skip


def test_a_million_small_calls_are_counted_to_the_pico(redis_url: str) -> None:
    chance, exact = random.Random(7), 0

    async def body(store: Store) -> None:
        nonlocal exact
        one = keeper(store, {"fleet": BudgetSettings(usd_per_month=1e6)})
        for _ in range(40):
            held = [await reserve(one, 3.5) for _ in range(25)]
            for reservation in held:
                picos = chance.randrange(2 * 10**9)
                exact += picos
                one.settle(reservation, picos)
        await settled(one)

    run(redis_url, body)
    fleet = readings(redis_url, {"fleet": BudgetSettings(usd_per_month=1e6)})["fleet"]
    assert (fleet.amounts[0].spent_picos, fleet.reserved_usd) == (exact, 0.0)


def test_the_same_settlement_again_counts_once_and_what_is_told_late_corrects_it(redis_url: str) -> None:
    async def body(store: Store) -> None:
        one = keeper(store, {"fleet": BudgetSettings(usd_in_all=1)})
        held = await reserve(one, 1000)
        unknown = Settlement(held, ("fleet",), None, is_unknown=True)
        one.settle(held, None)  # nobody knows what it cost: what was reserved
        await settled(one)
        assert await store.run(SETTLE, *settle_call([unknown])) == 0
        late = unknown._replace(usd_picos=400_000_007, is_unknown=False)
        assert [await store.run(SETTLE, *settle_call([late])) for _ in range(2)] == [1, 0]

    run(redis_url, body)
    fleet = readings(redis_url, {"fleet": BudgetSettings(usd_in_all=1)})["fleet"]
    assert (fleet.amounts[0].spent_picos, fleet.reserved_usd) == (400_000_007, 0.0)


@pytest.mark.parametrize("period", ["hour", "day", "month"])
def test_a_period_that_is_over_leaves_nothing_and_one_to_come_ends_nothing(redis_url: str, period: str) -> None:
    number, budget = PERIODS.index(period) + 1, BudgetSettings.model_validate({f"usd_per_{period}": 0.001})  # type: ignore[arg-type]

    async def body(store: Store) -> None:
        one = keeper(store, {"fleet": budget})
        one.settle(await reserve(one, 900), 900_000_000)
        await settled(one)
        wait = await refused(one, 900)
        _, ends_at = bounds(PERIODS[number - 1], time.time())
        assert (wait.cause, wait.opens_at, wait.is_everyones) == ("money", ends_at, True)
        await shift(store, number, seconds=+40 * 86_400)  # a clock that is behind: it stays what it is
        await refused(one, 900)
        await shift(store, number, seconds=-80 * 86_400)  # of a period that is long over
        await reserve(one, 900)

    run(redis_url, body)
    assert readings(redis_url, {"fleet": budget})["fleet"].amounts[0].spent_picos == 0


async def shift(store: Store, number: int, *, seconds: float) -> None:
    """Move the beginning of a period, as a clock that stands elsewhere would see it."""
    state = list(STATE.unpack(await store.command("GET", bill_keys.spent("fleet"))))
    state[BudgetAt.START + number] += seconds
    await store.command("SET", bill_keys.spent("fleet"), STATE.pack(state[1:]), "EX", 1000)


def test_months_begin_and_end_by_the_calendar(redis_url: str) -> None:
    chance = random.Random(3)
    times = [chance.randrange(1_700_000_000, 4_000_000_000) for _ in range(300)]
    times += [round(datetime(year, month, day, 23, 59, 59, tzinfo=UTC).timestamp()) + after
              for year, month, day in ((2027, 12, 31), (2028, 2, 28), (2028, 2, 29), (2100, 2, 28), (2026, 11, 30))
              for after in (0, 1)]  # fmt: skip
    head = RESERVE.text.partition("local now = ")[0]
    asked = f"{head} local r = {{}} for i, at in ipairs(ARGV) do local s, e = periods_at(at + 0) "
    text = asked + "r[i] = string.format('%d %d %d %d %d %d', s[1], s[2], s[3], e[1], e[2], e[3]) end return r"
    with connect(redis_url) as client:
        found = client.eval(text, 0, *times)
    assert isinstance(found, list)
    for at, row in zip(times, found, strict=True):
        both = [bounds(period, at) for period in PERIODS[:3]]
        assert [int(one) for one in row.split()] == [start for start, _ in both] + [end for _, end in both], at


def test_a_call_that_is_dearer_than_what_is_left_waits_alone_while_others_fit(redis_url: str) -> None:
    async def body(store: Store) -> None:
        one = keeper(store, {"fleet": BudgetSettings(usd_per_day=0.001)})
        for _ in range(5):
            one.settle(await reserve(one, 100), 100_000_000)
        await settled(one)
        wait = await refused(one, 800)
        assert (wait.is_everyones, "dearer than what is left" in wait.told) == (False, True)
        assert one.standing(Payer("a"), 2) is None  # no reason for others not to ask
        await reserve(one, 100)

    run(redis_url, body)


def test_bulk_stops_at_80_percent_where_that_is_wanted_and_both_marks_are_told_once(redis_url: str) -> None:
    told: list[Reached] = []
    low, high = Caller(priority=Priority.BULK), Caller(priority=Priority.HIGH)

    async def body(store: Store) -> None:
        one = keeper(store, {"fleet": BudgetSettings(usd_per_day=0.001, when_full="stop bulk")}, told)
        one.settle(await reserve(one, 800), 800_000_000)
        await settled(one)
        for _ in range(2):
            wait = await refused(one, 10, caller=low)
            assert (wait.lowest, wait.is_everyones) == (Priority.NORMAL.value, True)
        one.settle(await reserve(one, 200, caller=high), 200_000_000)
        await settled(one)
        for _ in range(2):
            wait = await refused(one, 10, caller=high)
        assert wait.lowest == -1

    run(redis_url, body)
    assert told == [Reached("fleet", "day", 80), Reached("fleet", "day", 100)]


def test_what_is_set_live_holds_at_once_beats_the_file_and_lets_all_ask_again(redis_url: str) -> None:
    configured = BudgetSettings(usd_per_day=0.001)

    async def body(store: Store) -> None:
        one = keeper(store, {"fleet": configured})
        with connect(redis_url) as client:
            await refused(one, 5000)
            one.settle(await reserve(one, 1000), 1_000_000_000)
            await settled(one)
            await refused(one, 10)
            assert one.standing(Payer("a"), 2) is not None
            change_budget(client, "fleet", {"usd_per_day": 1.0}, configured={"fleet": configured})
            held = await reserve(one, 5000)  # at once
            await one.load()
            assert one.standing(Payer("a"), 2) is None
            one.settle(held, 0)
            change_budget(client, "tenant:*", {"usd_in_all": 0.5}, configured={})
            await one.load()
            assert one.counting("a", ANN) == ("fleet", "tenant:ann")
            change_budget(client, "fleet", {"usd_per_day": 0}, configured={"fleet": configured})
            change_budget(client, "tenant:*", {"usd_in_all": 0}, configured={})
            assert await reserve(one, 9e9) == ""  # nothing is limited
            assert drop_budget(client, "fleet") and not drop_budget(client, "fleet")
            await refused(one, 5000)
            assert reset_budget(client, "fleet") == 1000
            await reserve(one, 1000)
            with pytest.raises(ConfigurationError, match="usd_per_day: expected 0, for not limited"):
                change_budget(client, "fleet", {"usd_per_day": -1}, configured={})

    run(redis_url, body)


def test_what_is_changed_for_one_begins_with_what_each_has(redis_url: str) -> None:
    async def body(store: Store) -> None:
        with connect(redis_url) as client:
            change_budget(
                client, "tenant:*", {"usd_per_month": 50}, configured={"tenant:*": BudgetSettings(usd_in_all=1)}
            )
            both = {"usd_per_month": 50.0, "usd_in_all": 1.0}
            acme = change_budget(client, "tenant:acme", {}, configured={}, when_full="degrade")
            assert acme is not None and acme.model_dump(exclude_none=True) == {**both, "when_full": "degrade"}
            zeta = change_budget(client, "tenant:zeta", {"usd_per_day": 5}, configured={})
            assert zeta is not None and zeta.usd_per_month == 50 and zeta.usd_in_all == 1 and zeta.usd_per_day == 5
            bot = change_budget(
                client, "bot:a-001", {"usd_per_day": 5}, configured={"bot:*": BudgetSettings(usd_in_all=3)}
            )
            assert bot is not None and (bot.usd_in_all, bot.usd_per_day) == (3, 5)
            change_budget(client, "tenant:*", {"usd_in_all": 0}, configured={})
            change_budget(client, "tenant:acme", {"usd_in_all": 0}, configured={})
            one = keeper(store, {})
            await one.load()
            wait = await refused(one, 60_000_000, caller=Caller(tenant="acme"))
            assert (wait.about, wait.degrades) == ("budget tenant:acme, a month", True)
            change_budget(client, "tenant:beta", {"usd_per_month": 0}, configured={})
            for scope in ("tenant:beta", "pool:a"):  # nothing is limited: there is nothing to degrade for
                with pytest.raises(
                    ConfigurationError, match="when_full: expected a budget that can be used up, got none"
                ):
                    change_budget(client, scope, {}, configured={}, when_full="degrade")

    run(redis_url, body)


def test_the_budgets_of_runs_that_were_left_go_after_weeks_and_their_tasks_wait_for_a_resume(redis_url: str) -> None:
    names = [f"run:{number}" for number in range(100)]
    left, used = Caller(run="0"), Caller(run="used")

    async def body(store: Store) -> None:
        one = keeper(store, {})
        with connect(redis_url) as client:
            for scope in [*names, "run:used", "run:resumed", "tenant:ann"]:
                change_budget(client, scope, {"usd_in_all": 0.001}, configured={})
            for caller in (left, used):
                one.settle(await reserve(one, 400, caller=caller), 400_000_000)
            await settled(one)
            assert await forget_left_runs(store) == 0  # a run that has not called yet is new, not left
            for scope in [*names, "run:used", "run:resumed", "tenant:ann"]:
                client.expire(bill_keys.spent(scope), LIFE_S - 21 * 86_400)  # as three weeks later
            one.settle(await reserve(one, 400, caller=used), 400_000_000)
            await settled(one)
            change_budget(client, "run:resumed", {"usd_in_all": 0.001}, configured={})
            assert await forget_left_runs(store) == 0  # it is one look an hour, over all workers
            client.delete(keys.turn("budgets of runs"))
            assert await forget_left_runs(store) == 100
            live: Any = client.hkeys(bill_keys.budgets_live())
            assert {name.decode() for name in live} == {"run:used", "run:resumed", "tenant:ann", VERSION}

            # What is still there of a run waits, and is not among the fullest; it goes on where it was.
            wait = await refused(one, 100, caller=left)
            assert (wait.cause, wait.about, wait.is_everyones) == ("budget", "budget run:0, in all", False)
            assert wait.told == "it was left unfinished for weeks, and its budget is gone"
            assert client.zscore(bill_keys.budget_shares(), "run:0") is None
            change_budget(client, "run:0", {"usd_in_all": 0.001}, configured={})
            await reserve(one, 100, caller=left)
            assert (
                await refused(one, 600, caller=left)
            ).about == "budget run:0, in all"  # what it had spent stays counted

    run(redis_url, body)


def test_a_bot_without_money_is_named_until_it_opens_and_others_are_not(redis_url: str) -> None:
    async def body(store: Store) -> None:
        each = BudgetSettings(usd_per_hour=0.0001)
        one = BudgetKeeper(store, {"bot:*": each}, process="bots")
        one.settle(await reserve(one, 100), 100_000_000)
        await settled(one)
        assert one.bots_out("a", 0) == []
        wait = await refused(one, 100)
        assert (wait.about, wait.is_everyones, one.bots_out("a", 0), one.bots_out("b", 4)) == (
            "budget bot:a-001, an hour", False, ["a-001"], [],
        )  # fmt: skip
        await reserve(one, 100, caller=Caller(bot="a-002"))

    run(redis_url, body)


def test_a_bot_that_keeps_what_is_left_for_urgent_tasks_is_named_for_the_others_alone(redis_url: str) -> None:
    async def body(store: Store) -> None:
        one = BudgetKeeper(store, {"bot:*": BudgetSettings(usd_per_hour=0.0001, when_full="stop bulk")}, process="bots")
        bulk = Caller(bot="a-001", priority=Priority.BULK)
        one.settle(await reserve(one, 80, caller=bulk), 80_000_000)
        await settled(one)
        assert (await refused(one, 10, caller=bulk)).lowest == NORMAL.value
        assert {priority.name: one.bots_out("a", priority.value) for priority in Priority} == {
            "CRITICAL": [], "HIGH": [], "NORMAL": [], "LOW": ["a-001"], "BULK": ["a-001"],
        }  # fmt: skip
        opens_at, lowest = one.of_bots(["a-001"])
        assert opens_at == bounds("hour", time.time())[1] and lowest == NORMAL.value
        await reserve(one, 10)

    run(redis_url, body)


def test_a_hundred_callers_at_once_spend_no_more_than_there_is_and_all_of_it(redis_url: str) -> None:
    """Each call costs what it has reserved: 100 processes share $0.01, 100 calls fit."""
    budget = BudgetSettings(usd_in_all=0.01)

    async def body(store: Store) -> None:
        keepers = [BudgetKeeper(store, {"fleet": budget}, process=f"many-{n}") for n in range(20)]

        async def call(number: int) -> int:
            one, made = keepers[number % 20], 0
            while True:
                try:
                    held = await reserve(one, 100)
                except NotSoon as full:
                    if full.cause == "budget":
                        return made
                    await asyncio.sleep(0.02)
                    continue
                await asyncio.sleep(0.001)
                one.settle(held, 100_000_000)
                made += 1

        made = await asyncio.gather(*(call(number) for number in range(100)))
        for one in keepers:
            await settled(one)
        assert sum(made) == 100

    run(redis_url, body)
    fleet = readings(redis_url, {"fleet": budget})["fleet"]
    assert (fleet.amounts[0].spent_usd, fleet.reserved_usd) == (0.01, 0.0)


def test_the_fullest_of_many_are_those_of_now(redis_url: str) -> None:
    """Neither runs that are done, nor tenants whose month is over, nor fuller runs hide a tenant that is at 95%."""
    each = {"tenant:*": BudgetSettings(usd_per_month=0.001)}

    async def body(store: Store) -> None:
        one = keeper(store, each)
        with connect(redis_url) as client:
            for number in range(42):
                change_budget(client, f"run:r{number}", {"usd_in_all": 0.0001}, configured={})
                one.settle(await reserve(one, 100, caller=Caller(run=f"r{number}")), 100_000_000)
            one.settle(await reserve(one, 950), 950_000_000)
            await settled(one)
            for number in range(21):
                assert drop_budget(client, f"run:r{number}")
            client.zadd(bill_keys.budget_shares(), {f"tenant:old-{number}": 1.0 for number in range(250)})

    run(redis_url, body)
    found = readings(redis_url, each)
    assert list(found) == ["tenant:ann", *sorted(scope for scope in found if scope.startswith("run:"))]
    assert (len(found), found["tenant:ann"].share) == (1 + 20, 0.95)
    with connect(redis_url) as client:
        assert client.zcard(bill_keys.budget_shares()) == 21 + 1


def test_five_thousand_tasks_of_a_run_whose_rest_is_reserved_do_not_circle_every_second(redis_url: str) -> None:
    clock = [time.time()]

    async def body(store: Store) -> None:
        budget = {"run:r": BudgetSettings(usd_in_all=0.001)}
        one = BudgetKeeper(store, budget, process="p", clock=lambda: clock[0])
        slow = await reserve(one, 1000, caller=Caller(run="r"))
        due, parkings, asked, began_s = [clock[0]] * 5000, 0, 0, clock[0]
        while due[0] < began_s + 10:  # a heap: the task that is due first
            clock[0] = max(clock[0], due[0])
            wait = one.standing(Payer("a", run="r"), NORMAL.value)
            if wait is None:
                asked += 1
                wait = await refused(one, 1000, caller=Caller(run="r"))
            assert clock[0] < (wait.opens_at or 0) <= clock[0] + 17 and "calls in flight" in wait.told
            heapq.heapreplace(due, wait.opens_at or 0)
            parkings += 1
        assert parkings < 20_000 and asked < 20  # one a second each would be 50,000
        one.settle(slow, 0)
        await settled(one)
        clock[0] += 20
        assert one.standing(Payer("a", run="r"), NORMAL.value) is None
        await reserve(one, 1000, caller=Caller(run="r"))

    run(redis_url, body)


def test_a_budget_that_was_raised_is_told_of_again(redis_url: str) -> None:
    told: list[Reached] = []

    async def body(store: Store) -> None:
        one = keeper(store, {}, told)
        with connect(redis_url) as client:
            for usd in (0.0005, 0.005):
                change_budget(client, "fleet", {"usd_in_all": usd}, configured={})
                await one.load()
                while True:
                    try:
                        one.settle(await reserve(one, 50), 50_000_000)
                    except NotSoon:
                        break
                    await settled(one)
                await refused(one, 50)
            change_budget(client, "fleet", {"usd_in_all": 0.006}, configured={})  # 83% are used already
            await one.load()
            await reserve(one, 50)

    run(redis_url, body)
    assert told == [Reached("fleet", "in all", percent) for percent in (80, 100, 80, 100)]


def test_a_budget_below_the_most_of_one_call_lets_one_at_a_time_go_until_something_is_learnt(redis_url: str) -> None:
    ann = Caller(run="r")

    async def body(store: Store) -> None:
        one = keeper(store, {"run:r": BudgetSettings(usd_in_all=0.0014)})
        scopes = one.counting("a", ann)

        async def ask(micros: int, *, is_learnt: bool = False) -> str:
            return await one.reserve(scopes, micros, priority=NORMAL, is_learnt=is_learnt)

        for picos in (100_000_000, 200_000_000):  # also a second time, before its process has heard of the first
            held = await ask(1500)
            with pytest.raises(NotSoon) as caught:
                await ask(1500)
            wait = caught.value.wait()
            assert (wait.cause, wait.is_everyones) == ("money", False) and (wait.opens_at or 0) < time.time() + 10
            one.settle(held, picos)
            await settled(one)
        with pytest.raises(NotSoon) as caught:  # that much is known to be what it costs
            await ask(1500, is_learnt=True)
        assert caught.value.cause == "budget"
        one.settle(await ask(250, is_learnt=True), 1_100_000_000)
        await settled(one)
        with pytest.raises(NotSoon) as caught:
            await ask(1500)
        assert caught.value.cause == "budget"  # it is used up

    run(redis_url, body)


class Refused(Store):
    """Counts how often Redis did not take a script."""

    times = 0

    async def run(self, script: Any, *call: Any) -> Any:
        try:
            return await super().run(script, *call)
        except FleetError:
            self.times += 1
            raise


def test_settlements_that_redis_refuses_are_repeated_until_it_takes_them_and_bounded(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "REFUSED_S", 0.02)
    monkeypatch.setattr(budget_keeper, "MOST_WAITING", 3)
    url = own_redis.url
    ways = [
        (("CONFIG", "SET", "requirepass", "changed"), ("CONFIG", "SET", "requirepass", "")),
        (("ACL", "SETUSER", "default", "-evalsha", "-eval"), ("ACL", "SETUSER", "default", "+@all")),
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    ]

    async def body() -> None:
        store = Refused(url)
        one = keeper(store, {"fleet": BudgetSettings(usd_in_all=1)})
        with connect(url) as client:
            for refuse, allow in ways:
                held, before = [await reserve(one, 1000) for _ in range(4)], store.times
                client.execute_command(*refuse)
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                for reservation in held:  # one more than may wait
                    one.settle(reservation, 10_000_000)
                async with asyncio.timeout(20):
                    while store.times < before + 2:
                        await asyncio.sleep(0.01)
                client.execute_command(*allow)
                async with asyncio.timeout(20):
                    await settled(one)
        await store.close()

    asyncio.run(body())
    fleet = readings(url, {"fleet": BudgetSettings(usd_in_all=1)})["fleet"]
    assert (fleet.amounts[0].spent_picos, fleet.reserved_usd) == (3 * 3 * 10_000_000, 3 * 0.001)
