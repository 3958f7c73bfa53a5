"""Durations as counts in buckets that grow by a constant factor: quantiles with a bounded relative error.

The log-bucket histogram of DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", VLDB 2019) with a fixed number of buckets. Ours collapses the longest durations, not the
shortest: beyond 8.7 days a duration counts as 8.7 days. Sketches merge by adding their counts.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

#: Relative error of a quantile: the value told is at most this share off the true one.
RELATIVE_ERROR = 0.02
#: Buckets of one sketch: 0 ms, then 511 up to 8.7 days.
BUCKETS = 512

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
#: Longest duration of each bucket but the last, in milliseconds: looked up, for each task asks for three.
_UPPER_MS = [0.0, *(_GAMMA**n for n in range(BUCKETS - 2))]


def bucket_of(ms: int | None) -> int:
    """Return the bucket of a duration in milliseconds; -1 for None: it is not counted."""
    return -1 if ms is None else bisect_left(_UPPER_MS, ms)


def middle_of(bucket: int) -> float:
    """Return the milliseconds that a bucket stands for: at most `RELATIVE_ERROR` off everything in it."""
    return 0.0 if bucket == 0 else 2 * _GAMMA ** (bucket - 1) / (_GAMMA + 1)


def quantiles(counts: array[int], shares: Sequence[float]) -> tuple[float | None, ...]:
    """Return the durations (ms) below which each share (0 to 1) of the counted ones lies; None without any."""
    raw = counts.tobytes().rstrip(b"\0")  # most buckets are empty, and most of those lie at the ends
    if not raw:
        return (None,) * len(shares)
    first = (len(raw) - len(raw.lstrip(b"\0"))) // counts.itemsize
    below = list(accumulate(counts[first : len(raw) // counts.itemsize + 1]))
    return tuple(middle_of(first + bisect_right(below, share * (below[-1] - 1))) for share in shares)
