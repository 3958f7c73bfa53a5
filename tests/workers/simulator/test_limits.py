"""The simulator's buckets: what they admit, what they answer, what they say about themselves."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.simulator.limits import (
    WAIT_MARGIN_S,
    Allowance,
    Bucket,
    Limits,
    Mode,
    SlidingWindow,
    make_counter,
)
from fleet.workers.simulator.wires.limit_headers import duration, rfc3339

SECONDS = st.floats(min_value=0, max_value=30, allow_nan=False)


def allowance(*, rpm: int = 60, tpm: int = 6000, burst: float = 0.05, minute_s: float = 60.0) -> Allowance:
    return Allowance(rpm=rpm, tpm=tpm, burst=burst, minute_s=minute_s, now_s=0.0)


@given(
    rate=st.floats(min_value=0.1, max_value=1000),
    capacity=st.floats(min_value=1, max_value=500),
    calls=st.lists(st.tuples(SECONDS, st.floats(min_value=0.1, max_value=1000)), max_size=60),
)
def test_a_bucket_never_admits_more_than_burst_plus_rate_times_time(
    rate: float, capacity: float, calls: list[tuple[float, float]]
) -> None:
    bucket = Bucket(rate_per_s=rate, capacity=capacity, now_s=0.0)
    admitted: list[tuple[float, float]] = []
    now = 0.0
    for pause, amount in calls:
        now += pause
        bucket.refill(now)
        if bucket.wait_s(amount) == 0:
            bucket.take(amount)
            admitted.append((now, amount))
    for first, (begin, _) in enumerate(admitted):
        spent = 0.0
        for end, amount in admitted[first:]:
            # A call larger than the burst may be admitted by a full bucket: its excess is a debt.
            excess = max(0.0, amount - capacity)
            spent += amount
            assert spent - excess <= capacity + rate * (end - begin) + 1e-6 * (spent + 1)


@given(tokens=st.lists(st.integers(min_value=1, max_value=3000), min_size=1, max_size=40))
def test_who_waits_as_long_as_told_is_admitted(tokens: list[int]) -> None:
    buckets = allowance()
    now = 1000.0
    for amount in tokens:
        refusal = buckets.admit(amount, now)
        if refusal is not None:
            now += refusal.retry_after_s
            assert buckets.admit(amount, now) is None


@given(tokens=st.lists(st.integers(min_value=1, max_value=3000), min_size=1, max_size=40))
def test_who_comes_well_before_the_told_time_is_refused_again(tokens: list[int]) -> None:
    buckets = allowance()
    now = 1000.0
    for amount in tokens:
        refusal = buckets.admit(amount, now)
        while refusal is not None and refusal.retry_after_s > 0.01:
            now += (refusal.retry_after_s - WAIT_MARGIN_S) / 2
            again = buckets.admit(amount, now)
            assert again is not None
            refusal = again


def test_a_refused_call_is_charged_nothing() -> None:
    buckets = allowance(rpm=600, tpm=6000)  # bursts: 30 requests, 300 tokens
    assert buckets.admit(300, 0.0) is None
    before = buckets.headers(0.0)
    refusal = buckets.admit(1, 0.0)
    assert refusal is not None
    assert refusal.what == "tokens"
    assert buckets.headers(0.0) == before


def test_a_call_larger_than_the_burst_goes_when_the_bucket_is_full_and_leaves_a_debt() -> None:
    buckets = allowance(rpm=6000, tpm=6000)  # 300 tokens of burst, 100 a second
    assert buckets.admit(1000, 0.0) is None
    refusal = buckets.admit(1, 0.0)
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx((700 + 1) / 100, abs=0.01)


def test_a_small_limit_still_lets_one_request_go() -> None:
    buckets = allowance(rpm=1, tpm=1000)
    assert buckets.admit(1, 0.0) is None
    refusal = buckets.admit(1, 0.0)
    assert refusal is not None
    assert refusal.what == "requests"
    assert refusal.retry_after_s == pytest.approx(60, abs=0.01)


def test_a_compressed_minute_refills_faster() -> None:
    buckets = allowance(rpm=60, tpm=10**9, minute_s=6.0)
    while buckets.admit(1, 0.0) is None:
        pass
    refusal = buckets.admit(1, 0.0)
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(0.1, abs=0.01)


def test_a_clock_that_goes_back_refills_nothing() -> None:
    bucket = Bucket(rate_per_s=1, capacity=5, now_s=10.0)
    bucket.take(5)
    bucket.refill(3.0)
    assert bucket.level == 0
    bucket.refill(11.0)
    assert bucket.level == 1


def test_limits_are_kept_apart_by_key_and_by_model() -> None:
    limits = Limits(rpm=1, tpm=1000, burst=0.05, minute_s=60.0)
    assert limits.allowance("a", "m", 0.0).admit(1, 0.0) is None
    assert limits.allowance("a", "m", 0.0).admit(1, 0.0) is not None
    assert limits.allowance("b", "m", 0.0).admit(1, 0.0) is None
    assert limits.allowance("a", "n", 0.0).admit(1, 0.0) is None


def test_both_header_families_say_the_same() -> None:
    buckets = allowance(rpm=600, tpm=60_000)
    buckets.admit(1000, 0.0)
    headers = buckets.headers(1_700_000_000.0)
    assert headers["x-ratelimit-limit-requests"] == headers["anthropic-ratelimit-requests-limit"] == "600"
    assert headers["x-ratelimit-limit-tokens"] == headers["anthropic-ratelimit-tokens-limit"] == "60000"
    assert headers["x-ratelimit-remaining-requests"] == headers["anthropic-ratelimit-requests-remaining"] == "29"
    assert headers["x-ratelimit-remaining-tokens"] == headers["anthropic-ratelimit-tokens-remaining"] == "2000"
    assert headers["x-ratelimit-reset-tokens"] == "1s"
    assert headers["anthropic-ratelimit-tokens-reset"] == "2023-11-14T22:13:21.000Z"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1.2, "1.2s"), (60, "1m0s"), (361.5, "6m1.5s")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(min_value=0, max_value=4e9))
def test_a_reset_date_is_never_before_the_reset(unix_s: float) -> None:
    written = datetime.fromisoformat(rfc3339(unix_s)).timestamp()
    assert unix_s - 1e-5 <= written <= unix_s + 0.00101


@given(
    limit=st.integers(min_value=1, max_value=500),
    window=st.floats(min_value=0.5, max_value=60),
    calls=st.lists(
        st.tuples(st.floats(min_value=0, max_value=20), st.integers(min_value=1, max_value=700)), max_size=60
    ),
)
def test_no_sliding_window_holds_more_than_the_limit(limit: int, window: float, calls: list[tuple[float, int]]) -> None:
    counter = SlidingWindow(limit=limit, window_s=window, now_s=0.0)
    admitted: list[tuple[float, int]] = []
    now = 0.0
    for pause, amount in calls:
        now += pause
        counter.refill(now)
        if counter.wait_s(amount) == 0:
            counter.take(amount)
            admitted.append((now, amount))
    for first, (begin, _) in enumerate(admitted):
        inside = [amount for at, amount in admitted[first:] if at - begin < window - 1e-9]
        assert sum(inside) <= limit or len(inside) == 1


@pytest.mark.parametrize("mode", ["bucket", "sliding", "fixed"])
@given(amounts=st.lists(st.integers(min_value=1, max_value=90), min_size=1, max_size=40))
def test_who_waits_as_long_as_a_counter_says_is_admitted(mode: Mode, amounts: list[int]) -> None:
    counter = make_counter(mode, limit=100, burst=0.5, minute_s=6.0, now_s=50.0)
    now = 50.0
    for amount in amounts:
        counter.refill(now)
        wait_s = counter.wait_s(amount)
        if wait_s:
            now += wait_s + WAIT_MARGIN_S
            counter.refill(now)
        assert counter.wait_s(amount) == 0
        counter.take(amount)


def test_a_fixed_window_begins_anew_with_each_minute_of_the_clock() -> None:
    counter = make_counter("fixed", limit=10, burst=0.5, minute_s=60.0, now_s=59.0)
    counter.take(10)
    assert (counter.remaining, counter.wait_s(1), counter.full_in_s) == (0, 1.0, 1.0)
    counter.refill(60.0)
    assert (counter.remaining, counter.wait_s(10)) == (10, 0.0)


def test_a_call_larger_than_a_window_goes_when_the_window_is_empty() -> None:
    for mode in ("sliding", "fixed"):
        buckets = Allowance(rpm=60, tpm=100, burst=1.0, minute_s=60.0, now_s=0.0, mode=mode)
        assert buckets.admit(500, 0.0) is None
        refusal = buckets.admit(1, 1.0)
        assert refusal is not None
        assert refusal.retry_after_s == pytest.approx(59.0, abs=0.01)
