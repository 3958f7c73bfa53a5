"""The lane of least expected cost: against brute force over calls that are priced one by one."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import config
from fleet.economy.lanes.choice import (
    LANES,
    TIER_OF,
    UNLEARNT,
    WINDOW_OF,
    Lane,
    LaneFacts,
    Offer,
    PriceOf,
    Shape,
    choose,
    offers,
)
from fleet.economy.prices import PriceList
from fleet.usage import Usage

DAY_S = 86_400.0
#: Dollars a million tokens: input, cached, written to the cache, output. Of each model and tier.
RATES: dict[str, dict[str | None, tuple[str, str, str, str]]] = {
    # Half the price of everything in a batch and in flex.
    "half": {
        None: ("1.00", "0.10", "1.00", "4"), "batch": ("0.50", "0.05", "0.50", "2"),
        "flex": ("0.50", "0.05", "0.50", "2"), "priority": ("2.00", "0.20", "2.00", "8"),
    },
    # A batch gives no discount on cached tokens beyond its own.
    "uncached": {None: ("2.00", "0.20", "2.00", "8"), "batch": ("1.00", "1.00", "1.00", "4")},
    # What is written to the cache costs a quarter more.
    "written": {
        None: ("3.00", "0.30", "3.75", "15"), "batch": ("1.50", "0.15", "1.875", "7.5"),
        "background-2h": ("2.10", "0.21", "2.625", "10.5"), "background-8h": ("1.80", "0.18", "2.25", "9"),
    },
}  # fmt: skip
PREFIXES = (0, 1_000, 10_000, 100_000)
REST, MADE = 300, 200
#: Calls that brute force prices one by one.
CALLS = 200
NAMES = ("input_usd_per_mtok", "cached_usd_per_mtok", "cache_write_usd_per_mtok", "output_usd_per_mtok")


def price_of(model: str) -> PriceOf:
    tables = {
        tier: dict(zip(NAMES, map(float, rates), strict=True)) for tier, rates in RATES[model].items()
    }  # fmt: skip
    own = tables.pop(None)
    prices = PriceList(config.Settings.model_validate({"prices": {f"p/{model}": {**own, "tiers": tables}}}))
    return lambda usage, tier: prices(f"p/{model}", usage, tier)


def learnt(model: str, *, warm: bool) -> dict[Lane, LaneFacts]:
    """A warm prefix is in the usual lane's cache, which flex and priority share; batches start cold."""
    written = 1.0 if model == "written" else 0.0
    hit = 0.95 if warm else 0.0
    at_once = LaneFacts(within_s=5, hit=hit, written=written * (1 - hit), calls=100)
    batch = LaneFacts(within_s=20_000, written=written, rescued=0.05, twice=0.01, calls=100)
    background = {
        lane: LaneFacts(within_s=seconds, written=written, calls=100) for lane, (_, seconds) in WINDOW_OF.items()
    }
    return {"standard": at_once, "priority": at_once, "flex": at_once, "batch": batch, **background}


def by_hand(model: str, lane: Lane, prefix: int, known: LaneFacts, usual: LaneFacts) -> Fraction | None:
    """Price `CALLS` calls one by one, in dollars a million: so many of them hit, write, are rescued and paid twice."""

    def one(tier: str | None, own: LaneFacts, number: int) -> Fraction:
        given, cached, written, made = map(Fraction, RATES[model][tier])
        share = Fraction(number, CALLS)
        if share < Fraction(own.hit).limit_denominator(1000):
            of_prefix = cached
        elif share < Fraction(own.hit + own.written).limit_denominator(1000):
            of_prefix = written
        else:
            of_prefix = given
        return prefix * of_prefix + REST * given + MADE * made

    if TIER_OF[lane] not in RATES[model]:
        return None
    mean = sum(one(TIER_OF[lane], known, number) for number in range(CALLS)) / CALLS
    if lane == "standard":
        return mean
    of_usual = sum(one(None, usual, number) for number in range(CALLS)) / CALLS
    rescued, twice = (Fraction(part).limit_denominator(1000) for part in (known.rescued, known.twice))
    return mean * (1 - rescued + twice) + of_usual * rescued


