"""What a call does to the budgets that count it, however it ends: reserved once, settled once, never sent without."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fleet.config import When
from fleet.errors import BadRequest, FleetError, MachineExhausted, NotSoon, ProviderUnavailable, RateLimited
from fleet.grants import Caller
from fleet.models import Priority
from fleet.waits import Wait
from fleet.workers.meter import Meter
from fleet.workers.rungs import Rung
from tests.workers.fakes import FakeBreakers, FakeLimiter, FakeProvider, a_gateway, said
from tests.workers.test_gateway import RESERVED, Learnt, chat

#: A micro-dollar a token, in 10^-12 dollars.
MICRO = 10**6
#: What the bill enters for a call of which nobody knows the cost: without a note, the most that it may cost.
NOTED = RESERVED * MICRO
FULL = Wait("money", 2_000_000_000.0, "budget fleet, a day")


class FakeBudgets:
    """Budgets of one scope; remembers what was reserved and settled."""

    def __init__(self, *, scopes: tuple[str, ...] = ("fleet",), full: Wait | None = None, left: float = 0.0) -> None:
        self.scopes, self.full, self.left = scopes, full, left
        self.asked: list[float] = []
        self.reserved: list[float] = []
        self.settled: list[tuple[str, int | None]] = []
        self.unknown: set[str] = set()

    def counting(self, pool: str, caller: Caller) -> tuple[str, ...]:
        return self.scopes

    async def reserve(
        self, scopes: tuple[str, ...], usd_micros: float, *, priority: Priority, is_learnt: bool = True
    ) -> str:
        await asyncio.sleep(0)
        self.asked.append(usd_micros)
        if self.full is not None and usd_micros > self.left:
            raise NotSoon(self.full)
        self.reserved.append(usd_micros)
        return f"r{len(self.reserved)}"

    def settle(self, reservation: str, usd_picos: int | None, *, is_unknown: bool = False) -> None:
        self.settled.append((reservation, usd_picos))
        if is_unknown:
            self.unknown.add(reservation)


def call(
    budgets: FakeBudgets,
    *replies: object,
    limiter: FakeLimiter | None = None,
    breakers: FakeBreakers | None = None,
    usd_a_token: float = 1e-6,
) -> tuple[FakeLimiter, FakeProvider]:
    """Make one call at a micro-dollar a token, and return who was asked."""
    limiter = limiter or FakeLimiter()
    provider = FakeProvider(list(replies))  # type: ignore[arg-type]
    gateway = a_gateway(
        limiter, provider, price=lambda model, usage, tier: round(usage.total_tokens * usd_a_token * 10**12),
        costs=Learnt(default=0.5), breakers=breakers, budgets=budgets,
    )  # fmt: skip
    asyncio.run(chat(gateway, Meter()))
    return limiter, provider


def test_what_calls_of_a_kind_mostly_cost_is_reserved_and_what_it_cost_is_settled() -> None:
    budgets = FakeBudgets()
    limiter, _ = call(budgets, said("hi", input_tokens=20, output_tokens=3))
    assert budgets.reserved == [RESERVED * 0.5]
    assert [grant.reserved_tokens for grant in limiter.granted] == [RESERVED]
    assert budgets.settled == [("r1", 23 * MICRO)]


@pytest.mark.parametrize(
    ("error", "picos"),
    [
        (RateLimited("429"), 0),
        (BadRequest("400"), 0),
        (ProviderUnavailable("no connection", sent=False), 0),
        (MachineExhausted("no more files"), 0),
        (ProviderUnavailable("503"), NOTED),  # it may have been served
        (ZeroDivisionError("a bug in an adapter"), NOTED),
    ],
)
def test_what_surely_cost_nothing_gives_all_back_and_the_rest_is_charged_as_the_bill_has_it(
    error: Exception, picos: int
) -> None:
    budgets = FakeBudgets()
    with pytest.raises(type(error)):
        call(budgets, error)
    assert budgets.settled == [("r1", picos)]
    assert budgets.unknown == ({"r1"} if picos else set())


def test_without_room_in_a_budget_neither_breaker_nor_limiter_nor_provider_is_asked() -> None:
    limiter, breakers = FakeLimiter(), FakeBreakers(waits=[Wait("outage")])
    with pytest.raises(NotSoon) as caught:
        call(FakeBudgets(full=FULL), said("hi"), limiter=limiter, breakers=breakers)
    assert caught.value.wait() == FULL
    assert (limiter.callers, breakers.waits) == ([], [Wait("outage")])


class Teaching(Learnt):
    """What the fleet has learnt, of which this process has heard only some."""

    async def share(self, limit: str, kind: str, *, newest: bool = False) -> float:
        return 0.3 if newest else 0.5


@pytest.mark.parametrize(("left", "is_sent"), [(0.4, True), (0.2, False)])
def test_a_call_without_money_asks_once_more_by_what_the_last_answers_have_taught(left: float, is_sent: bool) -> None:
    budgets, provider = FakeBudgets(full=FULL, left=RESERVED * left), FakeProvider([said("hi")])
    gateway = a_gateway(
        FakeLimiter(), provider, price=lambda model, usage, tier: usage.total_tokens * MICRO, costs=Teaching(),
        budgets=budgets,
    )  # fmt: skip
    if is_sent:
        asyncio.run(chat(gateway, Meter()))
    else:
        with pytest.raises(NotSoon):
            asyncio.run(chat(gateway, Meter()))
    assert budgets.asked == pytest.approx([RESERVED * 0.5, RESERVED * 0.3])
    assert len(budgets.reserved) == int(is_sent)


@pytest.mark.parametrize("refusal", [NotSoon(Wait("limit", 9.0)), FleetError("no Redis")])
def test_a_refusal_of_the_limiter_gives_all_back(refusal: FleetError) -> None:
    budgets = FakeBudgets()
    with pytest.raises(type(refusal)):
        call(budgets, said("hi"), limiter=FakeLimiter(errors=[refusal]))
    assert budgets.settled == [("r1", 0)]


@pytest.mark.parametrize(("scopes", "usd"), [((), 1e-6), (("fleet",), 0.0)])
def test_a_call_that_no_budget_counts_or_that_costs_nothing_reserves_nothing(
    scopes: tuple[str, ...], usd: float
) -> None:
    budgets = FakeBudgets(scopes=scopes, full=FULL)
    call(budgets, said("hi"), usd_a_token=usd)
    assert (budgets.reserved, budgets.settled) == ([], [])


def test_a_call_cancelled_at_any_step_settles_its_reservation_once() -> None:
    async def cancelled_after(steps: int) -> tuple[FakeBudgets, bool]:
        budgets, provider = FakeBudgets(), FakeProvider([said("hi")], steps=4)
        gateway = a_gateway(
            FakeLimiter(), provider, price=lambda model, usage, tier: usage.total_tokens * MICRO, budgets=budgets
        )
        job = asyncio.ensure_future(chat(gateway, Meter()))
        for _ in range(steps):
            await asyncio.sleep(0)
        job.cancel()
        await asyncio.wait([job])
        return budgets, bool(provider.calls)

    seen = set()
    for steps in range(14):
        budgets, was_sent = asyncio.run(cancelled_after(steps))
        assert [one for one, _ in budgets.settled] == [f"r{n + 1}" for n in range(len(budgets.reserved))]
        seen.add((was_sent, *(picos for _, picos in budgets.settled)))
    assert seen == {(False,), (False, 0), (True, NOTED), (True, 15 * MICRO)}


@pytest.mark.parametrize(
    ("wait", "when", "is_taken"),
    [
        (replace(FULL, degrades=True), ("outage",), True),
        (FULL, ("outage",), False),
        (FULL, ("budget",), True),
        (Wait("budget", None, "budget fleet, in all"), ("budget",), True),
        (Wait("budget", None, "budget fleet, in all", degrades=True), ("key",), True),
        (Wait("outage", degrades=True), ("key",), False),
    ],
)
def test_a_used_up_budget_goes_down_the_ladder_where_it_degrades_or_a_rung_names_it(
    wait: Wait, when: tuple[When, ...], is_taken: bool
) -> None:
    rung = Rung(1, None, "a text", frozenset(when))
    assert rung.takes(Rung(0, None), wait) is is_taken
    assert Wait.from_json(wait.to_json()) == wait
