"""Whose turn a duty is that one process of the fleet does: the others stand by, and one takes it when it is left."""

from __future__ import annotations

from fleet.store.client import Store


async def has_turn(store: Store, turn: str, process: str, *, life_s: int) -> bool:
    """Take the turn, or keep it. Two processes may have it for a moment, when one has not asked for `life_s`.

    Args:
        store: Where the turn is.
        turn: Its key.
        process: Id of the one that asks.
        life_s: Seconds until another one may take it, unless this one has asked again.

    Returns:
        True when the duty is this process's.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    if await store.command("SET", turn, process, "NX", "EX", life_s) is not None:
        return True
    if await store.command("GET", turn) != process.encode():
        return False
    await store.command("EXPIRE", turn, life_s)
    return True
