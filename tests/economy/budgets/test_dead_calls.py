"""What a process that died had reserved: charged as the bill has its call, or given back. Killed at every step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fleet.config import BudgetSettings
from fleet.economy.bill.sweep import Sweeper
from fleet.economy.bill.unknown import read_unknown
from fleet.economy.bill.writer import Writer
from fleet.economy.budgets import BudgetKeeper, charge_batch, read_budgets
from fleet.economy.exports import checking
from fleet.engine.process import spending
from fleet.grants import Caller, Grant
from fleet.models import Priority
from fleet.store import bill_keys
from fleet.store.client import connect
from fleet.usage import Usage
from tests.economy.bill import test_sweep
from tests.economy.bill.calls import LIMIT, entry
from tests.economy.bill.test_sweep import RESERVED, SETTLED, Killed

FLEET = {"fleet": BudgetSettings(usd_in_all=1)}
#: What is reserved for each call, in micro-dollars; the bill notes another amount, which is what counts.
ASKED = 1000
#: In 10^-12 dollars: what the bill has of an unknown call, and of a settled one.
NOTED, SPENT = RESERVED.unknown_usd_picos, SETTLED.usd_picos


class Fleet(test_sweep.Fleet):
    """The same two processes, and a budget."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(redis_url)
        self.keeper = BudgetKeeper(self.mine, FLEET, process="p1")
        self.writer = Writer(self.mine, process=lambda: "p1", before=self.keeper.counted)
        self.sweeper = Sweeper(self.other, [LIMIT], frozenset, books=[charge_batch], clock=self.now_s)

    async def reserved(self) -> str:
        scopes = self.keeper.counting("research", Caller(bot="research-001"))
        return await self.keeper.reserve(scopes, ASKED, priority=Priority.NORMAL)

    async def granted(self) -> Grant:
        await self.other.command("SADD", bill_keys.limits(), LIMIT)
        asked = entry(id="", state="unknown", usd_picos=NOTED, reservation=await self.reserved())
        grant = await self.limiter.acquire(
            LIMIT, tokens=21, timeout_s=5, cost_usd_micros=test_sweep.MOST_MICROS, note=self.writer.opened(asked)
        )
        return grant._replace(reservation=asked.reservation)

    def budget(self) -> tuple[int, float]:
        with connect(self.other._url) as client:
            (fleet,) = read_budgets(client, FLEET)
        return fleet.amounts[0].spent_picos, fleet.reserved_usd


