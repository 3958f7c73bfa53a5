from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleet.conversation import Message
from fleet.errors import (
    BadRequest,
    DeadlineExceeded,
    FleetError,
    InvalidTask,
    KeyRejected,
    KeySpent,
    MachineExhausted,
    NotServed,
    NotSoon,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
    StoreUnavailable,
    TooExpensive,
)
from fleet.grants import Grant
from fleet.rates import RateReading
from fleet.usage import Usage
from fleet.waits import Ruling, Wait
from fleet.workers.calls import PLAIN, Completion, Wishes
from fleet.workers.context import count_message_tokens
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway
from fleet.workers.load import UNSEEN_TOKENS
from fleet.workers.meter import Meter
from fleet.workers.passage import DEFAULT_HOLD_S
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider, a_gateway, said

MESSAGES = (Message(role="user", content="a very private prompt"),)
RESERVED = count_message_tokens(MESSAGES) + 100


async def chat(gateway: Gateway, meter: Meter, *, within_s: float = 5.0, wishes: Wishes = PLAIN) -> Completion:
    deadline = Deadline(asyncio.get_running_loop().time() + within_s)
    return await gateway.chat(
        "research", MESSAGES, temperature=0.5, max_output_tokens=100, deadline=deadline, meter=meter, wishes=wishes
    )


def send(
    reply: Completion | Exception, limiter: FakeLimiter | None = None
) -> tuple[FakeLimiter, FakeProvider, Meter, object]:
    """Make one call that is answered by `reply`; return what came out beside limiter, provider and meter."""
    limiter, provider, meter = limiter or FakeLimiter(), FakeProvider([reply]), Meter()
    try:
        came: object = asyncio.run(chat(a_gateway(limiter, provider), meter))
    except (FleetError, ZeroDivisionError) as error:
        came = error
    return limiter, provider, meter, came


def test_a_call_reserves_its_input_and_its_longest_answer_and_settles_what_it_used():
    limiter, provider, meter, came = send(said("hi", input_tokens=20, output_tokens=3))
    assert came == said("hi", input_tokens=20, output_tokens=3)
    assert [grant.reserved_tokens for grant in limiter.granted] == [RESERVED]
    assert [used for _, used in limiter.settled] == [23]
    assert (meter.calls, meter.usage.input_tokens, meter.usage.output_tokens) == (1, 20, 3)
    assert (provider.calls[0].model, provider.calls[0].temperature, provider.keys) == ("model-1", 0.5, ["s3cret"])


def test_an_answer_without_a_usage_is_settled_as_the_whole_reservation():
    limiter, *_ = send(said("hi", input_tokens=0, output_tokens=0))
    assert [used for _, used in limiter.settled] == [RESERVED]


@pytest.mark.parametrize(
    ("error", "used"),
    [
        (RateLimited("429"), 0),
        (KeyRejected("401"), 0),
        (BadRequest("400"), 0),
        (NotServed("404"), 0),
        (KeySpent("402"), 0),
        (ProviderUnavailable("503"), RESERVED),
        (ProviderUnavailable("no connection", sent=False), 0),
        (ZeroDivisionError("a bug in an adapter"), RESERVED),
    ],
)
def test_a_failed_call_is_raised_and_settled_by_what_the_provider_may_have_counted(error: Exception, used: int):
    limiter, provider, meter, came = send(error)
    assert came is error
    assert limiter.is_settled_once and [tokens for _, tokens in limiter.settled] == [used]
    assert len(provider.calls) == meter.calls == 1


def with_usage(error: FleetError, **tokens: int) -> FleetError:
    error.usage = Usage(**tokens)
    return error


