"""Budgets of runs of a file that were left unfinished: each worker reads all that is set live once a second."""

from __future__ import annotations

from fleet.config.budgets import RUN
from fleet.economy.budgets.layouts import LIFE_S
from fleet.economy.budgets.scripts import FORGET_RUNS
from fleet.store import bill_keys, keys
from fleet.store.client import Store

#: Seconds after its last call or resume for which the budget of a run is kept (two weeks).
UNUSED_S = 14 * 86_400
#: Seconds between two looks over all workers, budgets that are looked at in one step, and steps of one look (count).
LOOK_EVERY_S, SOME, STEPS = 3600, 500, 200


async def forget_left_runs(store: Store) -> int:
    """Forget the budgets of runs that were left weeks ago, once an hour over all workers; return how many.

    What such a run has spent stays counted, and its tasks wait: nothing may be spent without its budget (`scopes.py`).
    The same `fleet run` makes it anew.

    Args:
        store: State Redis.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    if await store.command("SET", keys.turn("budgets of runs"), "1", "NX", "EX", LOOK_EVERY_S) is None:
        return 0
    cursor, forgotten, live = b"0", 0, bill_keys.budgets_live()
    for _ in range(STEPS):
        cursor, flat = await store.command("HSCAN", live, cursor, "MATCH", f"{RUN}:*", "COUNT", SOME)
        if names := [name.decode() for name in flat[::2]]:
            call = FORGET_RUNS.call(
                live=live, shares=bill_keys.budget_shares(RUN), spent=map(bill_keys.spent, names),
                least_s=LIFE_S - UNUSED_S, names=names,
            )  # fmt: skip
            forgotten += int(await store.run(FORGET_RUNS, *call))
        if cursor == b"0":
            break
    return forgotten
