from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.config import LimitSettings
from fleet.limiter.limits import Terms

settings = st.builds(
    LimitSettings,
    rpm=st.none() | st.integers(1, 10_000_000),
    tpm=st.none() | st.integers(1, 10_000_000_000),
    burst=st.floats(0.0001, 1),
    window_s=st.floats(0.001, 86_400),
)


@given(settings)
def test_the_burst_is_never_more_than_the_configured_share_of_a_minute(limit: LimitSettings) -> None:
    assert Terms.of(limit).burst_us <= limit.burst * 60_000_000


@given(settings)
def test_a_window_is_taken_for_a_little_longer_than_the_provider_says(limit: LimitSettings) -> None:
    terms = Terms.of(limit)
    assert terms.window_us + terms.margin_us >= limit.window_s * 1_000_000 - 1
    assert terms.margin_us <= 0.004 * terms.window_us + 1


def test_a_minute_of_any_kind_is_what_a_provider_is_taken_for_unless_it_is_said() -> None:
    assert Terms.of(LimitSettings(rpm=60)) == Terms(rpm=60, burst_us=1_200_000, window_us=60_000_000, margin_us=180_000)
    assert Terms.of(LimitSettings(rpm=60, counting="bucket")) == Terms(rpm=60, burst_us=1_200_000)


def test_terms_are_packed_as_eleven_numbers_in_the_order_of_their_fields() -> None:
    terms = Terms.of(
        LimitSettings(
            rpm=1,
            tpm=2,
            input_tpm=3,
            output_tpm=4,
            requests_per_day=5,
            usd_per_day=6,
            in_flight=7,
            counting="bucket",
            when_full="stop bulk",
        )
    )
    assert struct.unpack("<11d", terms.pack()) == (1, 2, 3, 4, 5, 6_000_000, 7, 1_200_000, 0, 0, 1)


def test_a_rate_that_is_not_configured_is_no_limit() -> None:
    assert Terms.of(LimitSettings(counting="bucket")) == Terms(burst_us=1_200_000)


@pytest.mark.parametrize("wrong", [{"rpm": 0}, {"burst": 0}, {"counting": "guess"}, {"window_s": 0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LimitSettings.model_validate(wrong)
