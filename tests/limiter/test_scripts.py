"""The scripts against their Python model, and what they guarantee about any window of time."""

from __future__ import annotations

import itertools
import math
import struct
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import LimitSettings
from fleet.limiter.layouts import BESIDE, STATE, At
from fleet.limiter.limits import DAY_US, LONG_US, SHORT_US, Terms
from fleet.limiter.simulated.model import ASK_AGAIN, SEND, TOO_LATE, LimitModel
from fleet.limiter.simulated.question import Answer, Question
from fleet.store.client import connect
from tests.every import every
from tests.limiter.scripted import ScriptedLimit
from tests.waiting import wait_until

FOREVER_US = 1e15
_names = (f"provider/model/key-{number}" for number in itertools.count())

limits = st.builds(
    LimitSettings,
    rpm=st.none() | st.integers(1, 100_000),
    tpm=st.none() | st.integers(100, 100_000_000),
    input_tpm=st.none() | st.integers(100, 1_000_000),
    output_tpm=st.none() | st.integers(100, 1_000_000),
    in_flight=st.none() | st.integers(1, 5),
    requests_per_day=st.none() | st.integers(1, 20),
    usd_per_day=st.none() | st.floats(0.001, 0.1),
    burst=st.floats(0.0001, 1),
    counting=st.sampled_from(["bucket", "window"]),
    window_s=st.floats(0.001, 60),
    when_full=st.sampled_from(["wait", "stop bulk"]),
)
asks = st.fixed_dictionaries(
    {
        "step": st.just("ask"),
        "ticket": st.integers(0, 9),
        "bot": st.sampled_from("abc"),
        "priority": st.integers(0, 4),
        "input": st.integers(0, 5_000),
        "output": st.integers(0, 5_000),
        "money": st.integers(0, 50_000),
        "weight": st.sampled_from([0.5, 1.0, 3.0]),
        "charge": st.sampled_from([0.0, 1000.0]),
        "by_tenant": st.booleans(),
        "random": st.floats(0, 1, exclude_max=True),
        "max_wait_us": st.sampled_from([0.0, 1e6, FOREVER_US]),
        "patience_us": st.sampled_from([-1.0, 0.0, 5e6]),
        "beyond": st.sampled_from([0.0, 0.0, 1.0]),
    }
)
settles = st.fixed_dictionaries(
    {
        "step": st.just("settle"),
        "which": st.integers(0, 50),
        "used": st.floats(0, 1.5),
        "sent": st.booleans(),
        "money": st.integers(0, 50_000),
        "since_slot_us": st.floats(-1e6, 1e7),
        "is_yesterdays": st.booleans(),
    }
)
penalties = st.fixed_dictionaries({"step": st.just("penalise"), "us": st.integers(0, 3_000_000)})


@pytest.fixture
def client(redis_url: str) -> Any:
    with connect(redis_url) as client:
        yield client


