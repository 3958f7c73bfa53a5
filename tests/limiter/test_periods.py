"""What limits of an hour or a day, and refusals of too many calls at once, teach: on a real Redis."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.config import LimitSettings
from fleet.grants import Mark
from fleet.limiter.layouts import LEARNT, SEEN, At, Learnt, Seen
from fleet.limiter.limits import IN_FLIGHT_STEP_US
from fleet.limiter.simulated.model import SEND
from fleet.limiter.simulated.question import Answer
from fleet.rates import RateReading
from tests.limiter.scripted import ScriptedLimit, a_limit, ask

HOUR_S, DAY_S = 3600.0, 86_400.0
NOTHING = RateReading()
RPM_500 = LimitSettings(rpm=500)
ALL_AT_ONCE = LimitSettings(rpm=500, burst=1.0)


def at_once(limit: ScriptedLimit, tries: int = 30) -> int:
    """Return how many of these calls may go without waiting."""
    return sum(ask(limit, 1000 + n, max_wait_us=0.0).code == SEND for n in range(tries))


def mark_of(limit: ScriptedLimit, answer: Answer) -> Mark:
    state = limit.state()
    return Mark(answer.now_us + answer.wait_us, round(state[At.GRANTED]), round(state[At.GRANTED_TOKENS]))


def bucket(limit: float, used: float, period_s: float, *, whole: bool = False) -> RateReading:
    """Return what a bucket says that is refilled all the time."""
    reset_s = used * period_s / limit
    return RateReading(limit, limit - used, float(round(reset_s)) if whole else reset_s)


def periods_of(limit: ScriptedLimit, settings: LimitSettings = RPM_500) -> list[tuple[str, int, float]]:
    return [(long.what, long.limit, long.period_s) for long in limit.snapshot(settings).long]


def age(
    client: Any, limit: ScriptedLimit, seconds: float, *, learnt: tuple[int, ...] = (), seen: tuple[int, ...] = ()
) -> None:
    """Move what was noted at these places into the past."""
    for field, layout, places in (("taught", LEARNT, learnt), ("told", SEEN, seen)):
        numbers = list(layout.unpack(client.hget(limit.keys.facts, field)))
        for place in places:
            numbers[place] -= seconds * 1e6
        client.hset(limit.keys.facts, field, layout.struct.pack(*numbers[1:]))


@pytest.mark.parametrize("whole", [False, True], ids=["exact", "whole seconds"])
@pytest.mark.parametrize(("size", "period_s"), [(10_000, DAY_S), (14_400, DAY_S), (100, HOUR_S), (1000, HOUR_S)])
def test_three_answers_that_agree_make_a_limit_of_an_hour_or_a_day_and_two_do_not(
    client: Any, size: int, period_s: float, whole: bool
) -> None:
    if whole and period_s / size < 5:
        return  # whole seconds of a few say nothing
    limit, (first, second, third) = a_limit(client, RPM_500), (1, 2, 3)
    for used in (first, second):
        limit.observe((0, 0, 0), bucket(size, used, period_s, whole=whole))
        assert periods_of(limit) == []
    limit.observe((0, 0, 0), bucket(size, third, period_s, whole=whole))
    assert [(what, allowed) for what, allowed, _ in periods_of(limit)] == [("rpm", size)]
    assert periods_of(limit)[0][2] == pytest.approx(period_s)
    assert limit.terms_in_force()[0] == 500
    assert limit.lowered == (0, 0, 0, 0)


def test_answers_of_the_same_use_prove_nothing(client: Any) -> None:
    limit = a_limit(client, RPM_500)
    for used in (1, 1, 1, 1, 100, 101, 102, 103, 104):
        limit.observe((0, 0, 0), bucket(10_000, used, DAY_S) if used < 100 else RateReading(10_000, 10_000 - used, 60))
    assert periods_of(limit) == []


@pytest.mark.parametrize("size", [60, 500, 10_000])
@pytest.mark.parametrize("step_s", [0.1, 1.0])
def test_a_fixed_minute_stays_a_minute_however_it_is_used(client: Any, size: int, step_s: float) -> None:
    limit = a_limit(client, LimitSettings(rpm=20_000))
    for minute in range(3):
        elapsed_s, used = 0.0, 0.0
        while elapsed_s < 60 and used < size:
            used += max(1, size * step_s / 60 * (1 + minute) / 2)
            limit.observe((0, 0, 0), RateReading(size, max(0.0, size - round(used)), round(60 - elapsed_s)))
            elapsed_s += step_s * 5
            assert periods_of(limit) == []
    assert limit.terms_in_force()[0] == size
    assert limit.lowered[0] == size


def test_the_first_answer_of_a_fixed_minute_is_a_minutes(client: Any) -> None:
    limit = a_limit(client, RPM_500)
    limit.observe((0, 0, 0), RateReading(60, 59, 60.0))
    assert limit.terms_in_force()[0] == 60 and periods_of(limit) == []


@pytest.mark.parametrize(
    ("reading", "period_s"),
    [
        (RateReading(1000, 990, 1800.0), HOUR_S),
        (RateReading(50, 49, 50_000.0), DAY_S),
        (RateReading(10_000, 9980, 172.8), DAY_S),
        (RateReading(100_000, 99_000, 20 * DAY_S), 30 * DAY_S),
    ],
    ids=["window of an hour", "window of a day", "bucket of a day", "window of a month"],
)
def test_a_reset_beyond_two_minutes_proves_a_longer_period_at_once(
    client: Any, reading: RateReading, period_s: float
) -> None:
    limit = a_limit(client, RPM_500)
    limit.observe((0, 0, 0), reading)
    assert [period for *_, period in periods_of(limit)] == [period_s]
    assert limit.terms_in_force()[0] == 500
    assert at_once(limit, 5) == 5


def test_a_limit_whose_header_names_its_period_needs_no_proof(client: Any) -> None:
    limit = a_limit(client, LimitSettings(rpm=500, tpm=200_000))
    longs = [NOTHING] * 8
    longs[0], longs[4] = RateReading(900, 899, None, HOUR_S), RateReading(14_400, 14_399, 33_011.0, DAY_S)
    longs[5] = RateReading(1_000_000, 900_000, None, DAY_S)
    limit.observe((0, 0, 0), RateReading(30, 29, None, 60.0), NOTHING, NOTHING, NOTHING, *longs)
    assert periods_of(limit) == [("rpm", 900, HOUR_S), ("rpm", 14_400, DAY_S), ("tpm", 1_000_000, DAY_S)]
    assert limit.terms_in_force()[:2] == (30, 200_000)
    assert limit.lowered == (30, 0, 0, 0)  # sure at once, since the minute is named


def test_a_day_binds_only_when_little_of_it_is_left(client: Any) -> None:
    plenty, little, spent = (a_limit(client, ALL_AT_ONCE) for _ in range(3))
    plenty.observe((0, 0, 0), RateReading(10_000, 400, 40_000.0))
    for _ in range(4):
        little.observe((0, 0, 0), RateReading(10_000, 40, 4000.0))
        spent.observe((0, 0, 0), RateReading(10_000, 0, 40_000.0))
    assert at_once(plenty) == 30
    assert (at_once(little), at_once(spent)) == (1, 1)
    shown = little.snapshot(ALL_AT_ONCE)
    assert shown.rpm == 500 and shown.lowered == {}  # the minute is as it was
    assert shown.paced_rpm == pytest.approx(40 / 4000 * 60)
    assert spent.snapshot(ALL_AT_ONCE).paced_rpm == pytest.approx(60 / 600)  # a call now and then finds out
    assert plenty.snapshot(ALL_AT_ONCE).paced_rpm is None


def test_the_last_of_a_bucket_goes_on_at_the_rate_at_which_more_comes(client: Any) -> None:
    limit = a_limit(client, ALL_AT_ONCE)
    limit.observe((0, 0, 0), bucket(10_000, 9_999, DAY_S))
    assert limit.snapshot(ALL_AT_ONCE).paced_rpm == pytest.approx(10_000 / 1440 + 0.1, rel=0.01)


def test_few_tokens_left_of_a_day_pace_calls_by_their_size(client: Any) -> None:
    settings = LimitSettings(rpm=500, tpm=100_000, burst=1.0)
    limit = a_limit(client, settings)
    for number in range(10):
        ask(limit, number, tokens=1000)
    longs = [NOTHING] * 8
    longs[5] = RateReading(1_000_000, 9_000, 3600.0, DAY_S)
    mark = mark_of(limit, ask(limit, 10, tokens=1000))
    for _ in range(4):
        limit.observe(mark, NOTHING, NOTHING, NOTHING, NOTHING, *longs)
    mean = limit.state()[At.MEAN + 2]
    assert limit.snapshot(settings).paced_rpm == pytest.approx(9000 / mean / 60)


def test_calls_since_the_reading_are_taken_off_what_is_left_of_a_day(client: Any) -> None:
    limit = a_limit(client, ALL_AT_ONCE)
    mark = mark_of(limit, ask(limit, 0))
    for number in range(1, 21):
        ask(limit, number)
    limit.observe(mark, RateReading(10_000, 3000, 40_000.0))
    assert limit.snapshot(ALL_AT_ONCE).long[0].left == 2980


def test_a_day_that_has_room_again_lets_everybody_go_at_once(client: Any) -> None:
    limit = a_limit(client, LimitSettings(rpm=500, burst=1.0, counting="bucket"))
    limit.observe((0, 0, 0), RateReading(10_000, 3, 40_000.0))
    assert at_once(limit) <= 2
    limit.observe((0, 0, 0), RateReading(10_000, 10_000, 86_400.0))
    assert at_once(limit) == 30


@pytest.mark.parametrize(("told", "holds_s"), [(1, 30), (2, 30), (4, 600)])
def test_a_pace_ends_by_itself_when_nothing_is_heard_any_more(client: Any, told: int, holds_s: float) -> None:
    limit = a_limit(client, ALL_AT_ONCE)
    for _ in range(told):
        limit.observe((0, 0, 0), RateReading(10_000, 3, 40_000.0))
    age(client, limit, holds_s - 10, learnt=(Learnt.PACED_UNTIL,))
    assert limit.snapshot(ALL_AT_ONCE).paced_rpm is not None
    age(client, limit, 11, learnt=(Learnt.PACED_UNTIL,))
    assert at_once(limit) == 30


@pytest.mark.parametrize(
    "odd", [RateReading(1, 0, 3600.0), RateReading(50, 0, 50_000.0), RateReading(1, 0, 60.0, 60.0)]
)
def test_an_odd_answer_is_undone_by_the_next_one(client: Any, odd: RateReading) -> None:
    limit = a_limit(client, LimitSettings(rpm=500, burst=1.0, counting="bucket"))
    limit.observe((0, 0, 0), RateReading(500, 499, 0.12))
    limit.observe((0, 0, 0), odd)
    assert at_once(limit) <= 2
    limit.observe((0, 0, 0), RateReading(500, 499, 0.12))
    assert (at_once(limit) == 30 and periods_of(limit) == []) or odd.reset_s != 60.0
    assert limit.snapshot(RPM_500).paced_rpm is None


def test_what_others_use_of_a_day_is_no_use_of_our_minute(client: Any) -> None:
    limit = a_limit(client, ALL_AT_ONCE)
    for used in (20, 5000, 6000):
        limit.observe((0, 0, 0), bucket(10_000, used, DAY_S))
    assert at_once(limit) == 30


def test_a_single_odd_answer_lowers_nothing_for_long(client: Any) -> None:
    limit = a_limit(client, LimitSettings(rpm=600, burst=1.0, counting="bucket"))
    limit.observe((0, 0, 0), RateReading(1, 0, 60.0))
    assert at_once(limit) <= 1
    limit.observe((0, 0, 0), RateReading(600, 600, 0.0))
    assert at_once(limit) == 30


def test_an_odd_answer_that_nobody_contradicts_is_believed_for_two_minutes(client: Any) -> None:
    limit = a_limit(client, RPM_500)
    limit.observe((0, 0, 0), RateReading(60, 60))
    assert limit.terms_in_force()[0] == 60
    assert limit.lowered[0] == 0  # nobody is told before it is sure
    age(client, limit, 121, learnt=(Learnt.ALLOWED_UNTIL + 1,))
    assert limit.terms_in_force()[0] == 500
    for _ in range(3):
        limit.observe((0, 0, 0), RateReading(60, 60))
    age(client, limit, 6 * DAY_S, learnt=(Learnt.ALLOWED_UNTIL + 1,))
    assert limit.terms_in_force()[0] == 60 and limit.lowered[0] == 60


def test_an_odd_reset_makes_a_day_only_until_answers_say_a_minute_again(client: Any) -> None:
    limit = a_limit(client, RPM_500)
    limit.observe((0, 0, 0), RateReading(60, 59, 7000.0))
    assert limit.terms_in_force()[0] == 500
    age(client, limit, 151, seen=(Seen.SHOWN_AT + 1,))
    limit.observe((0, 0, 0), RateReading(60, 50, 30.0))
    assert limit.terms_in_force()[0] == 60


def test_other_limits_told_in_turn_do_not_make_a_day_together(client: Any) -> None:
    limit = a_limit(client, RPM_500)
    for used in range(1, 6):
        limit.observe((0, 0, 0), bucket(10_000, used, DAY_S))
        limit.observe((0, 0, 0), bucket(400, used, 60.0))
    assert periods_of(limit) == []
    assert limit.terms_in_force()[0] == 400


# -- too many calls at once


def test_a_refusal_of_too_many_at_once_limits_the_calls_under_way_and_holds_nobody(client: Any) -> None:
    limit = a_limit(client, ALL_AT_ONCE)
    for number in range(5):
        ask(limit, number)
    assert limit.narrow(flying=4) == 4
    shown = limit.snapshot(ALL_AT_ONCE)
    assert (shown.most_in_flight, shown.in_flight_is_learnt, shown.refused) == (4, True, 1)
    assert shown.held_until is not None and shown.queue_s < 1
    state = limit.state()
    state[At.HELD_UNTIL] = 0
    limit.write(state)
    assert at_once(limit) == 4
    limit.settle("1000", sent=True, charged=(0, 0, 0), used=(0, 0, 0))
    assert ask(limit, 2000, max_wait_us=0.0).code == SEND


def test_refusals_that_come_together_find_how_many_were_taken(client: Any) -> None:
    limit = a_limit(client, ALL_AT_ONCE)
    assert [limit.narrow(flying=flying) for flying in range(59, 9, -1)][-1] == 10


def test_a_number_that_the_provider_says_is_taken_and_one_that_was_found_grows_again(client: Any) -> None:
    said, found = a_limit(client, RPM_500), a_limit(client, RPM_500)
    assert said.narrow(most=7, flying=30) == 7
    assert found.narrow(flying=7) == 7
    for limit in (said, found):
        age(client, limit, 60 + 2.5 * IN_FLIGHT_STEP_US / 1e6, learnt=(Learnt.IN_FLIGHT_GROWS,))
    assert said.snapshot(RPM_500).most_in_flight == 7
    assert found.snapshot(RPM_500).most_in_flight == 9
    age(client, found, 3600, learnt=(Learnt.IN_FLIGHT_GROWS,))
    assert found.snapshot(RPM_500).most_in_flight is None  # it is no limit any more


def test_a_configured_number_of_calls_at_once_is_only_ever_lowered(client: Any) -> None:
    settings = LimitSettings(rpm=500, in_flight=3)
    limit = a_limit(client, settings)
    limit.narrow(most=50)
    assert limit.snapshot(settings).most_in_flight == 3
    assert limit.snapshot(settings).in_flight_is_learnt is False
    limit.narrow(most=2)
    assert limit.snapshot(settings).most_in_flight == 2


def test_a_reset_forgets_all_of_it(client: Any) -> None:
    limit = a_limit(client, RPM_500)
    limit.observe((0, 0, 0), RateReading(10_000, 3, 40_000.0))
    limit.narrow(most=2)
    limit.reset()
    shown = limit.snapshot(RPM_500)
    assert (shown.long, shown.most_in_flight, shown.paced_rpm) == ((), None, None)
