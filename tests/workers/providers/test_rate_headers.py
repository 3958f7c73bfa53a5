"""What headers of both families say of a key's rates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rates import RateReading
from fleet.workers.providers.rate_headers import read_rates
from fleet.workers.simulator.limits import Allowance
from tests.every import every

NOW_S = 1_800_000_000.0
NOTHING = RateReading()


def test_openais_headers_are_read() -> None:
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    requests, tokens = RateReading(500, 499, 0.12), RateReading(200_000, 0, 360)
    assert read_rates(headers, now_s=NOW_S) == (requests, tokens, NOTHING, NOTHING)


def test_anthropics_headers_are_read_and_input_and_output_are_kept_apart() -> None:
    reset = datetime.fromtimestamp(NOW_S + 30, UTC).isoformat().replace("+00:00", "Z")
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": reset,
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
        "anthropic-ratelimit-output-tokens-limit": "8000",
    }
    assert read_rates(headers, now_s=NOW_S) == (
        RateReading(50, 49, 30), NOTHING, RateReading(40_000, 39_000), RateReading(8000),
    )  # fmt: skip


@pytest.mark.parametrize("family", ["x-ratelimit-", "anthropic-ratelimit-"])
@pytest.mark.parametrize("mode", ["bucket", "sliding", "fixed"])
def test_what_the_simulator_sends_is_read_back(family: str, mode: str) -> None:
    allowance = Allowance(rpm=600, tpm=9000, burst=0.5, minute_s=60, now_s=100.0, mode=mode)  # type: ignore[arg-type]
    allowance.admit(1500, 100.0)
    headers = {name: value for name, value in allowance.headers(NOW_S).items() if name.startswith(family)}
    rates = read_rates(headers, now_s=NOW_S)
    assert rates is not None
    assert [rate.limit for rate in rates] == [600, 9000, None, None]
    assert rates[0].remaining == (299 if mode == "bucket" else 599)
    assert rates[1].remaining == (3000 if mode == "bucket" else 7500)
    assert every(rate.reset_s is not None and 0 < rate.reset_s <= 60.01 for rate in rates[:2])


def test_a_date_far_from_ours_is_the_clock_that_resets_are_read_by() -> None:
    headers = {
        "date": "Fri, 15 Jan 2027 09:00:00 GMT",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-reset": "2027-01-15T09:00:10Z",
    }
    rates = read_rates(headers, now_s=NOW_S)
    assert rates is not None
    assert rates[0].reset_s == pytest.approx(10)


@pytest.mark.parametrize("headers", [{}, {"date": "x"}, {"x-ratelimit-reset-requests": "1s"}])
def test_headers_without_rates_say_nothing(headers: dict[str, str]) -> None:
    assert read_rates(headers, now_s=NOW_S) is None


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_nonsense_is_no_reading_and_no_error(limit: str, remaining: str, reset: str) -> None:
    names = ("limit", "remaining", "reset")
    headers = {f"x-ratelimit-{n}-tokens": v for n, v in zip(names, (limit, remaining, reset), strict=True)}
    rates = read_rates(headers, now_s=NOW_S)
    for value in () if rates is None else (rates[1].limit, rates[1].remaining, rates[1].reset_s):
        assert value is None or value >= 0