def taken(model: str, prefix: int, known: dict[Lane, LaneFacts], by_s: float = DAY_S) -> Offer:
    return choose(offers(Shape(prefix + REST, MADE, prefix), by_s, price_of(model), known))


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("model", RATES)
def test_three_models_by_four_prefixes_warm_and_cold_take_the_cheapest_lane(model: str, prefix: int, warm: bool):
    known = learnt(model, warm=warm)
    costs = {lane: by_hand(model, lane, prefix, known[lane], known["standard"]) for lane in LANES}
    cheapest = min(cost for cost in costs.values() if cost is not None)
    found = taken(model, prefix, known)
    assert costs[found.lane] == cheapest
    assert found.usd_picos == pytest.approx(float(cheapest * 10**6), abs=3)


def test_the_table_has_no_fixed_order_a_warm_usual_lane_beats_a_cold_batch_and_a_batch_a_cold_one():
    lanes = {
        (model, prefix, warm): taken(model, prefix, learnt(model, warm=warm)).lane
        for model, prefix, warm in product(RATES, PREFIXES, (True, False))
    }
    assert lanes["half", 0, True] == lanes["half", 10_000, True] == "flex"
    assert lanes["uncached", 10_000, True] == "standard" and lanes["uncached", 10_000, False] == "batch"
    assert lanes["written", 100_000, True] == "standard" and lanes["written", 100_000, False] == "batch"
    assert lanes["written", 0, True] == "batch"


def test_a_batch_is_taken_below_its_promise_only_by_its_learnt_95th_percentile():
    known = learnt("uncached", warm=False)
    assert taken("uncached", 1000, known, by_s=21_000).lane == "batch"
    assert taken("uncached", 1000, known, by_s=19_000).lane == "standard"
    known["batch"] = UNLEARNT
    assert taken("uncached", 1000, known, by_s=80_000).lane == "standard"
    assert taken("uncached", 1000, known, by_s=DAY_S).lane == "batch"


def test_a_background_response_is_taken_by_its_window_where_that_is_enough_and_nothing_is_cheaper():
    known = learnt("written", warm=False)
    lanes = {by_s: taken("written", 1000, known, by_s=by_s).lane for by_s in (7_000, 7_300, 19_000, 21_000, 30_000)}
    assert lanes == {
        7_000: "standard",
        7_300: "background-2h",
        19_000: "background-2h",
        21_000: "batch",
        30_000: "batch",
    }
    known["batch"] = UNLEARNT
    assert taken("written", 1000, known, by_s=30_000).lane == "background-8h"


def test_what_costs_more_is_taken_only_where_the_usual_lane_is_too_slow():
    known = learnt("half", warm=True) | {"standard": LaneFacts(within_s=30), "flex": LaneFacts(within_s=600)}
    assert taken("half", 0, known, by_s=40).lane == "standard"
    assert taken("half", 0, known, by_s=10).lane == "priority"
    assert taken("half", 0, known, by_s=1).lane == "standard", "nothing is in time: the usual one, at the usual price"


def test_a_lane_without_a_price_or_that_its_api_lacks_is_not_taken_and_says_why():
    offered = offers(Shape(100, 10, 100), DAY_S, price_of("uncached"), {}, has={"standard", "flex"})
    assert {one.lane: one.why_not for one in offered} == {
        "batch": "Fleet does not take it there", "background-8h": "Fleet does not take it there",
        "background-2h": "Fleet does not take it there", "flex": "no price", "standard": "",
        "priority": "Fleet does not take it there",
    }  # fmt: skip
    assert choose(offered).lane == "standard"


@given(
    st.sampled_from(list(RATES)), st.integers(0, 200_000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
    st.floats(1, 10**6),
)  # fmt: skip
def test_no_possible_lane_is_cheaper_than_the_one_that_is_taken(
    model: str, prefix: int, hit: float, written: float, rescued: float, by_s: float
):
    known: dict[Lane, LaneFacts] = {
        lane: LaneFacts(hit=hit, written=written) for lane in ("standard", "flex", "priority")
    }
    known["batch"] = LaneFacts(within_s=50_000, rescued=rescued, twice=rescued / 10)
    offered = offers(Shape(prefix + REST, MADE, prefix), by_s, price_of(model), known)
    found = choose(offered)
    assert found.usd_picos is not None
    priced = [one for one in offered if one.is_possible and one.usd_picos is not None]
    assert [one for one in priced if one.usd_picos < found.usd_picos] == []


def test_cached_and_written_tokens_never_come_to_more_than_the_prefix():
    seen: list[Usage] = []

    def price(usage: Usage, tier: str | None) -> int:
        seen.append(usage)
        return 1

    offers(Shape(130, 10, 100), 10, price, {"standard": LaneFacts(hit=0.8, written=0.9)})
    assert max(one.cached_tokens + one.cache_write_tokens for one in seen) == 100