@pytest.mark.parametrize(
    ("tokens", "used", "cost"),
    [({}, 0, None), ({"input_tokens": 20, "output_tokens": 3}, 23, 23), ({"output_tokens": 10**12}, 4196, 4196)],
)
@pytest.mark.parametrize("kind", [RateLimited, ProviderUnavailable, BadRequest])
def test_an_error_in_an_answer_is_charged_by_what_it_reports_and_no_more_than_is_possible(
    kind: type[FleetError], tokens: dict[str, int], used: int, cost: int | None
):
    limiter, meter = FakeLimiter(), Meter()
    provider = FakeProvider([with_usage(kind("in a 200"), **tokens)])
    gateway = a_gateway(limiter, provider, price=lambda model, usage, tier: usage.total_tokens)
    with pytest.raises(kind):
        asyncio.run(chat(gateway, meter))
    assert [tokens for _, tokens in limiter.settled] == [used]
    assert (meter.usage.total_tokens, meter.cost_usd_picos) == (used, cost)


@pytest.mark.parametrize(("told", "hold"), [(None, DEFAULT_HOLD_S), (0.0, 0.0), (7.5, 7.5)])
def test_a_429_holds_the_whole_fleet_for_as_long_as_the_provider_said(told: float | None, hold: float):
    limiter, _, meter, _ = send(RateLimited("429", retry_after_s=told))
    assert limiter.holds == [(LIMIT, hold)] and meter.failed == {"RateLimited": 1}


@pytest.mark.parametrize("most", [0, 5])
def test_a_429_for_too_many_calls_at_once_narrows_the_limit_and_holds_nobody(most: int):
    limiter, _, meter, _ = send(RateLimited("429", retry_after_s=60, parallel=True, most_parallel=most))
    assert (limiter.narrowed, limiter.holds, meter.failed) == ([(LIMIT, most)], [], {"RateLimited": 1})


def test_what_was_read_from_the_providers_cache_is_told_when_it_is_known():
    used = Usage(input_tokens=20, output_tokens=3, cached_tokens=15)
    limiter, *_ = send(Completion("hi", "stop", used))
    assert ([tokens for _, tokens in limiter.settled], limiter.cached) == ([23], [15])
    limiter, *_ = send(ProviderUnavailable("503"))
    assert limiter.cached == [None]


def test_what_headers_say_of_the_rates_reaches_the_limiter_whenever_it_listens():
    nothing = RateReading()
    told = Completion("4", "stop", Usage(), headers={"x-ratelimit-limit-requests": "9"})
    limiter, *_ = send(told)
    assert limiter.readings == [(RateReading(9), nothing, nothing, nothing)]
    limiter, *_ = send(RateLimited("429", rates=(RateReading(9, 0), nothing, nothing, nothing)))
    assert limiter.readings == [(RateReading(9, 0), nothing, nothing, nothing)]
    limiter, *_ = send(said("4"))
    assert limiter.readings == [None]
    limiter, *_ = send(told, limiter=FakeLimiter(is_listening=False))  # it has just heard: headers cost time to read
    assert limiter.readings == [None]


def test_only_a_429_holds_the_fleet():
    limiter, *_ = send(ProviderUnavailable("503", retry_after_s=30))
    assert limiter.holds == []


def test_the_price_of_each_call_is_summed():
    limiter, provider, meter = FakeLimiter(), FakeProvider([said("hi", input_tokens=20, output_tokens=3)]), Meter()
    gateway = a_gateway(
        limiter, provider, price=lambda model, usage, tier: usage.total_tokens if model == "api/model-1" else 0
    )

    async def twice() -> None:
        await chat(gateway, meter)
        await chat(gateway, meter)

    asyncio.run(twice())
    assert meter.cost_usd_picos == 46


@dataclass
class MoneyLimiter(FakeLimiter):
    """Writes down what is reserved and settled of a day's money, in micro-dollars."""

    reserved: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)

    async def acquire(self, limit: str, *, cost_usd_micros: float = 0, **asked: Any) -> Grant:
        self.reserved.append(cost_usd_micros)
        grant = await super().acquire(limit, **asked)
        return grant._replace(cost_usd_micros=cost_usd_micros)

    def settle(self, grant: Grant, *, used_tokens: int, cost_usd_micros: float = 0, **used: Any) -> None:
        self.spent.append(cost_usd_micros)


