"""How the brokers of a process share its slots, and from which of them it has a message."""

from __future__ import annotations

from fleet.engine.transport.leases import Holdings, all_holdings
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.running.brokers import AnyStore, Brokers, main_of


def in_hand(besides: Holdings) -> int:
    """Return how many messages of this process take slots: held anywhere, or asked of other brokers (count)."""
    return sum(len(one.held) + (one.asked if one is not besides else 0) for one in all_holdings())


def share_of(holdings: Holdings, wanted: int) -> int:
    """Return how many of some messages to ask of one broker: others have some, too, while what they have waits."""
    busy = sum(not one.is_idle for one in all_holdings() if one is not holdings)
    return -(-wanted // (1 + busy))


async def store_of(where: AnyStore, tag: str | None) -> Store:
    """Return the store of the broker that has the message of a tag; the main one's of none.

    The child process in which a suspect runs has taken nothing itself: there each is asked.

    Raises:
        StoreUnavailable: When one that may have it does not answer.
    """
    if not isinstance(where, Brokers) or not tag:
        return main_of(where)
    holder = next((one for one in all_holdings() if tag in one.held), None)
    if holder is not None:
        return where.clients.get(holder.broker, where.main)
    for store in where.clients.values():
        if await store.command("ZSCORE", keys.unacked_index(), tag) is not None:
            return store
    return where.main
