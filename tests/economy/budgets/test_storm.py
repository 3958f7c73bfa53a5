"""A hundred callers under a bot's budget in a tenant's in a pool's, while processes die and budgets change amid."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from fleet.config import BudgetSettings
from fleet.economy.budgets import BudgetKeeper, change_budget, drop_budget, read_budgets
from fleet.engine.process import spending
from fleet.errors import NotSoon
from fleet.grants import Caller
from fleet.store import bill_keys
from fleet.store.client import Store, connect
from tests.economy.budgets.keepers import NORMAL, run, settled
from tests.every import every

MICRO = 10**6
#: What a call reserves, in micro-dollars; none costs more.
ASKED = 100
EACH = {
    "pool:a": BudgetSettings(usd_in_all=0.03),
    "tenant:*": BudgetSettings(usd_per_month=0.012),
    "bot:*": BudgetSettings(usd_per_day=0.007),
}
CALLERS, PROCESSES = 100, 10


class Storm:
    """Callers of some processes, and what they have really spent, by scope."""

    def __init__(self, store: Store) -> None:
        self.keepers = [BudgetKeeper(store, EACH, process=f"p{number}") for number in range(PROCESSES)]
        self.spent: Counter[str] = Counter()
        self.dead: set[int] = set()
        self._draw = random.Random(7)

    async def call(self, number: int, tries: int) -> None:
        """Let one caller ask so many times; in a process that dies, a call ends with it."""
        one = self.keepers[number % PROCESSES]
        caller = Caller(bot=f"a-{number % 6:03d}", tenant=f"t{number % 3}")
        for _ in range(tries):
            if number % PROCESSES in self.dead:
                return
            try:
                held = await one.reserve(one.counting("a", caller), ASKED, priority=NORMAL)
            except NotSoon:
                await asyncio.sleep(0)
                continue
            await asyncio.sleep(self._draw.random() / 1000)
            if number % PROCESSES in self.dead:
                return
            cost = self._draw.randint(1, ASKED) * MICRO
            for scope in ("pool:a", f"tenant:{caller.tenant}", f"bot:{caller.bot}"):
                self.spent[scope] += cost
            one.settle(held, cost)

    async def blow(self, tries: int) -> None:
        await asyncio.gather(*(self.call(number, tries) for number in range(CALLERS)))
        for keeper in self.keepers:
            await settled(keeper)


@pytest.mark.parametrize("dead", [(), (0, 3, 7)], ids=["all live", "three processes die"])
def test_every_scope_has_what_its_calls_have_cost_and_none_more_than_it_may(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, dead: tuple[int, ...]
) -> None:
    monkeypatch.setattr(spending, "DEAD_S", -1.0)

    async def body(store: Store) -> None:
        storm = Storm(store)
        with connect(redis_url) as client:
            job = asyncio.ensure_future(storm.blow(4))
            await asyncio.sleep(0.02)
            storm.dead.update(dead)
            await job
            left = client.hlen(bill_keys.reservations())
            assert bool(left) == bool(dead)
            assert await spending.end_the_dead(store) == left  # none of them had its grant
            await storm.blow(8)

            def stands() -> dict[str, int]:
                names = list(storm.spent)
                found = {one.scope: one for one in read_budgets(client, EACH, scopes=names)}
                assert every(not one.reserved_usd for one in found.values())
                assert every(one.amounts[0].spent_usd <= one.amounts[0].allowed_usd for one in found.values())
                return {scope: one.amounts[0].spent_picos for scope, one in found.items()}

            assert stands() == storm.spent
            # One bot that is raised alone lets nothing go beyond what its tenant and its pool have left.
            change_budget(client, "bot:a-000", {"usd_per_day": 1.0}, configured=EACH)
            change_budget(client, "pool:a", {"usd_in_all": 0.0001}, configured=EACH)  # less than it has spent
            before = dict(storm.spent)
            await storm.blow(2)
            assert storm.spent == before
            change_budget(client, "pool:a", {"usd_in_all": 0.0}, configured=EACH)  # not limited
            await storm.blow(30)
            del storm.spent["pool:a"]
            assert stands() == storm.spent
            assert storm.spent["tenant:t0"] > before["tenant:t0"]
            assert drop_budget(client, "pool:a")  # what was spent beside it has not been counted
            before = dict(storm.spent)
            await storm.blow(20)
            assert sum(storm.spent.values()) >= sum(before.values())
            (pool,) = read_budgets(client, EACH, scopes=["pool:a"])
            assert pool.amounts[0].spent_usd <= pool.amounts[0].allowed_usd

    run(redis_url, body)
