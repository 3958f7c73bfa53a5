"""Budgets that are set while the fleet runs, and which of many are shown, on a real Redis."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fleet.config import BudgetSettings
from fleet.economy.budgets import (
    Payer,
    Reached,
    change_budget,
    drop_budget,
    reset_budget,
)
from fleet.economy.budgets.keeper import VERSION
from fleet.economy.budgets.layouts import LIFE_S
from fleet.economy.budgets.reader import CANDIDATES, MOST_OF_MANY
from fleet.economy.budgets.runs import forget_left_runs
from fleet.errors import ConfigurationError, NotSoon
from fleet.grants import Caller
from fleet.store import bill_keys, keys
from fleet.store.client import Store, connect
from tests.economy.budgets.keepers import ANN, keeper, readings, refused, reserve, run, settled


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
            assert client.zscore(bill_keys.budget_shares("run"), "run:0") is None
            change_budget(client, "run:0", {"usd_in_all": 0.001}, configured={})
            await reserve(one, 100, caller=left)
            assert (
                await refused(one, 600, caller=left)
            ).about == "budget run:0, in all"  # what it had spent stays counted

    run(redis_url, body)


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
            client.zadd(bill_keys.budget_shares("tenant"), {f"tenant:old-{number}": 1.0 for number in range(250)})

    run(redis_url, body)
    found = readings(redis_url, each)
    assert list(found) == ["tenant:ann", *sorted(scope for scope in found if scope.startswith("run:"))]
    assert (len(found), found["tenant:ann"].share) == (1 + 20, 0.95)
    with connect(redis_url) as client:
        assert [client.zcard(bill_keys.budget_shares(kind)) for kind in ("tenant", "run")] == [1, 21]


def test_no_number_of_full_budgets_of_one_kind_hides_those_of_another(redis_url: str) -> None:
    each = {"tenant:*": BudgetSettings(usd_per_month=0.001), "bot:*": BudgetSettings(usd_per_month=0.01)}

    async def body(store: Store) -> None:
        one = keeper(store, each)
        with connect(redis_url) as client:
            for number in range(CANDIDATES + 1):
                change_budget(client, f"run:r{number}", {"usd_in_all": 0.0001}, configured={})
                caller = Caller(run=f"r{number}", tenant=f"t{number}")
                one.settle(await reserve(one, 100, caller=caller), 900_000_000)
            one.settle(await reserve(one, 100), 100_000_000)
            await settled(one)

    run(redis_url, body)
    kinds = Counter(scope.partition(":")[0] for scope in readings(redis_url, each))
    assert kinds == {"tenant": MOST_OF_MANY, "bot": 1, "run": MOST_OF_MANY}


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