@given(settings=limits, steps=st.lists(asks | settles | penalties, min_size=1, max_size=40))
def test_every_script_does_what_its_model_does(client: Any, settings: LimitSettings, steps: list[Any]) -> None:
    terms = Terms.of(settings)
    real, model = ScriptedLimit(client, next(_names), terms), LimitModel(terms)
    orders: dict[str, int] = {}
    granted: list[tuple[str, Question, Answer]] = []
    numbers = itertools.count()
    names: dict[int, str] = {}
    for step in steps:
        if step["step"] == "penalise":
            if not terms.has_rates:  # then a rate is guessed, which the model does not: `test_observe.py`
                continue
            held, now = real.penalise(step["us"])
            assert held == model.penalise(step["us"], now)
        elif step["step"] == "ask":
            ticket = names.setdefault(step["ticket"], f"{next(numbers):03d}")
            question = Question(
                ticket=ticket, bot=step["bot"], priority=step["priority"], order=orders.get(ticket, -1),
                charge=step["charge"] and step["charge"] / step["weight"], weight=step["weight"],
                by_tenant=step["by_tenant"], tokens=step["input"] + step["output"], input_tokens=step["input"],
                output_tokens=step["output"], money=step["money"], random=step["random"],
                max_wait_us=step["max_wait_us"], patience_us=step["patience_us"],
                beyond=step["beyond"],
            )  # fmt: skip
            answer = real.ask(question)
            expected = model.ask(question, answer.now_us)
            assert answer == expected
            orders[ticket] = answer.order
            if answer.code == SEND:
                granted.append((ticket, question, answer))
            if answer.code != ASK_AGAIN:
                del names[step["ticket"]]
        elif granted:
            ticket, question, answer = granted.pop(step["which"] % len(granted))
            used = tuple(round(tokens * step["used"]) if step["sent"] else 0 for tokens in answer.charged)
            asked = (question.tokens, question.output_tokens)
            learns = step["sent"] and question.tokens > 0
            report: Any = {
                "sent": step["sent"], "charged": answer.charged, "used": used, "reserved_money": answer.cost,
                "money": step["money"] if step["sent"] else 0,
                "reserved_day": answer.now_us // DAY_US - step["is_yesterdays"],
                "since_slot_us": abs(step["since_slot_us"]) if step["sent"] else step["since_slot_us"],
            }  # fmt: skip
            now = real.settle(ticket, **report, asked=asked, learns=learns, asked_money=question.money)
            model.settle(ticket, **report, now=now)
            if learns:
                output = used[2] / question.output_tokens if question.output_tokens else 1.0
                money = (report["money"] / question.money,) if question.money else ()
                model.learn("default", (used[0] / question.tokens, output, *money))
        assert real.state() == pytest.approx(model.state, rel=1e-12, abs=1e-9)
        assert real.queue() == model.queue
        assert real.bots() == model.bots


@given(settings=limits, crowds=st.lists(st.lists(asks, min_size=2, max_size=12), max_size=4))
def test_those_who_ask_together_are_answered_as_one_after_the_other(
    client: Any, settings: LimitSettings, crowds: list[list[dict[str, Any]]]
) -> None:
    terms = Terms.of(settings)
    real, model = ScriptedLimit(client, next(_names), terms), LimitModel(terms)
    orders: dict[str, int] = {}
    for crowd in crowds:
        waiting = {f"{one['ticket']:03d}": one for one in crowd if orders.get(f"{one['ticket']:03d}", 0) is not None}
        questions = [
            Question(
                ticket=ticket,
                bot=one["bot"],
                priority=one["priority"],
                order=orders.get(ticket, -1),
                charge=one["charge"],
                tokens=one["input"] + one["output"],
                input_tokens=one["input"],
                output_tokens=one["output"],
                money=one["money"],
                random=one["random"],
                beyond=one["beyond"],
                max_wait_us=one["max_wait_us"],
                patience_us=one["patience_us"],
                by_tenant=one["by_tenant"],
            )
            for ticket, one in waiting.items()
        ]
        answers = real.ask_together(questions) if questions else []
        for question, answer in zip(questions, answers, strict=True):
            assert answer == model.ask(question, answer.now_us)
            orders[question.ticket] = answer.order if answer.code == ASK_AGAIN else None  # type: ignore[assignment]
        assert real.state() == pytest.approx(model.state, rel=1e-12, abs=1e-9)
        assert real.queue() == model.queue
        assert real.bots() == model.bots


def drain(limit: ScriptedLimit, sizes: list[int]) -> list[tuple[int, int]]:
    """Ask once for each size, and once again for those that wait, whatever it says; return (send time, tokens)."""
    sends = []
    for number, tokens in enumerate(sizes):
        answer = limit.ask(Question(f"{number:03d}", f"bot-{number}", tokens=tokens, max_wait_us=FOREVER_US))
        if answer.code == SEND:
            sends.append((answer.now_us + answer.wait_us, tokens))
    return sends


rates = st.builds(
    LimitSettings,
    rpm=st.integers(600, 1_000_000),
    tpm=st.none() | st.integers(100_000, 1_000_000_000),
    burst=st.floats(0.0001, 0.5),
    counting=st.sampled_from(["bucket", "window"]),
    window_s=st.floats(0.01, 60),
)


