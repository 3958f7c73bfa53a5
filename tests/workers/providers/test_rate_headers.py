"""What headers of both families say of a key's rates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rates import RateReading
from fleet.workers.providers.rates.headers import read_rates
from fleet.workers.simulator.limits import Allowance
from fleet.workers.simulator.wires.limit_headers import FAMILIES, Family, Readings
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


def of(**values: str) -> dict[str, str]:
    """Return headers: underscores stand for dashes, two of them for one that is meant."""
    return {name.replace("__", "#").replace("_", "-").replace("#", "_"): value for name, value in values.items()}


def said(headers: dict[str, str]) -> dict[int, RateReading]:
    """Return place -> what was said there."""
    rates = read_rates(headers, now_s=NOW_S) or ()
    return {place: reading for place, reading in enumerate(rates) if reading != NOTHING}


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("0.5", 0.5), ("60", 60), ("8.64s", 8.64), ("15ms", 0.015), ("1m30s", 90), ("6m0s", 360), ("2m59.56s", 179.56),
        ("1800000060", 60), ("1800000060.5", 60.5), ("1800000060000", 60), ("1800000060000000", 60), ("1799999990", 0),
        ("2027-01-15T08:01:00Z", 60), ("2027-01-15T08:01:00.123456789Z", 60.123456), ("2027-01-15T10:01:00+02:00", 60),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60),
        ("-3", None), ("nan", None), ("inf", None), ("soon", None), ("1e300", None), ("99999999999999999999", None),
        ("1700000000", None), ("2526-01-15T08:01:00Z", None), ("0001-01-01T00:00:00Z", None), ("9e99s", None),
    ],
)  # fmt: skip
def test_a_reset_is_read_in_any_form_and_an_absurd_one_is_not_said(reset: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-limit-requests": "500", "x-ratelimit-reset-requests": reset}
    assert said(headers)[0].reset_s == (None if seconds is None else pytest.approx(seconds, abs=1e-4))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (of(x_ratelimit_api__key_limit_requests="60", x_ratelimit_api__key_remaining_requests="59",
            x_ratelimit_api__key_limit_tokens="20000", x_ratelimit_api__key_remaining_tokens="19900"),
         {0: RateReading(60, 59), 1: RateReading(20_000, 19_900)}),
        (of(x_ratelimit_api__key_limit_requests="60", x_ratelimit_api__key_remaining_requests="59",
            x_ratelimit_model__per__key_limit_requests="20", x_ratelimit_model__per__key_remaining_requests="3"),
         {0: RateReading(20, 3)}),
        (of(x_ratelimit_limit_requests="100", llm__provider_x_ratelimit_limit_requests="5",
            llm__provider_x_ratelimit_limit_tokens="30000"), {0: RateReading(100), 1: RateReading(30_000)}),
        (of(x_ratelimit_api__key_limit_requests="9223372036854775807"), {}),
        (of(x_ratelimit_limit_requests="1000", x_ratelimit_remaining_requests="999",
            x_ratelimit_renewalperiod_requests="60", x_ratelimit_reset_requests="3"),
         {0: RateReading(1000, 999, 3, 60)}),
        (of(x_ms_ratelimit_remaining_tokens="500"), {1: RateReading(None, 500)}),
        (of(x_ratelimit_limit="20", x_ratelimit_remaining="19", x_ratelimit_reset="1800000030000"),
         {0: RateReading(20, 19, 30)}),
        (of(x_ratelimit_limit_req_minute="60", x_ratelimit_remaining_req_minute="59",
            x_ratelimit_limit_tokens_minute="500000", x_ratelimit_tokens_query_cost="7"),
         {0: RateReading(60, 59, None, 60), 1: RateReading(500_000, None, None, 60)}),
        (of(x_ratelimit_limit_requests_day="14400", x_ratelimit_remaining_requests_day="14399",
            x_ratelimit_reset_requests_day="33011.38", x_ratelimit_limit_requests_hour="900",
            x_ratelimit_limit_tokens_minute="60000", x_ratelimit_reset_tokens_minute="11.38"),
         {1: RateReading(60_000, None, 11.38, 60), 4: RateReading(900, None, None, 3600),
          8: RateReading(14_400, 14_399, 33_011.38, 86_400)}),
        (of(x_ratelimit_limit="10", x_ratelimit_remaining="9", x_ratelimit_reset="1", x_tokenlimit_limit="2000"),
         {0: RateReading(600, 9, 1, 60), 1: RateReading(120_000, None, None, 60)}),
        (of(x_ratelimit_limit_tokens_prompt="60000", x_ratelimit_limit_tokens_generated="9000",
            x_ratelimit_limit_tokens_cache_adjusted_prompt="7"), {2: RateReading(60_000), 3: RateReading(9000)}),
        (of(x_ratelimit_limit_input_tokens="60000"), {2: RateReading(60_000)}),
        (of(ratelimitbysize_limit="500000", ratelimitbysize_remaining="499000"), {1: RateReading(500_000, 499_000)}),
        (of(x_rate_limit_limit="100", x_rate_limit_remaining="98"), {0: RateReading(100, 98)}),
        (of(x_ratelimit_minute_limit="30", x_ratelimit_day_limit="1000"),
         {0: RateReading(30, None, None, 60), 8: RateReading(1000, None, None, 86_400)}),
        (of(x_ratelimit_limit_rpm="30", x_ratelimit_limit_tpd="1000"),
         {0: RateReading(30, None, None, 60), 9: RateReading(1000, None, None, 86_400)}),
        (of(x_ratelimit_limit_requests="10,000", x_ratelimit_reset_requests_ms="1500"),
         {0: RateReading(10_000, None, 1.5)}),
        (of(anthropic_priority_input_tokens_limit="10000", anthropic_priority_input_tokens_remaining="9618"),
         {2: RateReading(10_000, 9618)}),
        (of(anthropic_ratelimit_input_tokens_limit="50000", anthropic_priority_input_tokens_limit="10000",
            anthropic_ratelimit_unified_5h_utilization="0.2"), {2: RateReading(50_000)}),
        (of(ratelimit='"default";r=50;t=30', ratelimit_policy='"default";q=100;w=60'),
         {0: RateReading(100, 50, 30, 60)}),
        (of(ratelimit='"burst";r=5;t=3, "daily-tokens";r=900;t=4000', ratelimit_policy='"burst";q=10;w=10, '
            '"daily-tokens";q=1000;w=86400'),
         {0: RateReading(60, 5, 3, 60), 9: RateReading(1000, 900, 4000, 86_400)}),
        (of(ratelimit="limit=100, remaining=50, reset=5"), {0: RateReading(100, 50, 5)}),
        (of(ratelimit_limit="100, 100;w=60, 1000;w=3600", ratelimit_remaining="98", ratelimit_reset="3"),
         {0: RateReading(100, 98, 3, 60)}),
        (of(ratelimit_policy="100;w=60, 5000;w=3600"), {0: RateReading(100, None, None, 60),
                                                         4: RateReading(5000, None, None, 3600)}),
        (of(ratelimit_policy='"parallel";q=5;qu="concurrent-requests"'), {}),
        (of(priority="u=1, i", x_ratelimit_key="gpt", x_ratelimit_over_limit="no"), {}),
    ],
)  # fmt: skip
def test_headers_of_vendors_and_proxies_are_read(headers: dict[str, str], expected: dict[int, RateReading]) -> None:
    assert said(headers) == expected
    assert said({name.title(): value for name, value in headers.items()}) == expected  # names have no case


#: Words of headers' names, known or not.
WORDS = (
    "x", "ratelimit", "limit", "remaining", "reset", "requests", "tokens", "input", "minute", "day", "ms", "api_key",
    "policy", "priority", "tokenlimit", "llm_provider", "renewalperiod", "rpm", "second", "odd",
)  # fmt: skip
names = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("-".join)
values = st.text(max_size=20) | st.text(alphabet='0123456789-.;,=wqrt aZT:"', max_size=24)


@given(st.dictionaries(names, values, max_size=8))
def test_whatever_headers_say_is_a_reading_of_sense_or_none(headers: dict[str, str]) -> None:
    for reading in said(headers).values():
        for value in (reading.limit, reading.remaining, reading.reset_s, reading.period_s):
            assert value is None or 0 <= value < 1e15


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("none", "azure")])
def test_every_family_of_the_simulator_is_read_back(family: Family) -> None:
    told = Readings(requests=("500", "480", 2.4), tokens=("9000", "8000", 7.0), wall_s=NOW_S)
    found = said(FAMILIES[family](told))
    assert (found[0].limit, found[0].remaining) == (500, 480)
    assert found[0].reset_s is None or 2.4 <= found[0].reset_s <= 3.5
    assert 1 not in found or (found[1].limit, found[1].remaining) == (9000, 8000)
