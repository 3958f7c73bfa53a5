"""What is learnt of one beginning, in a real Redis, and the lane that calls with it take."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from fleet.economy.lanes import prefixes as module
from fleet.economy.lanes.choice import LANES, Lane, LaneFacts, Shape, choose, offers
from fleet.economy.lanes.prefixes import COUNT, LEAST_CALLS, PrefixCounter, read_prefixes, step_of, with_prefix
from fleet.store import lane_keys
from fleet.store.client import Store, connect
from fleet.usage import Usage
from tests.economy.lanes.test_choice import (
    DAY_S,
    MADE,
    PREFIXES,
    RATES,
    REST,
    by_hand,
    learnt,
    price_of,
)
from tests.waiting import wait_until

API = "api/m"
WARM = Usage(input_tokens=1000, cached_tokens=900)
WRITING = Usage(input_tokens=1000, cache_write_tokens=800)


def now_s(redis_url: str) -> float:
    with connect(redis_url) as client:
        return float(client.time()[0])


def test_each_beginning_is_known_by_lane_once_it_has_calls_and_one_that_came_once_is_not_kept(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.01)

    async def body() -> None:
        store = Store(redis_url)
        counter = PrefixCounter(store)
        for _ in range(LEAST_CALLS):
            counter.count((API, "standard", "warm"), WARM)
            counter.count((API, "batch", "warm"), WRITING)
            counter.count(("other/a|b", "flex", "odd"), WARM)
        counter.count((API, "standard", "few"), WARM)
        counter.count((API, "standard", "few"), WARM)
        counter.count((API, "standard", "once"), WARM)
        await asyncio.sleep(0.05)
        await store.command("PING")
        await store.close()

    asyncio.run(body())
    name = lane_keys.lane_reads(step_of(now_s(redis_url)))
    with connect(redis_url) as client:
        wait_until(lambda: client.exists(name) == 1, 5, "the counts have not come")
        found = read_prefixes(client, now_s(redis_url))
        assert 0 < client.ttl(name) <= module.LIFE_S
        assert not [field for field in client.hgetall(name) if b"once" in field]
    assert found == {
        (API, "standard", "warm"): LaneFacts(hit=0.9, calls=LEAST_CALLS),
        (API, "batch", "warm"): LaneFacts(written=0.8, calls=LEAST_CALLS),
        ("other/a|b", "flex", "odd"): LaneFacts(hit=0.9, calls=LEAST_CALLS),
    }


def test_an_hour_has_so_many_beginnings_at_most_and_goes_on_counting_those_that_it_has(redis_url: str) -> None:
    step = step_of(now_s(redis_url)) - 1

    async def tell(*names: str) -> int:
        store = Store(redis_url)
        rows = [part for name in names for part in (f"{API}|flex|{name}", 9, 100, 50, 0)]
        try:
            return int(
                await store.run(COUNT, *COUNT.call(reads=lane_keys.lane_reads(step), life_s=60, most=2, rows=rows))
            )
        finally:
            await store.close()

    assert asyncio.run(tell("a", "b", "c")) == 2
    assert asyncio.run(tell("c", "b")) == 1
    with connect(redis_url) as client:
        found = read_prefixes(client, now_s(redis_url))
        client.delete(lane_keys.lane_reads(step))
    assert {(name, facts.calls) for (_, lane, name), facts in found.items() if lane == "flex"} >= {("a", 9), ("b", 18)}
    assert (API, "flex", "c") not in found


@pytest.mark.parametrize(("model", "prefix", "warm"), list(product(RATES, PREFIXES, (True, False))))
def test_calls_of_one_kind_take_the_cheapest_lane_of_their_own_beginning(model: str, prefix: int, warm: bool) -> None:
    """Half of the kind's input is read from caches; of this call's beginning all or nothing, and that decides."""
    own = learnt(model, warm=warm)
    of_kind: dict[Lane, LaneFacts] = {
        lane: LaneFacts(within_s=facts.within_s, hit=0.5, rescued=facts.rescued, twice=facts.twice)
        for lane, facts in own.items()
    }
    known = with_prefix(of_kind, {(API, lane, "mine"): facts for lane, facts in own.items()}, API, "mine")
    found = choose(offers(Shape(prefix + REST, MADE, prefix), DAY_S, price_of(model), known))
    costs = {lane: by_hand(model, lane, prefix, own[lane], own["standard"]) for lane in LANES}
    assert costs[found.lane] == min(cost for cost in costs.values() if cost is not None)
    assert with_prefix(of_kind, {(API, "batch", "other"): UNLIKE}, API, "mine") == of_kind


#: Of another beginning.
UNLIKE = LaneFacts(hit=1.0, calls=100)