@given(settings=rates, sizes=st.lists(st.integers(1, 20_000), min_size=2, max_size=60))
def test_no_time_holds_more_than_rate_times_time_plus_burst(
    client: Any, settings: LimitSettings, sizes: list[int]
) -> None:
    terms = Terms.of(settings)
    sends = sorted(drain(ScriptedLimit(client, next(_names), terms), sizes))
    assert sends
    assert settings.rpm
    request_us = 60_000_000 / settings.rpm
    tokens_us = 60_000_000 / settings.tpm if settings.tpm else 0.0
    for first in range(len(sends)):
        requests = tokens = 0
        for at, amount in sends[first:]:
            requests, tokens = requests + 1, tokens + amount
            allowed_us = at - sends[first][0] + 1
            assert requests * request_us <= allowed_us + max(terms.burst_us, request_us) + requests
            largest = max(amount for _, amount in sends)
            assert tokens * tokens_us <= allowed_us + max(terms.burst_us, largest * tokens_us)


@given(
    rpm=st.integers(60, 100_000),
    tpm=st.integers(10_000, 10_000_000),
    window_s=st.floats(0.005, 0.1),
    sizes=st.lists(st.integers(1, 3_000), min_size=5, max_size=80),
)
def test_no_window_holds_more_than_the_limit(
    client: Any, rpm: int, tpm: int, window_s: float, sizes: list[int]
) -> None:
    settings = LimitSettings(rpm=rpm, tpm=tpm, window_s=window_s, burst=1, counting="window")
    most_requests, most_tokens = max(1, rpm * window_s / 60), max(1, tpm * window_s / 60)
    sends = sorted(drain(ScriptedLimit(client, next(_names), Terms.of(settings)), sizes))
    for first, (begin, _) in enumerate(sends):
        inside = [amount for at, amount in sends[first:] if at < begin + window_s * 1e6]
        assert len(inside) <= most_requests
        assert sum(inside) <= most_tokens or len(inside) == 1


@given(
    waiting=st.lists(st.integers(1, 4), min_size=20, max_size=60),
    settings=st.sampled_from([LimitSettings(rpm=600), LimitSettings(rpm=600, counting="bucket")]),
)
def test_an_urgent_call_waits_no_longer_than_the_horizon_whoever_waits(
    client: Any, waiting: list[int], settings: LimitSettings
) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(settings))
    for number, priority in enumerate(waiting):
        limit.ask(Question(f"{number:03d}", f"bot-{number}", priority=priority))
    answer = limit.ask(Question("urgent", "somebody", priority=0))
    assert answer.order == 0
    assert answer.backlog_us <= LONG_US + 100_000  # one interval of a request beside the horizon


def test_a_critical_call_passes_a_thousand_waiting_bulk_calls(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=600)))
    for number in range(1000):
        limit.ask(Question(f"{number:04d}", f"bot-{number}", priority=4))
    assert len(limit.queue()) > 900
    answer = limit.ask(Question("urgent", "somebody", priority=0))
    assert answer.order == 0
    assert answer.backlog_us <= LONG_US + 100_000


def test_while_urgent_calls_are_about_others_are_committed_only_a_short_horizon_ahead(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=6000, burst=0.001)))
    limit.ask(Question("urgent", "somebody", priority=0))
    waits = [limit.ask(Question(f"{number:03d}", f"bot-{number}", priority=4)) for number in range(50)]
    sent = [answer.wait_us for answer in waits if answer.code == SEND]
    assert 0 < len(sent) < 50
    assert max(sent) <= SHORT_US


def test_a_bot_with_many_callers_waits_behind_those_with_few(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=600)))
    for number in range(40):
        limit.ask(Question(f"{number:03d}", "greedy"))
    limit.ask(Question("900", "modest"))
    tickets = [ticket for _, ticket in limit.queue()]
    assert tickets.index("900") <= 1 if "900" in tickets else True
    assert len(tickets) > 20