def a_cost(model: str, usage: Usage, tier: str | None) -> int | None:
    """A pico-dollar a token; half of it in the tier `flex`; nobody knows what another costs."""
    rate = {None: 2, "flex": 1}.get(tier)
    return None if rate is None else rate * (usage.total_tokens - usage.cached_tokens) * 500_000


@pytest.mark.parametrize(
    ("asked", "answered", "reserved", "paid"),
    [
        (None, None, RESERVED, 23_000_000),
        ("flex", None, RESERVED / 2, 11_500_000),
        ("flex", "flex", RESERVED / 2, 11_500_000),
        (None, "flex", RESERVED, 11_500_000),
        ("flex", "turbo", RESERVED / 2, None),
    ],
)
def test_the_tier_that_is_asked_is_reserved_and_the_one_that_answered_is_paid(
    asked: str | None, answered: str | None, reserved: float, paid: int | None
) -> None:
    limiter, meter = MoneyLimiter(), Meter()
    reply = replace(said("hi", input_tokens=20, output_tokens=3), tier=answered)
    gateway = a_gateway(limiter, FakeProvider([reply]), price=a_cost)
    asyncio.run(chat(gateway, meter, wishes=Wishes(tier=asked)))
    assert limiter.reserved == [reserved]
    assert meter.cost_usd_picos == paid
    assert limiter.spent == [
        23.0 if paid is None else paid / 10**6
    ]  # a budget counts an unpriced tier as the usual one


@pytest.mark.parametrize(
    ("error", "noted", "counted"),
    [
        (ProviderUnavailable("503", refused=True), 7.5, 0.0),
        (ProviderUnavailable("no connection", sent=False), 7.5, 0.0),
        (ProviderUnavailable("no answer in time", timed_out=True), 7.5, 7.5),
        (ProviderUnavailable("no answer in time", timed_out=True), 0.0, RESERVED),
    ],
)
def test_a_limits_day_counts_for_a_failed_call_what_the_bill_enters(
    error: ProviderUnavailable, noted: float, counted: float
) -> None:
    class Noting(MoneyLimiter):
        async def acquire(self, limit: str, **asked: Any) -> Grant:
            return (await super().acquire(limit, **asked))._replace(noted_usd_micros=noted)

    limiter = Noting()
    with pytest.raises(ProviderUnavailable):
        asyncio.run(chat(a_gateway(limiter, FakeProvider([error]), price=a_cost), Meter()))
    assert limiter.spent == [counted]


def test_each_of_several_answers_is_reserved_with_its_price() -> None:
    limiter = MoneyLimiter()
    gateway = a_gateway(limiter, FakeProvider([said("hi")]), price=a_cost)
    asyncio.run(chat(gateway, Meter(), wishes=Wishes(n=3)))
    assert limiter.reserved == [RESERVED + 200]
    assert [grant.reserved_tokens for grant in limiter.granted] == [RESERVED + 200]


def test_input_is_reserved_at_the_price_of_writing_it_to_a_cache() -> None:
    def price(model: str, usage: Usage, tier: str | None) -> int:
        return usage.input_tokens * 10**6 + usage.cache_write_tokens * 250_000

    limiter = MoneyLimiter()
    asyncio.run(chat(a_gateway(limiter, FakeProvider([said("hi")]), price=price), Meter()))
    assert limiter.reserved == [(RESERVED - 100) * 1.25]


def test_what_was_cached_is_reserved_as_if_it_was_not_and_settled_as_it_was() -> None:
    limiter, meter = MoneyLimiter(), Meter()
    reply = Completion("hi", "stop", Usage(input_tokens=20, cached_tokens=18, output_tokens=3))
    asyncio.run(chat(a_gateway(limiter, FakeProvider([reply]), price=a_cost), meter))
    assert (limiter.reserved, limiter.spent, meter.usage.cached_tokens) == ([RESERVED], [5.0], 18)


