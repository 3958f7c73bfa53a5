"""The scripts of budgets on a real Redis: exact, all or nothing, over the ends of periods."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

import pytest

from fleet.config import PERIODS, BudgetSettings
from fleet.economy.budgets import (
    Payer,
    Reached,
    Settlement,
    settle_call,
)
from fleet.economy.budgets.layouts import STATE, BudgetAt
from fleet.economy.budgets.reader import bounds
from fleet.economy.budgets.scripts import RESERVE, SETTLE
from fleet.errors import NotSoon
from fleet.grants import Caller
from fleet.models import Priority
from fleet.store import bill_keys
from fleet.store.client import Store, connect
from tests.economy.budgets.keepers import ANN, NORMAL, keeper, readings, refused, reserve, run, settled


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
        assert await store.run(SETTLE, *settle_call([unknown])) == [0]
        late = unknown._replace(usd_picos=400_000_007, is_unknown=False)
        assert [await store.run(SETTLE, *settle_call([late])) for _ in range(2)] == [[1], [0]]

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


def test_a_budget_is_told_to_be_used_up_only_where_it_is_known_what_the_refused_call_costs(redis_url: str) -> None:
    told: list[Reached] = []

    async def body(store: Store) -> None:
        one = keeper(store, {"pool:a": BudgetSettings(usd_per_day=0.001)}, told)
        one.settle(await reserve(one, 600), 500_000_000)
        await settled(one)
        with pytest.raises(NotSoon):  # the most that it may cost
            await one.reserve(("pool:a",), 600, priority=NORMAL, is_learnt=False)
        one.settle(await reserve(one, 60), 60_000_000)  # what such calls cost, as this process has just read
        await settled(one)
        assert told == []
        await refused(one, 600)

    run(redis_url, body)
    assert told == [Reached("pool:a", "day", 100)]


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
