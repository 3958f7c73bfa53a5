"""Random histories in simulated time, on the model that the scripts are held against: what holds at every moment."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from fleet.config import LimitSettings
from fleet.limiter.limits import LEAVE, LONG_US, MINUTE_US, Terms
from fleet.limiter.simulated.model import ASK_AGAIN, SEND, LimitModel
from fleet.limiter.simulated.question import Question

START_US = 1_700_000_000_000_000


@dataclass(frozen=True)
class Want:
    """A call that comes `gap_us` after the one before and uses the share `used`, or whose caller dies while waiting."""

    gap_us: int
    tokens: int
    priority: int
    bot: str
    used: float
    dies: bool = False


@dataclass(frozen=True)
class Sent:
    """A call that left: when it came, when it left, what it used, and its class."""

    came: int
    at: int
    tokens: int
    priority: int


wants = st.builds(
    Want,
    gap_us=st.integers(0, 300_000),
    tokens=st.integers(1, 3000),
    priority=st.integers(0, 4),
    bot=st.sampled_from("abcde"),
    used=st.floats(0, 1),
)
randoms = st.floats(0, 1, exclude_max=True)


def play(settings: LimitSettings, wanted: list[Want], random: float) -> tuple[LimitModel, list[Sent]]:
    """Let every call ask until it may go; settle it at once."""
    model, sent, number = LimitModel(Terms.of(settings)), [], itertools.count()
    at, events = START_US, []
    for want in wanted:
        at += want.gap_us
        question = Question(f"{next(number):05d}", want.bot, priority=want.priority, tokens=want.tokens, random=random)
        events.append((at, next(number), at, want, question))
    heapq.heapify(events)
    while events:
        now, _, came, want, question = heapq.heappop(events)
        answer = model.ask(question, now)
        if answer.code == SEND:
            used = round(want.tokens * want.used)
            leaves = now + answer.wait_us
            sent.append(Sent(came, leaves, used, want.priority))
            model.settle(question.ticket, sent=True, charged=answer.charged, used=(used, 0, used), now=leaves)
        elif answer.code == ASK_AGAIN and not want.dies:
            again = replace(question, order=answer.order)
            heapq.heappush(events, (now + answer.wait_us, next(number), came, want, again))
    return model, sorted(sent, key=lambda one: one.at)


@given(
    rpm=st.integers(60, 6000), tpm=st.integers(20_000, 2_000_000), burst=st.floats(0.0005, 0.1),
    wanted=st.lists(wants, min_size=5, max_size=80), random=randoms,
)  # fmt: skip
def test_whatever_is_asked_and_used_a_bucket_is_never_overdrawn(
    rpm: int, tpm: int, burst: float, wanted: list[Want], random: float
) -> None:
    settings = LimitSettings(rpm=rpm, tpm=tpm, burst=burst, counting="bucket")
    _, sent = play(settings, wanted, random)
    largest = max(want.tokens for want in wanted)
    for first, begin in enumerate(sent):
        tokens = 0
        for count, one in enumerate(sent[first:], 1):
            tokens += one.tokens
            minutes = (one.at - begin.at) / MINUTE_US
            assert count <= rpm * minutes + max(rpm * burst, 1) + 1
            assert tokens <= tpm * minutes + max(tpm * burst, largest) + largest


@given(
    rpm=st.integers(600, 12_000), burst=st.floats(0.0002, 0.005), callers=st.integers(20, 80),
    stops=st.lists(st.tuples(st.integers(1, 200_000), st.integers(1, 300_000)), min_size=1, max_size=8), random=randoms,
)  # fmt: skip
def test_slots_missed_while_the_machine_stood_still_are_not_granted_again_among_others(
    rpm: int, burst: float, callers: int, stops: list[tuple[int, int]], random: float
) -> None:
    """A closed loop of callers that stands still now and then: what is more than a burst late is given back."""
    model, numbers = LimitModel(Terms.of(LimitSettings(rpm=rpm, burst=burst, counting="bucket"))), itertools.count()
    slack_us, frozen, kept, now = burst * MINUTE_US, [], [], START_US
    for runs_us, stands_us in stops:
        frozen.append((now + runs_us, now + runs_us + stands_us))
        now += runs_us + stands_us

    def after(at: float) -> float:
        return next((end for begin, end in frozen if begin <= at < end), at)

    events = [
        (float(START_US), next(numbers), Question(f"{n:03d}", f"{n}", random=random), 0.0) for n in range(callers)
    ]
    while events and len(kept) < 120:
        at, _, question, slot = heapq.heappop(events)
        clock = int(after(at))
        if slot and clock - slot <= slack_us:
            kept.append(slot)
        elif slot:
            nothing, late_us = (0, 0, 0), clock - slot
            model.settle(question.ticket, sent=False, charged=nothing, used=nothing, now=clock, since_slot_us=late_us)
            # All that are late give back before the first of them asks again.
            heapq.heappush(events, (clock + 1.0, next(numbers), question, 0.0))
            continue
        if slot:
            question = Question(f"{next(numbers):06d}", question.bot, random=random)
        answer = model.ask(question, clock)
        leaves = float(clock + answer.wait_us)
        sends = answer.code == SEND
        question = replace(question, order=-1 if sends else answer.order)
        heapq.heappush(events, (leaves, next(numbers), question, leaves if sends else 0.0))
    kept.sort()
    for first, begin in enumerate(kept):
        for count, one in enumerate(kept[first:], 1):
            assert count <= (one - begin) * rpm / MINUTE_US + max(rpm * burst, 1) + 1


@given(
    rpm=st.integers(60, 6000), tpm=st.integers(20_000, 2_000_000), window_s=st.floats(0.5, 20),
    wanted=st.lists(wants, min_size=5, max_size=80), random=randoms,
)  # fmt: skip
def test_whatever_is_asked_and_used_no_window_holds_more_than_the_limit(
    rpm: int, tpm: int, window_s: float, wanted: list[Want], random: float
) -> None:
    settings = LimitSettings(rpm=rpm, tpm=tpm, window_s=window_s)
    _, sent = play(settings, wanted, random)
    for first, begin in enumerate(sent):
        inside = [one for one in sent[first:] if one.at < begin.at + window_s * 1e6]
        assert len(inside) <= max(1, rpm * window_s / 60)
        used = [one.tokens for one in inside if one.tokens]
        assert sum(used) <= tpm * window_s / 60 or len(used) == 1  # one that is larger than the window goes alone


@given(rpm=st.integers(60, 3000), wanted=st.lists(wants, min_size=20, max_size=120), random=randoms)
def test_nobody_is_promised_a_slot_before_a_waiting_urgent_call_but_by_the_share_of_his_class(
    rpm: int, wanted: list[Want], random: float
) -> None:
    wanted = [replace(want, gap_us=want.gap_us // 30, priority=4 * (want.priority > 0)) for want in wanted]
    _, sent = play(LimitSettings(rpm=rpm, burst=0.0001, counting="bucket"), wanted, random)
    interval = MINUTE_US / rpm
    horizon = max(LONG_US, interval) + interval
    for urgent in (one for one in sent if one.priority == 0):
        passing = [one.priority for one in sent if urgent.came + horizon < one.at < urgent.at]
        # Two saved credits, and one for every LEAVE grants to urgent calls.
        assert sum(priority > 0 for priority in passing) <= 3 + passing.count(0) / LEAVE


@given(
    settings=st.sampled_from(
        [
            LimitSettings(rpm=120),
            LimitSettings(tpm=60_000, counting="bucket"),
            LimitSettings(rpm=600, tpm=30_000, window_s=5),
        ]
    ),
    wanted=st.lists(wants, min_size=5, max_size=60),
    dead=st.sets(st.integers(0, 59)),
    random=randoms,
)
def test_no_ticket_is_forgotten_and_none_of_a_dead_caller_stays(
    settings: LimitSettings, wanted: list[Want], dead: set[int], random: float
) -> None:
    wanted = [replace(want, dies=number in dead) for number, want in enumerate(wanted)]
    model, sent = play(settings, wanted, random)
    assert len(sent) >= sum(not want.dies for want in wanted)
    late = START_US + 3_600_000_000
    for number in range(10):  # each question drops up to sixteen dead tickets
        model.ask(Question(f"x{number}", "x", max_wait_us=0.0), late + number * 100_000)
    assert model.queue == []
    assert model.due == []
