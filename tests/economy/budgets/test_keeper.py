"""A process's side of budgets on a real Redis: who waits and for how long, and what is told when it is away."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Any

import pytest

from fleet.config import BudgetSettings
from fleet.economy.budgets import (
    BudgetKeeper,
    Freed,
    Payer,
)
from fleet.economy.budgets import keeper as budget_keeper
from fleet.economy.budgets.reader import bounds
from fleet.errors import FleetError, NotSoon
from fleet.grants import Caller
from fleet.models import Priority
from fleet.store import patience
from fleet.store.client import Store, connect
from tests.economy.budgets.keepers import NORMAL, keeper, readings, refused, reserve, run, settled
from tests.redis_server import RedisServer


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
        assert parkings < 20_000 and asked < 60  # one a second each would be 50,000
        one.settle(slow, 0)
        await settled(one)
        clock[0] += 20
        assert one.standing(Payer("a", run="r"), NORMAL.value) is None
        await reserve(one, 1000, caller=Caller(run="r"))

    run(redis_url, body)


def test_who_settles_hears_for_whom_it_has_made_room_and_nothing_while_nobody_waits(redis_url: str) -> None:
    budget = {"tenant:*": BudgetSettings(usd_per_day=0.001, usd_in_all=1), "pool:a": BudgetSettings(usd_in_all=0.002)}
    ann, bob = Caller(tenant="ann"), Caller(tenant="bob")

    async def body(store: Store) -> None:
        heard: list[Freed] = []
        one = BudgetKeeper(store, budget, process="p", on_freed=heard.extend)
        other = BudgetKeeper(store, budget, process="q")
        held = [await reserve(one, 500, caller=caller) for caller in (ann, ann, bob)]
        await refused(one, 600, pool="a", caller=bob)  # the pool has no room: that is tried again in a second
        one.settle(held[2], 100_000_000)
        await settled(one)
        assert heard == []
        assert other.standing(Payer("a", tenant="ann"), NORMAL.value) is None
        await refused(other, 500, caller=ann)
        assert other.standing(Payer("a", tenant="ann"), NORMAL.value) is not None
        for reservation in held[:2]:
            one.settle(reservation, 100_000_000)
        await settled(one)
        assert heard == [Freed("tenant:ann", "day", 2)]
        await reserve(other, 500, caller=ann)

    run(redis_url, body)


def test_a_budget_closes_until_its_period_ends_only_once_all_calls_in_flight_have_taught_what_they_cost(
    redis_url: str,
) -> None:
    budget = {"tenant:ann": BudgetSettings(usd_in_all=0.001), "pool:a": BudgetSettings(usd_in_all=0.001)}
    ann = Caller(tenant="ann")

    async def body(store: Store) -> None:
        heard: list[Freed] = []
        one = BudgetKeeper(store, {"pool:a": budget["pool:a"]}, process="p")
        two = BudgetKeeper(store, {"tenant:ann": budget["tenant:ann"]}, process="q", on_freed=heard.extend)
        for its in (one, two):
            its.settle(await reserve(its, 400, caller=ann), 400 * 10**6)
            await settled(its)
            last = await reserve(its, 300, caller=ann)
            wait = await refused(its, 700, caller=ann)  # dearer than what is left, until the last has been heard
            assert (wait.cause, "next call is taken to cost" in wait.told) == (
                ("money", False) if its is one else ("budget", True)
            )
            its.settle(last, 100 * 10**6)
            await settled(its)
            assert its.standing(Payer("a", tenant="ann"), NORMAL.value) is None or its is one
            assert (await refused(its, 700, caller=ann)).told == (
                "this call, of about $0.000700, is dearer than what is left: $0.000500 of $0.001000"
            )
            await reserve(its, 500, caller=ann)
        assert heard == [Freed("tenant:ann", "in all", 1)]

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