def run(redis_url: str, body: Callable[[Fleet], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test_sweep.until_closed(Fleet(redis_url), body)

    asyncio.run(whole())


@pytest.mark.parametrize(
    "point",
    [{"before": "enter_lost.lua"}, {"after": "enter_lost.lua"}, {"before": "settle.lua"}, {"after": "settle.lua"},
     {"before": "HDEL"}, {"after": "HDEL"}],
)  # fmt: skip
def test_a_dead_call_is_charged_once_at_what_the_bill_has_wherever_its_sweep_dies(
    redis_url: str, point: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "DEAD_S", -2.0)

    async def body(fleet: Fleet) -> None:
        await fleet.granted()
        assert await spending.end_the_dead(fleet.other) == 0  # it may have been sent: the bill's sweep decides
        fleet.other.before, fleet.other.after = point.get("before", ""), point.get("after", "")
        with pytest.raises(Killed):
            await fleet.sweep()
        fleet.other.before = fleet.other.after = ""
        await spending.end_the_dead(fleet.other)
        for _ in range(2):
            await fleet.sweep()
            assert await spending.end_the_dead(fleet.other) == 0
            assert (fleet.total(), fleet.budget(), await fleet.notes()) == (RESERVED, (NOTED, 0.0), 0)

    run(redis_url, body)


def test_what_was_reserved_for_calls_that_had_no_turn_is_given_back_and_counted_if_they_come_after_all(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(fleet: Fleet) -> None:
        waiting = await fleet.reserved()
        assert await spending.end_the_dead(fleet.other) == 0  # its process may be slow to report
        monkeypatch.setattr(spending, "DEAD_S", -2.0)
        assert [await spending.end_the_dead(fleet.other) for _ in range(2)] == [1, 0]
        assert fleet.budget() == (0, 0.0)
        fleet.keeper.settle(waiting, SPENT)  # it was only cut off
        await fleet.keeper.counted()
        assert fleet.budget() == (SPENT, 0.0)
        assert await spending.forget_lapsed(fleet.other) == 0

    run(redis_url, body)


@pytest.mark.parametrize(
    ("point", "bill", "spent"),
    [({"after": "settle.lua"}, RESERVED, SPENT), ({"before": "bill.lua"}, RESERVED, SPENT),
     ({"after": "bill.lua"}, SETTLED, SPENT), ({"before": "settle.lua"}, RESERVED, NOTED)],
)  # fmt: skip
def test_a_process_that_dies_while_it_settles_has_told_its_budgets_before_the_bill(
    redis_url: str, point: dict[str, str], bill: object, spent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets may know what a call cost of which the bill does not, and never the other way round."""
    monkeypatch.setattr(spending, "DEAD_S", -2.0)

    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        fleet.mine.before, fleet.mine.after = point.get("before", ""), point.get("after", "")
        fleet.writer.enter(fleet.settled(grant))
        fleet.keeper.settle(grant.reservation, SPENT)
        if "settle.lua" in point.values():
            assert fleet.keeper._settling is not None
            with pytest.raises(Killed):
                await fleet.keeper._settling
        else:
            await fleet.die(**point)
        assert await spending.end_the_dead(fleet.other) == 0
        await fleet.sweep()
        assert await spending.end_the_dead(fleet.other) == 0
        assert (fleet.total(), fleet.budget()) == (bill, (spent, 0.0))

    run(redis_url, body)


@pytest.mark.parametrize("dies", ["", "before", "after"])
def test_a_check_that_resolves_a_call_corrects_its_charge_in_the_same_step(
    redis_url: str, dies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(fleet: Fleet) -> None:
        grant, late = await fleet.granted(), await fleet.granted()
        await fleet.sweep()
        real = checking.run_scripts_together

        def dying(*call: Any) -> list[Any]:
            if dies == "after":
                real(*call)
            raise Killed

        with connect(redis_url) as client:
            listed = {one.entry.id: one for one in read_unknown(client)}
            before = listed[grant.ticket]
            settled = before.entry._replace(state="settled", usage=entry().usage, usd_picos=SPENT)
            if dies:
                with monkeypatch.context() as patched, pytest.raises(Killed):
                    patched.setattr(checking, "run_scripts_together", dying)
                    checking.resolve(client, before, settled)
            done = [checking.resolve(client, before, settled) for _ in range(2)]
            assert done == [None if dies == "after" else checking.Resolved(settled, True), None]
            assert (fleet.total(), fleet.budget()) == (RESERVED + SETTLED, (NOTED + SPENT, 0.0))

            client.delete(bill_keys.lapsed())  # a day has passed
            before = listed[late.ticket]
            settled = before.entry._replace(state="settled", usage=entry().usage, usd_picos=SPENT)
            assert checking.resolve(client, before, settled) == checking.Resolved(settled, False)
        assert (fleet.total(), fleet.budget()) == (SETTLED + SETTLED, (NOTED + SPENT, 0.0))

    run(redis_url, body)


def test_what_a_process_settles_late_takes_the_place_of_its_charge_and_old_charges_are_forgotten(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(fleet: Fleet) -> None:
        late, lost = await fleet.granted(), await fleet.granted()
        await fleet.sweep()
        assert fleet.budget() == (2 * NOTED, 0.0)
        fleet.writer.enter(fleet.settled(late))
        fleet.keeper.settle(late.reservation, SPENT)
        await fleet.writer.close()
        assert (fleet.total(), fleet.budget()) == (RESERVED + SETTLED, (NOTED + SPENT, 0.0))
        monkeypatch.setattr(spending, "LAPSED_S", -2.0)
        assert [await spending.forget_lapsed(fleet.other) for _ in range(2)] == [1, 0]
        fleet.keeper.settle(lost.reservation, SPENT)
        await fleet.keeper.counted()
        assert fleet.budget() == (NOTED + SPENT, 0.0)

    run(redis_url, body)


def test_a_call_that_was_cut_is_charged_as_the_bill_has_it_and_a_check_corrects_both(redis_url: str) -> None:
    async def body(fleet: Fleet) -> None:
        grant = await fleet.granted()
        cut = entry(id=grant.ticket, state="unknown", usd_picos=NOTED, usage=Usage(), reservation=grant.reservation)
        fleet.writer.enter(cut)
        fleet.keeper.settle(grant.reservation, NOTED, is_unknown=True)
        await fleet.writer.close()
        with connect(redis_url) as client:
            (before,) = read_unknown(client)
            assert (before.entry.usd_picos, fleet.budget()) == (NOTED, (NOTED, 0.0))
            settled = before.entry._replace(state="settled", usage=entry().usage, usd_picos=SPENT)
            assert checking.resolve(client, before, settled) == checking.Resolved(settled, True)
        assert fleet.budget() == (SPENT, 0.0)

    run(redis_url, body)


def test_what_a_child_had_reserved_is_given_back_once_it_has_ended_though_its_worker_lives(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "DEAD_S", -2.0)
    monkeypatch.setattr(spending, "split_reports", lambda rows, now_s: ([SimpleNamespace(process="p1")], []))

    async def body(fleet: Fleet) -> None:
        fleet.keeper = BudgetKeeper(fleet.mine, FLEET, process="p1/a")
        await fleet.reserved()
        ends = [await spending.end_the_dead(fleet.other, gone) for gone in ([], ["p1/b"], ["p1/a"])]
        assert (ends, fleet.budget()) == ([0, 0, 1], (0, 0.0))

    run(redis_url, body)