def test_tenants_get_equal_shares_whatever_the_number_of_their_bots(client: Any) -> None:
    model = LimitModel(Terms.of(LimitSettings(rpm=60)))
    for number in range(200):
        model.ask(Question(f"a{number:03d}", f"bot-{number % 20}", by_tenant=True), now=10**15 + number)
    tags = sorted(model.bots.values())
    assert tags[-1] >= 20 * 1000  # a bot of a tenant with 20 active bots pays twentyfold


def test_a_ticket_whose_caller_does_not_come_back_vanishes(client: Any) -> None:
    model = LimitModel(Terms.of(LimitSettings(rpm=600)))
    now = 10**15
    for number in range(30):
        model.ask(Question(f"{number:03d}", f"bot-{number}"), now)
    assert len(model.queue) >= 15
    for step in range(40):
        model.ask(Question(f"late-{step}", "another", max_wait_us=0.0), now + 60_000_000 + step)
    assert not [ticket for _, ticket in model.queue if not ticket.startswith("late")]


def test_when_one_ticket_of_a_process_is_late_all_of_it_are_dead_but_none_of_who_asks(client: Any) -> None:
    terms = Terms.of(LimitSettings(rpm=60, counting="bucket"))
    limit, model, now = ScriptedLimit(client, next(_names), terms), LimitModel(terms), 1_700_000_000_000_000
    calls = [Question(f"{number:03d}-{'dead' if number % 2 else 'alive'}-0", f"{number}") for number in range(20)]
    for call in calls:
        assert limit.ask(call).code == model.ask(call, now).code
    waiting, asks, late = limit.queue(), calls[18], ["008-alive-0", "009-dead-0"]
    assert waiting == model.queue
    living = [(order, ticket) for order, ticket in waiting if "alive" in ticket and ticket not in late]
    assert len(living) == len(waiting) // 2 - 1

    again = replace(asks, order=model.orders[asks.ticket])
    client.zadd(limit.keys.due, dict.fromkeys(late, 1))
    wait_until(lambda: limit.ask(again).code == ASK_AGAIN and limit.queue() == living)
    model.due = sorted((1.0 if ticket in late else at, ticket) for at, ticket in model.due)
    model.dues |= dict.fromkeys(late, 1.0)
    silent = deepcopy(model)
    model.ask(again, now + 50_000)
    assert model.queue == living
    # Where nobody has asked for a while, all may be late, and only those go that are.
    silent.ask(again, now + 300_000)
    assert [ticket for _, ticket in silent.queue] == [ticket for _, ticket in waiting if ticket not in late]


def test_a_ticket_that_was_taken_for_dead_keeps_its_place(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=60)))
    answers = [limit.ask(Question(f"{number:03d}", f"bot-{number}")) for number in range(5)]
    assert answers[3].code == ASK_AGAIN
    client.zrem(limit.keys.queue, "003")
    client.zrem(limit.keys.due, "003")
    back = limit.ask(Question("003", "bot-3", order=answers[3].order))
    assert back.order == answers[3].order


def test_a_call_that_cannot_go_in_time_leaves_nothing_behind(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=1)))
    limit.ask(Question("000", "bot"))
    answer = limit.ask(Question("001", "bot", max_wait_us=1e6))
    assert answer.code == TOO_LATE
    assert 58e6 < answer.wait_us <= 61e6
    assert limit.queue() == []


def test_calls_in_flight_are_limited_and_a_dead_holder_loses_its_lease(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(in_flight=2)))
    first = limit.ask(Question("000", "a", lease_us=50_000))
    assert limit.ask(Question("001", "b")).code == first.code == SEND
    third = limit.ask(Question("002", "c"))
    assert third.code == ASK_AGAIN
    limit.settle("001", sent=True, charged=(0, 0, 0), used=(0, 0, 0))
    assert limit.ask(Question("002", "c", order=third.order)).code == SEND
    answer = limit.ask(Question("003", "d"))
    while answer.code == ASK_AGAIN:  # nobody settles 000: its lease runs out
        answer = limit.ask(Question("003", "d", order=answer.order))
    assert answer.code == SEND


