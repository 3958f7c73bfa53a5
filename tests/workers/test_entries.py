"""Every call that was granted is entered into the bill once, as what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from fleet.conversation import Message
from fleet.entries import Entry
from fleet.errors import (
    BadRequest,
    FleetError,
    KeyRejected,
    MachineExhausted,
    ProviderUnavailable,
    RateLimited,
)
from fleet.grants import Caller, Grant
from fleet.usage import Usage
from fleet.waits import Wait
from fleet.workers.calls import Call, Completion, Delta, Wishes
from fleet.workers.deadline import Deadline
from fleet.workers.meter import Meter
from fleet.workers.streaming import Streaming
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider, a_gateway, said

#: What a call is taken to cost of which nobody tells, in micro-dollars.
RESERVED_MICROS = 7.5
CALLER = Caller("research-001", kind="sums", tenant="acme", run="r1")


@dataclass
class FakeBill:
    """Keeps what it is told."""

    asked: list[Entry] = field(default_factory=list)
    entered: list[Entry] = field(default_factory=list)
    voids: list[tuple[str, str]] = field(default_factory=list)

    def opened(self, asked: Entry) -> str:
        self.asked.append(asked)
        return "a note"

    def enter(self, entry: Entry) -> None:
        self.entered.append(entry)

    def void(self, limit: str, ticket: str) -> None:
        self.voids.append((limit, ticket))


class NotingLimiter(FakeLimiter):
    """Tells what it takes to be the cost of a call, when it is given a note."""

    async def acquire(self, limit: str, *, note: str = "", **asked: object) -> Grant:  # type: ignore[override]
        grant = await super().acquire(limit, **asked)  # type: ignore[arg-type]
        grant = grant._replace(ticket="t-1", noted_usd_micros=RESERVED_MICROS if note == "a note" else 0)
        self.granted[-1] = grant
        return grant


def entered(
    reply: Completion | Exception | str, *, within_s: float = 5.0, wishes: Wishes | None = None, is_priced: bool = True,
    breakers: FakeBreakers | None = None,
) -> FakeBill:  # fmt: skip
    """Make one call that is answered by `reply`."""
    bill = FakeBill()
    gateway = a_gateway(
        NotingLimiter(), FakeProvider([reply]), bill=bill, breakers=breakers or FakeBreakers(), clock=lambda: 1000.0,
        price=lambda model, usage, tier: usage.total_tokens * (2 if tier == "flex" else 1) if is_priced else None,
    )  # fmt: skip

    async def chat() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        if within_s < 1:
            loop.call_later(within_s, task.cancel)
        await gateway.chat(
            "research", (Message(role="user", content="a very private prompt"),), temperature=None,
            max_output_tokens=100, deadline=Deadline(loop.time() + 5), meter=Meter("task-1"), caller=CALLER,
            **({} if wishes is None else {"wishes": wishes}),
        )  # fmt: skip

    with suppress(FleetError, ZeroDivisionError, asyncio.CancelledError):
        asyncio.run(chat())
    return bill


def test_an_answered_call_is_entered_at_its_price_with_all_that_is_known_of_it() -> None:
    (entry,) = entered(said("hi", input_tokens=20, output_tokens=3)).entered
    assert entry == Entry(
        "t-1", "task-1", "research", "research-001", "acme", "sums", "r1", LIMIT, "",
        Usage(input_tokens=20, output_tokens=3), 23, "settled", 1000.0,
    )  # fmt: skip


def test_the_tier_that_answered_is_entered_and_priced() -> None:
    answer = Completion("hi", "stop", Usage(input_tokens=20, output_tokens=3), tier="flex")
    (entry,) = entered(answer, wishes=Wishes(tier="auto")).entered
    assert (entry.tier, entry.usd_picos) == ("flex", 46)


def test_a_model_without_a_price_is_entered_without_an_amount() -> None:
    (entry,) = entered(said("hi"), is_priced=False).entered
    assert (entry.usd_picos, entry.state) == (None, "settled")
    (entry,) = entered(ProviderUnavailable("503"), is_priced=False).entered
    assert (entry.usd_picos, entry.state) == (None, "unknown")


@pytest.mark.parametrize(
    "error",
    [RateLimited("429"), KeyRejected("401"), BadRequest("400"), ProviderUnavailable("no connection", sent=False),
     ProviderUnavailable("503", refused=True)],
)  # fmt: skip
def test_what_the_provider_surely_did_not_count_is_settled_at_nothing(error: FleetError) -> None:
    (entry,) = entered(error).entered
    assert (entry.state, entry.usd_picos, entry.usage) == ("settled", 0, Usage())


def test_a_failure_that_tells_its_usage_is_settled_at_that() -> None:
    error = ProviderUnavailable("503 in the middle")
    error.usage = Usage(input_tokens=5)
    (entry,) = entered(error).entered
    assert (entry.state, entry.usd_picos, entry.usage) == ("settled", 5, Usage(input_tokens=5))


@pytest.mark.parametrize("reply", [ProviderUnavailable("503"), ZeroDivisionError("a bug in an adapter"), "hang"])
def test_what_was_sent_and_is_not_told_is_unknown_at_what_was_reserved(reply: Exception | str) -> None:
    (entry,) = entered(reply, within_s=0.05 if reply == "hang" else 5).entered
    assert (entry.state, entry.usd_picos) == ("unknown", 7_500_000)


class CutStream(FakeProvider):
    """Tells a piece of its answer and what that has used, and breaks off."""

    async def stream(self, call: Call, *, api_key: str) -> AsyncGenerator[Delta | Completion]:
        yield Delta("a piece", usage=Usage(input_tokens=20, output_tokens=1))
        raise ProviderUnavailable("the stream broke off")


def test_a_stream_that_is_cut_is_unknown_with_what_is_known_of_it() -> None:
    bill = FakeBill()
    gateway = a_gateway(NotingLimiter(), CutStream(["unused"]), bill=bill, price=lambda model, usage, tier: 1)

    async def chat() -> None:
        deadline = Deadline(asyncio.get_running_loop().time() + 5)
        await gateway.chat(
            "research", (Message(role="user", content="a prompt"),), temperature=None, max_output_tokens=100,
            deadline=deadline, meter=Meter("task-1"), caller=CALLER, streaming=Streaming(lambda text: None),
        )  # fmt: skip

    with pytest.raises(ProviderUnavailable):
        asyncio.run(chat())
    (entry,) = bill.entered
    assert (entry.state, entry.usd_picos, entry.usage.input_tokens) == ("unknown", 7_500_000, 20)


def test_a_call_that_was_granted_and_not_sent_is_void() -> None:
    bill = entered(MachineExhausted("no room for a connection"))
    assert (bill.entered, bill.voids) == ([], [(LIMIT, "t-1")])

    class Opens(FakeBreakers):
        """Opens while the call waits for its grant."""

        def standing(self, limit: str) -> Wait | None:
            return Wait("outage", about=limit)

    bill = entered(said("hi"), breakers=Opens())
    assert (bill.entered, bill.voids) == ([], [(LIMIT, "t-1")])


def test_a_call_that_gets_no_grant_is_not_entered() -> None:
    bill = entered(said("hi"), breakers=FakeBreakers(waits=[Wait("outage", about=LIMIT)]))
    assert (bill.entered, bill.voids) == ([], [])
