"""How many slots are wanted: pure, with the clock handed in."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.scaling import Bounds, Decision, Demand, LimitRoom, PoolDemand, decide
from fleet.scaling.wanted import WantedSlots, share

NOON = 1_800_014_400.0
LIMIT = "openai/gpt-5/key"


def pool(**changed: Any) -> PoolDemand:
    return PoolDemand(**{"pool": "research", "service_s": 5.0, "limits": (LIMIT,), **changed})


def seen(*pools: PoolDemand, at: float = NOON, limits: tuple[LimitRoom, ...] = (), slots: int = 0) -> Demand:
    return Demand(at=at, pools=pools, limits=limits, slots=slots)


def test_a_hundred_thousand_tasks_behind_an_hour_of_retry_after_want_the_least() -> None:
    parked = pool(behind=100_000, is_shut=True, opens_at=NOON + 3600, why="the provider has asked everybody to wait")
    found = decide(seen(parked, limits=(LimitRoom(limit=LIMIT, per_s=10),)), Bounds(least=2))
    assert found.slots == 2
    assert "shut for 60 min: 100,000 tasks behind it, the provider has asked everybody to wait" in found.reason


def test_what_is_parked_counts_from_the_lead_before_its_gate_opens_and_up_to_what_its_limit_feeds() -> None:
    limits = (LimitRoom(limit=LIMIT, per_s=10),)
    parked = pool(behind=100_000, is_shut=True, opens_at=NOON + 3600)
    early = decide(seen(parked, at=NOON + 3530, limits=limits), Bounds())
    soon = decide(seen(parked, at=NOON + 3550, limits=limits), Bounds())
    assert early.slots == 1
    assert soon.slots == math.ceil(50 * 1.2)  # 10 a second for 5 s each, and the buffer
    assert "its limits feed 10 a second" in soon.reason


def test_a_gate_of_which_nobody_knows_when_it_opens_wants_nothing() -> None:
    assert decide(seen(pool(behind=500, is_shut=True, why="no key")), Bounds(least=0)).slots == 0


def test_a_steady_flow_wants_its_load_and_a_fifth_more() -> None:
    found = decide(seen(pool(minutes=(1200.0,) * 30)), Bounds())
    assert found.slots == 120  # 20 a second for 5 s each
    assert decide(seen(pool(minutes=(1200.0,) * 30)), Bounds(slots_each=16)).workers == 8


def test_a_small_flow_wants_the_square_root_of_its_load_beside_it() -> None:
    assert decide(seen(pool(minutes=(48.0,) * 30)), Bounds()).slots == 6  # 4 at work, and 2


def test_a_flow_that_comes_in_bursts_wants_more_than_an_even_one() -> None:
    even, bursts = (pool(minutes=minutes) for minutes in ((120.0,) * 30, (0.0, 240.0) * 15))
    assert decide(seen(bursts), Bounds()).slots > 2 * decide(seen(even), Bounds()).slots


def test_what_waits_wants_the_slots_that_make_it_go() -> None:
    found = decide(seen(pool(ready=100)), Bounds(drain_s=10))
    assert found.pools[0].per_s == 10 and found.slots == 60


def test_etas_that_come_due_count_as_what_waits() -> None:
    assert decide(seen(pool(due=100)), Bounds(drain_s=10)).slots == 60


def test_two_pools_of_one_limit_share_what_it_feeds() -> None:
    pools = (pool(pool="a", ready=1000), pool(pool="b", ready=3000))
    found = decide(seen(*pools, limits=(LimitRoom(limit=LIMIT, per_s=4),)), Bounds(drain_s=10))
    assert [want.per_s for want in found.pools] == [pytest.approx(1), pytest.approx(3)]


def test_a_task_of_several_calls_takes_as_much_more_of_its_limit() -> None:
    found = decide(seen(pool(ready=1000, calls=4.0), limits=(LimitRoom(limit=LIMIT, per_s=4),)), Bounds())
    assert found.pools[0].per_s == pytest.approx(1)


def test_no_more_slots_are_wanted_than_calls_may_be_under_way() -> None:
    found = decide(seen(pool(ready=1000), limits=(LimitRoom(limit=LIMIT, in_flight=7),)), Bounds())
    assert found.slots == 7
    assert "its limits take 7 calls at the same time" in found.reason


def test_what_runs_keeps_its_slots() -> None:
    assert decide(seen(pool(running=30, is_shut=True)), Bounds()).slots == 30


def test_fewer_are_wanted_only_once_that_has_lasted() -> None:
    rules, busy, calm = Bounds(lead_s=60), pool(minutes=(1200.0,) * 30), pool(minutes=(60.0,) * 30)
    first = decide(seen(busy), rules)
    soon = decide(seen(calm, at=NOON + 15), rules, first)
    later = decide(seen(calm, at=NOON + 121), rules, soon)
    assert (first.slots, soon.slots, later.slots) == (120, 120, 8)
    assert "8 will do, if that lasts" in soon.reason


def test_what_was_wanted_by_a_clock_that_was_set_back_lasts_no_longer_than_from_now_on() -> None:
    rules, busy, calm = Bounds(lead_s=60), pool(minutes=(1200.0,) * 30), pool(minutes=(60.0,) * 30)
    ahead = decide(seen(busy, at=NOON + 86_400), rules)
    soon = decide(seen(calm), rules, ahead)
    later = decide(seen(calm, at=NOON + 121), rules, soon)
    assert (soon.slots, later.slots) == (120, 8)


@pytest.mark.parametrize(("ago_s", "fresh"), [(0, True), (60, True), (61, False), (-5, True), (-61, False)])
def test_a_decision_is_gone_by_neither_long_after_it_nor_long_before(ago_s: float, fresh: bool) -> None:
    wanted = WantedSlots(decision=decide(seen(at=NOON), Bounds()), crew=1, slots=1, each=1)
    assert wanted.is_fresh(NOON + ago_s) is fresh


@pytest.mark.parametrize(
    ("wanted", "fixed", "most", "each"),
    [
        (16, 0, (12, 12), 8), (17, 0, (12, 12), 9), (100, 80, (40, 40), 10), (50, 80, (40,), 0), (60, 0, (10, 100), 50),
        (60, 20, (10, 100), 30), (500, 0, (10, 20), 20), (7, 0, (), 7),
    ],
)  # fmt: skip
def test_workers_that_scale_share_what_fixed_ones_and_those_at_their_most_leave(
    wanted: int, fixed: int, most: tuple[int, ...], each: int
) -> None:
    assert share(wanted, fixed, most) == each


@given(wanted=st.integers(0, 5000), fixed=st.integers(0, 500), most=st.lists(st.integers(1, 300), max_size=9))
def test_what_is_wanted_is_there_where_bounds_allow_it_and_hardly_more(
    wanted: int, fixed: int, most: list[int]
) -> None:
    each = share(wanted, fixed, most)
    there = fixed + sum(min(each, bound) for bound in most)
    assert there >= min(wanted, fixed + sum(most)) or not most
    assert there <= max(fixed, wanted + len(most))


def test_the_first_decision_takes_nothing_away() -> None:
    first = decide(seen(pool(), slots=40), Bounds())
    assert first.slots == 40
    assert decide(seen(pool(), at=NOON + 121), Bounds(), first).slots == 1


def test_a_morning_rush_that_came_yesterday_is_seen_before_it_comes() -> None:
    day = [100.0] * 9 + [2000.0] * 9 + [100.0] * 6
    hours = tuple((day * 3)[8:56])  # the last whole hour is that from 7 to 8
    at = NOON - NOON % 86_400 + 8.6 * 3600
    without, known = (
        decide(seen(pool(minutes=(100 / 60,) * 30, hours=one), at=at), Bounds(lead_s=900)).pools[0].per_s
        for one in ((), hours)
    )
    assert known > 1.4 * without


def test_a_reason_names_what_asks_for_the_slots_and_what_bounds_them() -> None:
    found = decide(seen(pool(ready=1000)), Bounds(most=20))
    assert found.reason == "research: 1,000 tasks wait; 600 are wanted, 20 allowed"
    assert decide(seen(), Bounds(least=0)).reason == "nothing comes and nothing waits"


count = st.integers(0, 100_000)


@given(
    pools=st.lists(
        st.builds(
            PoolDemand,
            pool=st.uuids().map(str), minutes=st.lists(st.floats(0, 1e5), max_size=30).map(tuple),
            ready=count, due=count, behind=count, later=count, running=st.integers(0, 300),
            service_s=st.none() | st.floats(0, 600), calls=st.floats(0.1, 20), is_shut=st.booleans(),
            opens_at=st.none() | st.floats(NOON - 100, NOON + 4000),
            limits=st.sampled_from([(), ("a",), ("b",), ("a", "b")]),
        ),
        max_size=6, unique_by=lambda one: one.pool,
    ),
    a=st.floats(0, 1000), b=st.floats(0, 1000), least=st.integers(0, 50), most=st.integers(50, 2000),
)  # fmt: skip
def test_bounds_hold_and_no_limit_feeds_more_than_it_has(
    pools: list[PoolDemand], a: float, b: float, least: int, most: int
) -> None:
    limits = (LimitRoom(limit="a", per_s=a), LimitRoom(limit="b", per_s=b))
    found = decide(seen(*pools, limits=limits), Bounds(least=least, most=most))
    assert least <= found.slots <= most and found.reason
    calls = [(want.per_s * one.calls, one.limits) for want, one in zip(found.pools, pools, strict=True) if one.limits]
    for names, room in ((("a",), a), (("b",), b), (("a", "b"), a + b)):
        assert sum(asked for asked, of in calls if set(of) <= set(names)) <= room * 1.0001 + 1e-6
    assert Decision.model_validate_json(found.model_dump_json()) == found
