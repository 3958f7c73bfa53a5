from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.backoff import BASE_S, CAP_S, full_jitter

shares = st.floats(min_value=0, max_value=1)


@given(st.integers(min_value=1, max_value=10_000), shares)
def test_a_pause_lies_between_zero_and_the_cap(failures: int, share: float):
    assert 0 <= full_jitter(failures, share=share) <= CAP_S


@given(st.integers(min_value=1, max_value=100), shares, st.floats(min_value=0, max_value=3600))
def test_a_pause_is_never_shorter_than_what_the_other_side_asked_for(failures: int, share: float, floor_s: float):
    assert floor_s <= full_jitter(failures, share=share, floor_s=floor_s) <= floor_s + CAP_S


def test_the_upper_bound_doubles_until_the_cap():
    bounds = [full_jitter(failures, share=1.0) for failures in range(1, 9)]
    assert bounds == [BASE_S, 0.4, 0.8, 1.6, 3.2, 6.4, CAP_S, CAP_S]


def test_callers_with_the_same_retry_after_come_back_apart():
    assert full_jitter(1, share=0.1, floor_s=5) != full_jitter(1, share=0.9, floor_s=5)
