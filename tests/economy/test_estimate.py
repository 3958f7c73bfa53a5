"""What tasks will take, before any is sent: ranges that hold, limits that bind, budgets that end it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.economy.estimate import Estimate, Weighed, estimate
from fleet.economy.habits import Capacity, Experience, Funds, Habit, Range, habit_of
from fleet.usage import Usage
from tests.every import every

API = "p/m"
EXACT = {API: Range.of(1.0)}
#: An answer within a second at once.
QUICK = {("a", ""): Range.of(1.0)}


def price(model: str, usage: Usage, tier: str | None = None) -> int | None:
    if model != API or tier == "turbo":
        return None
    return (usage.input_tokens + 4 * usage.output_tokens) * 10**6


def asked(count: int, *, kind: str = "k", given: float = 100, most: int = 500, **more: object) -> list[Weighed]:
    one = Weighed("a", API, kind, None, given, most, calls=Range.of(1.0))
    return [one._replace(**more)] * count  # type: ignore[arg-type]


def expected(tasks: list[Weighed], **known: object) -> Estimate:
    return estimate(tasks, price, Experience(**{"ratios": EXACT, "slots": 10**6, **known}))  # type: ignore[arg-type]


def holds(figure: Range, true: float) -> bool:
    return figure.low <= true <= figure.high


# ---- tokens and money


def test_an_answer_of_which_nothing_is_known_has_one_token_to_the_longest_and_says_so():
    found = expected(asked(1000))
    assert found.output_tokens.low == pytest.approx(1000)
    assert found.output_tokens.high == pytest.approx(500_000)
    assert 20_000 < found.output_tokens.expected < 100_000
    assert found.usd_picos.low == pytest.approx((100 + 4) * 1000 * 10**6)
    assert found.usd_picos.high == pytest.approx((100 + 4 * 500) * 1000 * 10**6)
    assert dict(found.guessed) == {(API, "k"): 1000}


def test_what_was_learnt_of_a_kind_narrows_it_but_not_for_tasks_without_a_kind():
    learnt = Habit(0.2, 0.1, 30)
    habits = {(API, "k"): learnt, (API, "default"): learnt, (API, "young"): Habit(0.2, 0.1, 1.4)}
    known = expected(asked(1000), habits=habits)
    assert not known.guessed
    assert known.output_tokens.expected == pytest.approx(100_000)
    assert known.output_tokens.high / known.output_tokens.low < 2
    for kind in ("default", "young"):
        wide = expected(asked(1000, kind=kind), habits=habits)
        assert wide.output_tokens.high / wide.output_tokens.low > 100
        assert wide.output_tokens.expected == pytest.approx(100_000)
        assert list(wide.guessed) == [(API, kind)]


def test_answers_to_the_very_file_tell_of_tasks_without_a_kind_of_tokens_and_of_what_a_cache_saves():
    own = habit_of([0.2, 0.22, 0.18, 0.2, 0.21, 0.19] * 4, [1.5] * 24, 0.6)
    found = expected(asked(1000, kind="default"), habits={(API, "default"): own}, ratios={})
    assert found.input_tokens.expected == pytest.approx(150_000)
    assert holds(found.output_tokens, 100_000) and found.output_tokens.high < 112_000
    assert found.usd_picos.expected == pytest.approx(0.6 * (150_000 + 400_000) * 10**6)


def test_tasks_that_may_be_anything_may_be_asked_of_other_bots_too():
    known = {"habits": {(API, "k"): Habit(0.2, 0.1, 30)}, "opinions": 3}
    assert expected(asked(10), **known).input_tokens == Range.of(1000)
    assert expected(asked(10, kind="default"), **known).input_tokens == Range(1000, 1000, 3000)


def test_few_tasks_have_a_wider_range_each_than_many():
    def width(count: int) -> float:
        figure = expected(asked(count), habits={(API, "k"): Habit(0.3, 0.2, 31)}).output_tokens
        return (figure.high - figure.low) / figure.expected

    assert width(1) > 2 * width(1000)


def test_tasks_without_a_price_are_counted_by_model_and_tier_and_in_no_sum():
    tasks = [*asked(10), *asked(5, tier="turbo"), *asked(3, api="p/other")]
    found = expected(tasks)
    assert found.unpriced == {(API, "turbo"): 5, ("p/other", None): 3}
    assert found.usd_picos == expected(asked(10)).usd_picos
    assert found.tasks == 18


def test_tasks_whose_own_bound_does_not_pay_for_them_are_counted():
    learnt = {(API, "k"): Habit(0.1, 0.01, 30)}  # 100 + 4 * 50 = 300 micro-dollars
    tasks = [*asked(3, most_picos=299 * 10**6), *asked(4, most_picos=301 * 10**6)]
    assert expected(tasks, habits=learnt).too_dear == 3


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50), st.floats(0, 1), st.floats(0, 1), st.floats(0, 100), st.floats(1, 5000),
    st.integers(1, 4000), st.sampled_from(["k", "default"]), st.booleans(),
)  # fmt: skip
def test_every_range_has_its_expected_figure_inside(
    count: int, share: float, deviation: float, answers: float, size: float, most: int, kind: str, is_own: bool
):
    habit = Habit(share, deviation, answers, 1.1 if is_own else None, is_own=is_own)
    found = expected(asked(count, kind=kind, given=size, most=most, variance=9.0), habits={(API, kind): habit})
    figures = [found.input_tokens, found.output_tokens, found.usd_picos, found.duration.work_s]
    assert every(0 <= one.low <= one.expected * (1 + 1e-9) <= one.high * (1 + 2e-9) for one in figures)


def test_ranges_of_a_learnt_kind_hold_in_19_of_20_files_of_any_shape_and_length():
    """Answers are drawn; what `settle.lua` would have learnt of 40 of them before foretells the file."""
    chance, held, runs = random.Random(17), 0, 0
    for _ in range(400):
        mu, sigma, most = chance.uniform(2, 5), chance.uniform(0.05, 0.9), chance.choice([300, 1000])

        def answer(mu: float = mu, sigma: float = sigma, most: int = most) -> float:
            return min(most, math.ceil(math.exp(chance.gauss(mu, sigma))))

        mean, deviation = answer() / most, 0.0
        deviation = mean / 4
        for share in (answer() / most for _ in range(40)):
            mean, deviation = mean + (share - mean) / 16, deviation + (abs(share - mean) - deviation) / 16
        count = chance.choice([1, 5, 20, 200])
        found = expected(asked(count, most=most), habits={(API, "k"): Habit(mean, deviation * 1.25, 26)})
        made = sum(answer() for _ in range(count))
        held += holds(found.output_tokens, made)
        runs += 1
    assert held / runs >= 0.95


# ---- time


def test_requests_a_minute_decide_how_long_it_takes_and_what_waits_before_counts():
    room = {API: Capacity(rpm=60)}
    found = expected(asked(600), rooms=room, latencies_s=QUICK)
    assert holds(found.duration.work_s, 600)
    assert found.duration.binds == f"requests a minute of {API}"
    behind = expected(asked(600), rooms=room, latencies_s=QUICK, backlog={"a": 600, "b": 10**6})
    assert behind.duration.work_s.expected == pytest.approx(2 * found.duration.work_s.expected, rel=0.05)
    assert behind.duration.backlog == 600


@pytest.mark.parametrize(
    ("known", "seconds", "binds"),
    [
        ({"rooms": {API: Capacity(tpm=6000)}, "habits": {(API, "k"): Habit(0.2, 0.0, 30)}}, 1200, "tokens a minute"),
        (
            {"rooms": {API: Capacity(output_tpm=6000)}, "habits": {(API, "k"): Habit(0.2, 0.0, 30)}},
            600,
            "output tokens",
        ),
        ({"rooms": {API: Capacity(in_flight=2)}}, 300, "calls at once"),
        ({"slots": 4}, 150, "4 slots"),
        ({"rooms": {API: Capacity(rpm=6000, wait_s=900)}}, 906, "requests a minute"),
    ],
)
def test_the_slowest_of_limits_and_slots_decides(known: dict[str, object], seconds: float, binds: str):
    found = expected(asked(600), latencies_s=QUICK, **known)
    assert holds(found.duration.work_s, seconds), found.duration.work_s
    assert found.duration.binds.startswith(binds)


def test_a_few_tasks_take_as_long_as_an_answer():
    found = expected(asked(3), latencies_s={("a", ""): Range(4, 5, 6)}, rooms={API: Capacity(rpm=600, burst_s=1.2)})
    assert found.duration.binds == "the time to an answer"
    assert holds(found.duration.work_s, 5.2)


def test_a_days_budget_that_is_too_small_says_after_how_many_lines_and_when_it_goes_on():
    one = (100 + 4 * 100) * 10**6
    fund = Funds("the day's budget", left=3400 * one, each=10_000 * one, opens_in_s=7200, period_s=86_400, api=API)
    habits = {(API, "k"): Habit(0.2, 0.05, 30)}
    found = expected(asked(5000), habits=habits, funds=(fund,), latencies_s=QUICK)
    (stop,) = found.duration.stops
    assert (stop.after, stop.of, stop.opens_in_s) == (3400, 5000, 7200)
    assert found.duration.seconds is not None and found.duration.seconds.expected > 7200
    behind = expected(asked(5000), habits=habits, funds=(fund,), latencies_s=QUICK, backlog={"a": 1000})
    assert behind.duration.stops[0].after == 2400
    many = expected(asked(25_000), habits=habits, funds=(fund,), latencies_s=QUICK)
    assert many.duration.seconds is not None and many.duration.seconds.expected > 7200 + 2 * 86_400


def test_a_budget_that_never_opens_ends_it_and_one_of_other_pools_does_not():
    empty = Funds("the run's budget", left=0, each=0, opens_in_s=None, period_s=0, pools=frozenset({"b"}))
    assert expected(asked(5), funds=(empty,)).duration.stops == ()
    mine = Funds("the run's budget", left=0, each=0, opens_in_s=None, period_s=0, pools=frozenset({"a"}))
    found = expected(asked(5), funds=(mine,)).duration
    assert (found.seconds, found.stops[0].after) == (None, 0)
    requests = Funds("the day's requests", left=2, each=100, opens_in_s=60, period_s=86_400, api=API, unit="requests")
    assert expected(asked(5), funds=(requests,)).duration.stops[0].after == 2


def test_nothing_to_ask_takes_nothing():
    found = expected([])
    assert (found.tasks, found.usd_picos, found.duration.seconds) == (0, Range.of(0), Range.of(0))
