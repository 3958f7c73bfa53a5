"""Durations as counts in buckets that grow by a constant factor: quantiles with a bounded relative error.

The log-bucket histogram of DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", VLDB 2019) with a fixed number of buckets. Ours collapses the longest durations, not the
shortest: beyond 8.7 days a duration counts as 8.7 days. Sketches merge by adding their counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Relative error of a quantile: the value told is at most this share off the true one.
RELATIVE_ERROR = 0.02
#: Buckets of one sketch: 0 ms, then 511 up to 8.7 days.
BUCKETS = 512

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)


def bucket_of(ms: int | None) -> int:
    """Return the bucket of a duration in milliseconds; -1 for None: it is not counted."""
    if ms is None:
        return -1
    return 0 if ms < 1 else min(BUCKETS - 1, 1 + math.ceil(math.log(ms) / _LOG_GAMMA))


def middle_of(bucket: int) -> float:
    """Return the milliseconds that a bucket stands for: at most `RELATIVE_ERROR` off everything in it."""
    return 0.0 if bucket == 0 else 2 * _GAMMA ** (bucket - 1) / (_GAMMA + 1)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration in milliseconds below which `share` (0 to 1) of the counted ones lie; None without any."""
    rank = share * (sum(counts) - 1)
    below = 0
    for bucket, count in enumerate(counts):
        below += count
        if count and below > rank:
            return middle_of(bucket)
    return None
