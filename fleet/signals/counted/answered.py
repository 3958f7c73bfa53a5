"""What is known of the last tasks of each API, from the completions that each pool remembers.

Since when all are known is a matter of an API and its pools: a busy pool remembers seconds, and a quiet one a day. What
the quiet one knows of its API is not forgotten because another pool, of another API, is busy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleet.config import Settings
from fleet.signals.counted.sums import FORMER, Ring, newest_recent
from fleet.signals.windows import RecentEntry, checksum


class KnownTasks(NamedTuple):
    """The last tasks, API by API.

    Args:
        entries: Of pools with the same API `RECENT` at most, in no order; of each pool all that it remembers there.
        known_from: By `provider/model`: what is not among `entries` ended before that (Unix seconds), or never.
    """

    entries: Sequence[RecentEntry]
    known_from: Mapping[str, float]


def answered(rings: Mapping[str, Ring], settings: Settings) -> KnownTasks:
    """Return the last tasks of each API; `rings` are those of `FleetSums`."""
    calls = {pool: ["/".join(call) for call in settings.calls_of(pool)] for pool in settings.pools}
    alike: dict[str, list[str]] = {}
    for pool in rings:
        alike.setdefault(calls[pool][0] if pool in calls else pool, []).append(pool)
    entries, known = list[RecentEntry](), dict[int, float]()
    for pools in alike.values():
        found, since = newest_recent([rings[pool] for pool in pools])
        entries += found
        for api in {checksum(api) for pool in pools for api in calls.get(pool, ())} | {one.api for one in found}:
            known[api] = max(since, known.get(api, 0.0))
    least = newest_recent([rings[FORMER]])[1] if FORMER in rings else 0.0
    oldest = min((one.at for one in entries), default=0.0)
    names = {api for apis in calls.values() for api in apis}
    return KnownTasks(entries, {api: max(known.get(checksum(api), 0.0), least) or oldest for api in names})