def test_no_class_of_an_absurd_usage_is_believed() -> None:
    absurd = Usage(input_tokens=10**9, cached_tokens=10**9, output_tokens=10**9, reasoning_tokens=10**9)
    _, _, meter, _ = send(Completion("hi", "stop", absurd))
    assert meter.usage.cached_tokens == meter.usage.input_tokens < UNSEEN_TOKENS + 100
    assert meter.usage.reasoning_tokens == meter.usage.output_tokens == UNSEEN_TOKENS + 100


def test_a_model_without_a_price_leaves_the_cost_unknown():
    assert send(said("hi"))[2].cost_usd_picos is None


@pytest.mark.parametrize("error", [StoreUnavailable("no Redis"), NotSoon(Wait("hold"))])
def test_without_a_grant_nothing_is_sent(error: FleetError):
    limiter, provider, meter = FakeLimiter(errors=[error]), FakeProvider([said("hi")]), Meter()
    with pytest.raises(type(error)):
        asyncio.run(chat(a_gateway(limiter, provider), meter))
    assert provider.calls == [] and meter.calls == 0 and limiter.settled == []


def test_a_grant_that_comes_later_than_the_deadline_is_used_for_waiting_does_not_count():
    limiter, provider = FakeLimiter(wait_s=0.1), FakeProvider([said("hi")])
    assert asyncio.run(chat(a_gateway(limiter, provider), Meter(), within_s=0.02)) == said("hi")
    assert (len(provider.calls), limiter.is_settled_once) == (1, True)


def test_one_http_request_has_the_time_that_its_provider_is_given_whatever_the_deadline():
    provider = FakeProvider([said("hi")])
    asyncio.run(chat(a_gateway(FakeLimiter(), provider, timeout_s=40), Meter(), within_s=3.0))
    assert provider.calls[0].timeout_s == 40


def test_an_answer_after_the_deadline_is_paid_and_is_none():
    class Slow(FakeProvider):
        async def complete(self, call: Any, *, api_key: str) -> Completion:
            await asyncio.sleep(0.05)
            return await super().complete(call, api_key=api_key)

    limiter, meter = FakeLimiter(), Meter()
    with pytest.raises(DeadlineExceeded):
        asyncio.run(chat(a_gateway(limiter, Slow([said("hi")])), meter, within_s=0.02))
    assert meter.usage.total_tokens == 15 and [used for _, used in limiter.settled] == [15]


OUTAGE = Wait("outage", 1e10, about=LIMIT, told="503", probe_every_s=1.0)


@pytest.mark.parametrize(
    ("error", "is_told", "is_spared", "did_well"),
    [
        (ProviderUnavailable("503"), True, False, False),
        (ProviderUnavailable("no connection", sent=False), True, False, False),
        (KeyRejected("401"), True, False, False),
        (KeySpent("402"), True, False, False),
        (NotServed("404"), True, False, False),
        (RateLimited("429"), False, True, False),
        (MachineExhausted("no files"), False, True, False),
        (BadRequest("400"), False, False, True),
        (Relearnt("no temperature"), False, False, True),
        (ZeroDivisionError("a bug"), False, True, False),
    ],
)
def test_the_breaker_hears_of_failures_and_of_refusals_as_of_answers(
    error: Exception, is_told: bool, is_spared: bool, did_well: bool
) -> None:
    ruling = Ruling(OUTAGE, 0.0, counts=1.0)
    breakers = FakeBreakers(probes=True, rulings=[ruling])
    with pytest.raises(type(error)):
        asyncio.run(chat(a_gateway(FakeLimiter(), FakeProvider([error]), breakers=breakers), Meter("t1")))
    assert [(who, is_probe) for _, who, _, is_probe in breakers.failures] == [("t1", True)] * is_told
    assert (breakers.spared == 1, breakers.well) == (is_spared, [("t1", True)] * did_well)
    assert getattr(error, "ruling", None) == (ruling if is_told else None)


