"""What the fleet has learnt of lanes: which share of a kind's input their caches hold. Read from the bill.

The bill counts every call by kind, model and tier anyway, so nothing is counted for this while tasks run.
"""

from __future__ import annotations

import redis

from fleet.economy.bill.reader import read_bill
from fleet.economy.bill.rows import DAY_S
from fleet.economy.lanes.choice import TIER_OF, Lane, LaneFacts, Way

#: Seconds for which the bill is read: caches live for minutes, but a kind may come once a day.
LOOKED_BACK_S = DAY_S
#: Calls below which they tell nothing (count).
LEAST_CALLS = 20

_LANE_OF: dict[str, Lane] = {tier or "": lane for lane, tier in TIER_OF.items()}


def read_learnt(state: redis.Redis, now_s: float) -> dict[Way, LaneFacts]:
    """Return what the calls of the last day tell, by model, kind and lane. One round trip, O(rows of the bill).

    Args:
        state: Plain client of the state Redis.
        now_s: Unix time of Redis.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    bill = read_bill(state, since_s=now_s - LOOKED_BACK_S, until_s=now_s, by=("model", "kind", "tier"))
    found: dict[Way, LaneFacts] = {}
    for line in bill.lines:
        model, kind, tier = line.values
        used, calls = line.sums.usage, line.sums.calls
        if tier in _LANE_OF and calls >= LEAST_CALLS and used.input_tokens:
            hit, written = used.cached_tokens / used.input_tokens, used.cache_write_tokens / used.input_tokens
            found[model, kind, _LANE_OF[tier]] = LaneFacts(
                hit=hit, written=written, output_tokens=round(used.output_tokens / calls), calls=calls
            )
    return found
