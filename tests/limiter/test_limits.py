from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import LimitSettings
from fleet.limiter.limits import MINUTE_US, Pace

settings = st.builds(
    LimitSettings,
    rpm=st.none() | st.integers(1, 10_000_000),
    tpm=st.none() | st.integers(1, 10_000_000_000),
    burst=st.floats(0.0001, 1),
)


@given(settings, st.integers(0, 1_000_000))
def test_intervals_are_never_shorter_than_the_rate_allows(limit: LimitSettings, tokens: int) -> None:
    pace = Pace.of(limit)
    if limit.rpm:
        assert pace.request_us * limit.rpm >= MINUTE_US
    if limit.tpm:
        assert pace.tokens_us(tokens) * limit.tpm >= tokens * MINUTE_US


@given(settings)
def test_burst_and_jitter_together_stay_within_the_configured_share(limit: LimitSettings) -> None:
    pace = Pace.of(limit)
    burst_us = limit.burst * MINUTE_US
    assert pace.jitter_us >= 0
    assert pace.token_burst_us + pace.jitter_us <= burst_us
    assert pace.request_burst_us + pace.jitter_us <= max(burst_us, pace.request_us)


@given(settings)
def test_one_request_always_fits(limit: LimitSettings) -> None:
    pace = Pace.of(limit)
    assert pace.request_burst_us >= pace.request_us


@pytest.mark.parametrize(
    ("rpm", "tpm", "expected"),
    [
        (3000, None, Pace(3000, None, 20_000, 900_000, 900_000, 300_000)),
        (60, 60_000, Pace(60, 60_000, 1_000_000, 1_000_000, 1_000_000, 200_000)),
        (10, None, Pace(10, None, 6_000_000, 6_000_000, 1_200_000, 0)),
        (None, 60_000, Pace(None, 60_000, 0, 900_000, 900_000, 300_000)),
    ],
)
def test_the_default_burst_is_two_percent_of_a_minute(rpm: int | None, tpm: int | None, expected: Pace) -> None:
    assert Pace.of(LimitSettings(rpm=rpm, tpm=tpm)) == expected


def test_a_rate_that_is_not_configured_is_no_limit() -> None:
    pace = Pace.of(LimitSettings())
    assert pace.is_unlimited
    assert (pace.request_us, pace.tokens_us(10**9)) == (0, 0)