def test_before_an_open_breaker_nothing_is_asked_of_the_limiter():
    limiter, provider = FakeLimiter(), FakeProvider([said("hi")])
    with pytest.raises(NotSoon) as raised:
        asyncio.run(chat(a_gateway(limiter, provider, breakers=FakeBreakers(waits=[OUTAGE])), Meter()))
    assert raised.value.wait() == OUTAGE and limiter.callers == provider.calls == []


def test_a_breaker_that_opens_while_a_call_waits_for_its_turn_gives_the_grant_back_unsent():
    limiter, provider = FakeLimiter(), FakeProvider([said("hi")])
    with pytest.raises(NotSoon):
        asyncio.run(chat(a_gateway(limiter, provider, breakers=FakeBreakers(stands=OUTAGE)), Meter()))
    assert provider.calls == [] and [used for _, used in limiter.settled] == [0]


@pytest.mark.parametrize("error", [NotSoon(Wait("hold")), StoreUnavailable("no Redis")])
def test_a_probe_that_gets_no_grant_is_given_back(error: FleetError):
    breakers = FakeBreakers(probes=True)
    with pytest.raises(type(error)):
        asyncio.run(chat(a_gateway(FakeLimiter(errors=[error]), FakeProvider(["hi"]), breakers=breakers), Meter()))
    assert breakers.spared == 1


def test_what_holds_a_pool_is_known_without_a_question():
    hold = Wait("hold", 1e10, about=LIMIT)
    open_gateway = a_gateway(FakeLimiter(), FakeProvider(["hi"]))
    assert open_gateway.closed("research") is None
    assert a_gateway(FakeLimiter(stands=hold), FakeProvider(["hi"])).closed("research") == hold
    broken = a_gateway(FakeLimiter(stands=hold), FakeProvider(["hi"]), breakers=FakeBreakers(stands=OUTAGE))
    assert broken.closed("research") == OUTAGE


def a_dollar_a_token(model: str, usage: Usage, tier: str | None) -> int:
    return usage.total_tokens * 10**12


def test_no_call_begins_that_what_is_left_of_the_tasks_money_does_not_pay_for():
    provider, worst = FakeProvider([said("hi")]), RESERVED + 0.5
    gateway = a_gateway(FakeLimiter(), provider, price=a_dollar_a_token)
    meter = Meter(most_picos=round(worst * 10**12))
    asyncio.run(chat(gateway, meter))
    with pytest.raises(TooExpensive, match="max_cost_usd: expected a call of at most"):
        asyncio.run(chat(gateway, meter))
    assert len(provider.calls) == 1 and meter.cost_usd_picos == 15 * 10**12 and meter.pending_picos == 0


@pytest.mark.parametrize("reason", ["error", "network_error", "OTHER", "what nobody knows", "sk-secret-0123456789"])
@pytest.mark.parametrize("text", ["Half an ans", ""])
def test_an_answer_that_broke_off_is_its_providers_failure_and_is_paid(reason: str, text: str):
    limiter, breakers, meter = FakeLimiter(), FakeBreakers(), Meter("t1")
    gateway = a_gateway(limiter, FakeProvider([said(text, finish_reason=reason)]), breakers=breakers)
    with pytest.raises(ProviderUnavailable, match="broke off") as failed:
        asyncio.run(chat(gateway, meter))
    assert failed.value.ruling is not None and "secret" not in str(failed.value)
    assert [name for name, *_ in breakers.failures] == ["ProviderUnavailable"] and breakers.well == []
    assert meter.usage.total_tokens == 15 and meter.failed == {"ProviderUnavailable": 1}
    assert [used for _, used in limiter.settled] == [15] and limiter.is_settled_once


class Learnt:
    """What the fleet has learnt of the costs of calls."""

    def __init__(self, **shares: float) -> None:
        self.shares = shares

    async def share(self, limit: str, kind: str, *, newest: bool = False) -> float:
        assert limit == LIMIT
        return self.shares.get(kind, 1.0)


