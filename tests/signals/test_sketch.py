"""Durations in log buckets: quantiles with a bounded relative error. Pure."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.signals.sketch import BUCKETS, RELATIVE_ERROR, bucket_of, middle_of, quantiles

#: 7 days in milliseconds: the longest deadline.
WEEK_MS = 7 * 24 * 3600 * 1000


@given(st.integers(1, WEEK_MS))
def test_a_bucket_stands_for_durations_that_are_at_most_two_percent_off(ms: int) -> None:
    assert abs(middle_of(bucket_of(ms)) - ms) <= RELATIVE_ERROR * ms * (1 + 1e-9)


@given(st.lists(st.integers(0, WEEK_MS), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_at_most_two_percent_off_the_true_one(durations: list[int], share: float) -> None:
    counts = array("I", bytes(4 * BUCKETS))
    for ms in durations:
        counts[bucket_of(ms)] += 1
    true = sorted(durations)[int(share * (len(durations) - 1))]
    (told,) = quantiles(counts, (share,))
    assert told is not None
    assert abs(told - true) <= RELATIVE_ERROR * true + 1e-9


def test_what_is_unknown_is_not_counted_and_what_is_too_long_counts_as_the_longest() -> None:
    assert bucket_of(None) == -1
    assert bucket_of(10**15) == BUCKETS - 1
    assert bucket_of(0) == 0


def test_without_durations_there_is_no_quantile() -> None:
    assert quantiles(array("I", bytes(4 * BUCKETS)), (0.5, 0.9)) == (None, None)


@pytest.mark.parametrize(("ms", "bucket"), [(1, 1), (2, 19), (1000, 174)])
def test_buckets_are_where_other_versions_of_fleet_expect_them(ms: int, bucket: int) -> None:
    assert bucket_of(ms) == bucket