def test_requests_and_money_of_a_day_are_reserved_together_or_not_at_all(client: Any) -> None:
    settings = LimitSettings(requests_per_day=2, usd_per_day=0.10)
    limit = ScriptedLimit(client, next(_names), Terms.of(settings))
    assert limit.ask(Question("000", "a", money=90_000, max_wait_us=1e6)).code == SEND
    assert limit.ask(Question("001", "a", money=20_000, max_wait_us=1e6)).code == TOO_LATE
    assert limit.state()[29:31] == [1, 90_000]
    assert limit.ask(Question("002", "a", money=10_000, max_wait_us=1e6)).code == SEND
    assert limit.ask(Question("003", "a", money=0, max_wait_us=1e6)).code == TOO_LATE


def test_what_was_reserved_yesterday_is_settled_yesterday(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(requests_per_day=9, usd_per_day=0.10)))
    limit.ask(Question("000", "a", money=90_000))
    report: dict[str, Any] = {"charged": (0, 0, 0), "used": (0, 0, 0), "reserved_money": 90_000}
    limit.settle("999", sent=True, money=95_000, reserved_day=limit.today() - 1, **report)  # over with that day
    assert limit.state()[At.DAY_REQUESTS : At.DAY_USD_MICROS + 1] == [1, 90_000]
    limit.settle("998", sent=False, reserved_day=limit.today() - 1, **report)
    assert limit.state()[At.DAY_REQUESTS : At.DAY_USD_MICROS + 1] == [1, 90_000]
    yesterday = limit.state()
    yesterday[At.DAY] -= 1  # midnight has passed, and nobody has asked since
    limit.write(yesterday)
    limit.settle("000", sent=True, money=1_000, reserved_day=limit.today() - 1, **report)
    assert limit.state()[At.DAY_REQUESTS : At.DAY_USD_MICROS + 1] == [1, 1_000]


def test_a_call_that_would_leave_tomorrow_is_not_granted_today(client: Any) -> None:
    """Else it would be counted on a day whose counts end before it is sent."""
    settings = LimitSettings(requests_per_day=1000, counting="bucket", rpm=1)
    limit = ScriptedLimit(client, next(_names), Terms.of(settings))
    limit.ask(Question("000", "a"))
    ahead = limit.state()
    ahead[At.CLOCK + 1] = (limit.today() + 1) * DAY_US
    limit.write(ahead)
    midnight_us = (limit.today() + 1) * DAY_US
    answer = limit.ask(Question("001", "b", max_wait_us=FOREVER_US))
    assert answer.code == ASK_AGAIN
    assert answer.now_us + answer.wait_us <= midnight_us


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, 1e17])
def test_a_reset_frees_a_limit_from_any_state(client: Any, number: float) -> None:
    settings = LimitSettings(rpm=600, tpm=60_000, in_flight=1)
    limit = ScriptedLimit(client, next(_names), Terms.of(settings))
    limit.ask(Question("000", "a", tokens=500))
    broken = limit.state()
    for place in range(1, len(broken)):
        if place not in (At.DAY, At.DAY_REQUESTS, At.DAY_USD_MICROS):
            broken[place] = number
    limit.write(broken)
    limit.reset()
    assert limit.ask(Question("001", "b", tokens=500)).code == SEND
    assert limit.ask(Question("002", "b", tokens=500)).code == ASK_AGAIN  # the limit holds


def test_input_and_output_tokens_are_limited_apart(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(input_tpm=60_000, output_tpm=6_000)))
    limit.ask(Question("000", "a", tokens=700, input_tokens=100, output_tokens=600))
    answer = limit.ask(Question("001", "b", tokens=101, input_tokens=100, output_tokens=1, max_wait_us=0.0))
    assert answer.code == TOO_LATE
    assert answer.wait_us > 4_500_000  # 600 output tokens at 100/s, less the burst


