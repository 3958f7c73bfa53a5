"""The limiter's rules in simulated time: full use, fairness and priority without a busy machine's noise."""

from __future__ import annotations

import pytest

from fleet.config import LimitSettings
from fleet.limiter.simulated.forecast import Forecast, Load, forecast

#: The provider of the benchmark: 43 calls/s, tokens bind.
LIMIT = LimitSettings(rpm=3000, tpm=1_800_000, burst=0.002, counting="bucket")
WINDOW = LimitSettings(rpm=3000, tpm=1_800_000, burst=0.002, counting="window", window_s=6)


def used(found: Forecast, tpm: int = 1_800_000) -> float:
    return found.tokens / found.seconds / tpm * 60


def at(times: tuple[float, ...], share: float) -> float:
    return times[int(len(times) * share)]


@pytest.mark.parametrize(("limit", "bar"), [(LIMIT, 0.995), (WINDOW, 0.99)])
def test_a_hundred_bots_use_the_whole_limit_evenly(limit: LimitSettings, bar: float) -> None:
    found = forecast(limit, Load(100, latency_s=0.0), seconds=90)
    assert used(found) >= bar
    assert at(found.waits_s, 0.99) <= 1.25 * at(found.waits_s, 0.5)
    assert found.most - found.fewest <= 6
    assert found.questions / found.calls <= 2.2


def test_a_thousand_waiting_bots_use_it_as_well() -> None:
    found = forecast(LIMIT, Load(1000, latency_s=0.0), seconds=150)
    assert used(found) >= 0.995
    assert found.fewest > 0


def test_calls_that_use_less_than_they_reserve_leave_nothing_unused() -> None:
    limit = LIMIT.model_copy(update={"rpm": 30_000})
    assert used(forecast(limit, Load(100, latency_s=0.2, used_share=0.6), seconds=90)) >= 0.99


@pytest.mark.parametrize("latency_s", [0.0, 0.2])
def test_critical_calls_go_first_and_the_rest_keeps_a_tenth(latency_s: float) -> None:
    found = forecast(LIMIT, Load(100, latency_s=latency_s, critical=10), seconds=90)
    assert len(found.waits_s) / found.calls >= 0.1
    # Ten callers that wait for nothing else cannot wait less than 10 / 43 s: Little's law.
    assert at(found.critical_waits_s, 0.95) <= (0.35 if latency_s == 0 else 0.2)
    assert used(found) >= 0.995
    assert found.fewest > 0
