"""Money on a real Redis, through the script that finishes tasks: sums that stay exact, however small or large."""

from __future__ import annotations

from typing import cast

import redis

from fleet.config import PriceSettings
from fleet.economy.rates import configured_rates
from fleet.money import micros_of
from fleet.signals import catalogue
from fleet.signals.metrics import exposition
from fleet.signals.reader import Signals
from fleet.signals.windows import PERIOD, Period, bot_rows_of
from fleet.store import keys
from fleet.usage import Usage
from fleet.workers.meter import Meter
from tests.counted import all_counted
from tests.signals.working_fleet import SETTINGS, WorkingFleet

#: The cheapest call: 21 tokens at $0.02 a million.
CHEAPEST = PriceSettings(input_usd_per_mtok=0.02, output_usd_per_mtok=0.02)
CALL = Usage(input_tokens=20, output_tokens=1)


def spent(client: redis.Redis) -> int:
    return catalogue.spent_picos(all_counted(client))


def test_a_million_of_the_cheapest_calls_cost_42_cents(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    rates, meter = configured_rates(CHEAPEST, None), Meter()
    assert rates is not None
    for _ in range(5000):
        meter.charge(CALL, rates.cost_usd_picos(CALL))
    assert meter.cost_usd_picos is not None
    working_fleet.finish(
        200, pool="a", bot=1, attempts=5000, usage=meter.usage, cost_usd_picos=meter.cost_usd_picos,
        cost_usd_micros=micros_of(meter.cost_usd_picos),
    )  # fmt: skip
    view = working_fleet.overview.read()
    assert view.totals["attempts"] == 1_000_000
    assert spent(client) == 420_000 * 10**6
    assert (view.totals["cost_usd_micros"], view.cost.total_usd_micros) == (420_000, 420_000)
    assert (view.cost.day_usd_micros, view.cost.hour_usd_micros, view.bots.cost_usd_micros[0]) == (420_000,) * 3
    assert "fleet_cost_usd_total 0.42\n" in exposition(view).decode()


def test_tasks_that_cost_less_than_half_a_micro_dollar_add_up(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    working_fleet.finish(1000, pool="a", bot=1, usage=CALL, cost_usd_picos=420_000, cost_usd_micros=0)
    view, snapshot = working_fleet.overview.read(), Signals(client, SETTINGS).read()
    assert (spent(client), snapshot.resources.cost_usd_micros) == (420 * 10**6, 420)
    assert (view.cost.total_usd_micros, view.cost.day_usd_micros, view.bots.cost_usd_micros[0]) == (420, 420, 420)


def test_windows_are_exact_to_the_pico_below_a_thousand_dollars(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    working_fleet.finish(1000, pool="a", bot=1, cost_usd_picos=123_456_789, cost_usd_micros=123)
    periods = PERIOD.iter_unpack(cast(bytes, client.get(keys.series("a"))))
    sums = [Period(*numbers).cost_usd_micros for numbers in periods]
    assert sum(round(micros * 10**6) for micros in sums) == 123_456_789_000
    assert sums == [round(micros * 10**6) / 10**6 for micros in sums]  # nothing between two picos, which would add up
    assert bot_rows_of(cast(bytes, client.get(keys.bot_rows("a"))), 2).cost_usd_micros[1] == 123_456.789


def test_a_sum_beyond_64_bits_stays_exact(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    dear = 9_300_000 * 10**12 + 1  # more than 2^63 of 10^-12 dollars
    working_fleet.finish(2, pool="a", bot=1, cost_usd_picos=dear, cost_usd_micros=micros_of(dear))
    assert dear > 2**63 and spent(client) == 2 * dear
    assert working_fleet.overview.read().cost.total_usd_micros == 18_600_000 * 10**6


def test_the_sum_of_an_earlier_release_goes_on(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    client.hset(keys.pool_totals("a"), "cost_usd_micros", 2_500_000)
    working_fleet.finish(1, pool="a", bot=1, cost_usd_micros=7)  # a result of that release, repeated by this one
    working_fleet.finish(3, pool="a", bot=1, cost_usd_picos=400_000, cost_usd_micros=0)
    assert spent(client) == 2_500_007 * 10**6 + 1_200_000
    assert working_fleet.overview.read().cost.total_usd_micros == 2_500_008


def test_half_a_micro_dollar_is_rounded_alike_in_each_figure(working_fleet: WorkingFleet) -> None:
    working_fleet.finish(1, pool="a", bot=1, cost_usd_picos=436_500_000, cost_usd_micros=437)
    cost = working_fleet.overview.read().cost
    (pool,) = (one for one in cost.pools if one.pool == "a")
    assert (cost.total_usd_micros, pool.hour_usd_micros, pool.day_usd_micros) == (437, 437, 437)
    assert working_fleet.overview.read().bots.cost_usd_micros[0] == 437


def test_cached_and_thinking_tokens_are_counted_and_shown(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    usage = Usage(input_tokens=2006, cached_tokens=1920, output_tokens=300, reasoning_tokens=100)
    working_fleet.finish(2, pool="a", bot=1, usage=usage)
    used, text = Signals(client, SETTINGS).read().resources, exposition(working_fleet.overview.read()).decode()
    assert (used.cached_tokens, used.reasoning_tokens) == (3840, 200)
    assert "fleet_cached_tokens_total 3840" in text and "fleet_reasoning_tokens_total 200" in text
    plain = {name for name in client.hkeys(keys.pool_totals("a")) if b"cache" in name}
    assert plain == {b"cached_tokens"}  # nothing is counted that is zero