def test_calls_that_are_settled_together_are_accounted_for_as_one_by_one(client: Any) -> None:
    settings = LimitSettings(tpm=60_000, in_flight=20, requests_per_day=100, usd_per_day=1, counting="window")
    one_by_one, together = (ScriptedLimit(client, next(_names), Terms.of(settings)) for _ in range(2))
    for limit in (one_by_one, together):
        calls = []
        for number in range(8):
            kind, ticket = "ab"[number % 2], f"{number:03d}"
            answer = limit.ask(Question(ticket, "a", kind=kind, tokens=100, output_tokens=60, money=900), note="a note")
            report: dict[str, Any] = {
                "sent": number != 5, "charged": answer.charged, "used": (20 + number, 0, 20), "asked": (100, 60),
                "kind": kind, "learns": number != 5, "reserved_money": 900, "money": 40 * number, "asked_money": 900,
            }  # fmt: skip
            calls.append(limit.settlement(ticket, **report))
        if limit is together:
            limit.settle_together(*calls)
        for call in calls if limit is one_by_one else ():
            limit.settle_together(call)
    taught = [client.hgetall(limit.keys.facts) for limit in (one_by_one, together)]
    assert every(BESIDE.unpack(one.pop(b"beside"))[At.RESERVED_AT - STATE.size] > 0 for one in taught)
    assert taught[0] == taught[1] and set(taught[0]) == {b"q:a", b"q:b"}
    assert client.hkeys(one_by_one.keys.open) == client.hkeys(together.keys.open)
    assert client.zcard(together.keys.leases) == 0
    states = [limit.state() for limit in (one_by_one, together)]
    counted = [At.GRANTED, At.GRANTED_TOKENS, At.DAY_REQUESTS, At.DAY_USD_MICROS, At.DAY_RESERVED, At.MINUTE_TOKENS]
    assert [states[0][at] for at in counted] == [states[1][at] for at in counted]
    assert [states[0][At.WINDOW + k] for k in range(1, 5)] == [states[1][At.WINDOW + k] for k in range(1, 5)]


def test_what_a_kind_of_call_really_uses_is_learnt_without_a_floor(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(tpm=60_000_000)))
    for number in range(60):
        answer = limit.ask(Question(f"{number:03d}", "a", tokens=1000, output_tokens=1000))
        used = (20, 0, 20)
        limit.settle(f"{number:03d}", sent=True, charged=answer.charged, used=used, asked=(1000, 1000), learns=True)
    answer = limit.ask(Question("900", "a", tokens=1000, output_tokens=1000))
    assert answer.charged[0] < 40
    assert limit.ask(Question("901", "a", kind="other", tokens=1000)).charged[0] == 1000


def test_after_a_penalty_calls_are_paced_and_the_burst_is_gone(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=6000)))
    _, now = limit.penalise(200_000)
    answers = [limit.ask(Question(f"{number:03d}", f"bot-{number}")) for number in range(10)]
    sends = [answer.now_us + answer.wait_us - now for answer in answers if answer.code == SEND]
    assert len(sends) > 5
    assert sends == sorted(sends)
    assert sends[0] >= 200_000
    assert sends[-1] >= 200_000 + (len(sends) - 1) * 10_000


def test_a_window_whose_only_call_is_settled_keeps_its_life(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(tpm=60_000)))
    answer = limit.ask(Question("000", "a", tokens=500))
    limit.settle("000", sent=True, charged=answer.charged, used=(20, 0, 20))
    assert client.pttl(limit.keys.log) > 0


def test_every_key_expires(client: Any) -> None:
    settings = LimitSettings(rpm=600, in_flight=20)
    limit = ScriptedLimit(client, next(_names), Terms.of(settings))
    for number in range(30):
        limit.ask(Question(f"{number:03d}", f"bot-{number}"), note="a note")
    limit.settle("000", sent=True, charged=(9, 4, 5), used=(5, 2, 3), asked=(9, 5), learns=True)
    found = [key.decode() for key in client.scan_iter() if key.decode().startswith(limit.keys.state)]
    assert set(found) == set(limit.keys)
    assert every(client.ttl(key) > 0 for key in found)