def test_what_the_fleet_has_learnt_of_the_cost_of_a_kind_is_believed():
    gateway = a_gateway(FakeLimiter(), FakeProvider([said("hi")]), price=a_dollar_a_token, costs=Learnt(default=0.1))
    asyncio.run(chat(gateway, Meter(most_picos=RESERVED * 10**11 + 10**9)))  # far less than the worst case
    with pytest.raises(TooExpensive):
        asyncio.run(chat(gateway, Meter(most_picos=RESERVED * 10**11 - 10**9)))


def test_chats_at_once_do_not_spend_the_same_money_twice_also_while_they_wait_for_their_turn():
    limiter, provider = FakeLimiter(wait_s=0.02), FakeProvider([said("hi")])
    gateway = a_gateway(limiter, provider, price=a_dollar_a_token)
    meter = Meter(most_picos=round((RESERVED * 2 + 0.5) * 10**12))

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(chat(gateway, meter) for _ in range(4)), return_exceptions=True)

    found = asyncio.run(at_once())
    assert [type(one) for one in found] == [Completion, Completion, TooExpensive, TooExpensive]
    assert len(provider.calls) == 2 and meter.pending_picos == 0


def test_a_task_with_a_most_cost_is_refused_where_nobody_knows_the_price():
    provider = FakeProvider([said("hi")])
    with pytest.raises(InvalidTask, match="a price"):
        asyncio.run(chat(a_gateway(FakeLimiter(), provider), Meter(most_picos=10**12)))
    assert provider.calls == []


def test_a_call_cancelled_at_any_step_settles_every_grant_once():
    async def cancelled_after(steps: int) -> tuple[FakeLimiter, FakeProvider, bool]:
        limiter, provider = FakeLimiter(), FakeProvider([said("hi")], steps=4)
        work: Coroutine[Any, Any, Completion] = chat(a_gateway(limiter, provider), Meter())
        call = asyncio.ensure_future(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        return limiter, provider, call.cancelled()

    seen = set()
    for steps in range(12):
        limiter, provider, was_cut = asyncio.run(cancelled_after(steps))
        assert limiter.is_settled_once and len(provider.calls) == len(limiter.granted)
        if provider.calls and was_cut:
            assert [used for _, used in limiter.settled] == [RESERVED]
        seen.add((len(provider.calls), was_cut))
    assert seen == {(0, True), (1, True), (1, False)}


def test_neither_prompt_nor_key_reaches_the_log(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        send(BadRequest("400: you wrote 'a very private prompt'"))
    assert "call_failed limit=api/model-1/default error=BadRequest" in caplog.text
    assert "private" not in caplog.text and "s3cret" not in caplog.text


def test_a_route_does_not_show_its_key():
    assert "s3cret" not in repr(a_gateway(FakeLimiter(), FakeProvider(["hi"])).ladders.of("research"))


@pytest.mark.parametrize(("given", "made"), [(10**15, 3), (20, 10**15), (10**15, 10**15)])
def test_no_more_usage_is_believed_than_the_call_can_have_had(given: int, made: int, caplog: Any):
    limiter, _, meter, came = send(said("hi", input_tokens=given, output_tokens=made))
    assert isinstance(came, Completion)
    assert came.usage == meter.usage
    assert limiter.settled[0][1] == meter.usage.total_tokens
    assert meter.usage.total_tokens < RESERVED + 2 * UNSEEN_TOKENS + 100
    assert caplog.messages[0].startswith(f"usage_disbelieved limit={LIMIT} told={given}+{made} counted=")


def test_a_machine_without_room_for_a_connection_is_no_call_and_no_failure_of_the_provider():
    limiter, _, meter, came = send(MachineExhausted("no more files"))
    assert isinstance(came, MachineExhausted)
    assert [used for _, used in limiter.settled] == [0]
    assert (meter.calls, meter.failed) == (0, {})
