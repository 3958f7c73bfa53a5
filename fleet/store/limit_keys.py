"""The keys of one limit, by name. How they are built: `keys.py`."""

from __future__ import annotations

from typing import NamedTuple


class LimitKeys(NamedTuple):
    """All keys of one limit, in the order of `acquire.lua`.

    Args:
        state: String (packed), see `keys.limit`.
        facts: Hash: what an operator set live and what was learnt.
        queue: Sorted set, ticket -> order.
        due: Sorted set, ticket -> time at which it asks again.
        log: Sorted set, sent call -> time.
        leases: Sorted set, call in flight -> expiry.
        open: Hash, ticket of a call that is not in the bill yet -> what to enter if nobody settles it.
        bots: Sorted set, bot of one tenant -> finish tag.
    """

    state: str
    facts: str
    queue: str
    due: str
    log: str
    leases: str
    open: str
    bots: str