def test_callers_without_a_name_are_one_bot_that_gets_what_each_other_gets() -> None:
    model, sent = LimitModel(Terms.of(LimitSettings(rpm=600, burst=0.0001, counting="bucket"))), Counter[str]()
    now, orders = 10**15, {}
    callers = [("", number) for number in range(30)] + [("named", number) for number in range(30)]
    for step in range(30_000):  # 60 callers in closed loops, each asks every 60 ms
        now += 1000
        bot, number = callers[step % 60]
        ticket = f"{step:06d}"
        waiting, order = orders.pop((bot, number), (ticket, -1.0))
        answer = model.ask(Question(waiting, bot, order=order), now)
        if answer.code == SEND:
            sent[bot] += 1
            model.settle(waiting, sent=True, charged=answer.charged, used=(0, 0, 0), now=now)
        elif answer.code == ASK_AGAIN:
            orders[bot, number] = waiting, answer.order
    assert set(model.bots) <= {"", "named"}
    assert sum(sent.values()) > 250
    assert sent[""] == pytest.approx(sent["named"], rel=0.1)


def test_what_short_calls_taught_does_not_undercharge_a_long_prompt(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(tpm=60_000_000)))
    for number in range(30):
        answer = limit.ask(Question(f"{number:03d}", "a", tokens=1020, input_tokens=20, output_tokens=1000))
        report: Any = {"sent": True, "charged": answer.charged, "used": (30, 20, 10)}
        limit.settle(f"{number:03d}", **report, asked=(1020, 1000), learns=True)
    answer = limit.ask(Question("900", "a", tokens=51_000, input_tokens=50_000, output_tokens=1000))
    assert 50_000 < answer.charged[0] < 50_200


def test_of_more_kinds_than_a_thousand_nothing_is_learnt(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(tpm=60_000_000)))
    for number in range(1010):
        ticket, kind = f"{number:04d}", f"kind-{number}"
        answer = limit.ask(Question(ticket, "a", kind=kind, tokens=9))
        report: Any = {"sent": True, "charged": answer.charged, "used": (3, 0, 3)}
        limit.settle(ticket, **report, asked=(9, 9), kind=kind, learns=True)
    assert client.hlen(limit.keys.facts) == 1007


def test_0_2_reads_the_state_of_a_limit_and_what_it_wrote_is_counted_on(client: Any) -> None:
    limit = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(rpm=60, usd_per_day=1, counting="window")))
    assert limit.ask(Question("1", "a", money=900)).code == SEND
    written = client.get(limit.keys.state)
    assert len(written) == 39 * 8, "as long as in 0.2, which takes any other length for none"
    state = list(struct.unpack("<39d", written))
    assert state[21] == 1, "calls granted"
    state[23] = 60.0  # requests in the window, as a worker of 0.2 has counted them
    client.set(limit.keys.state, struct.pack("<39d", *state))
    for second in range(60):
        client.zadd(limit.keys.log, {f"t{second}:0:0:0": limit.state()[At.CLOCK + 1] + second})
    assert limit.ask(Question("2", "a", money=900, max_wait_us=1000)).code == TOO_LATE
    assert limit.state()[At.DAY_RESERVED] == 900, "which 0.2 does not know of"


def test_what_an_operator_has_set_lives_on_however_seldom_a_limit_is_used(client: Any) -> None:
    limit, lives = ScriptedLimit(client, next(_names), Terms.of(LimitSettings(tpm=60_000_000))), list[bool]()
    for number in range(3):
        if number:
            client.pexpire(limit.keys.facts, 50_000)
        if number == 1:  # the last call was settled in another minute
            state = list(STATE.unpack(client.get(limit.keys.state)))
            state[At.MINUTE] -= 1
            client.set(limit.keys.state, STATE.struct.pack(*state[1:]))
        answer = limit.ask(Question(f"{number:04d}", "a", tokens=9))
        report: Any = {"sent": True, "charged": answer.charged, "used": (3, 0, 3)}
        limit.settle(f"{number:04d}", **report, asked=(9, 9), learns=True)
        lives.append(client.pttl(limit.keys.facts) > 50_000)
    assert lives[:2] == [True, True]  # and once a minute at most: not with every call
