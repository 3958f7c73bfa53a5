"""Dead letters counted by pool and reason, with what queueing them again may cost: for the page and `fleet dead`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import redis

from fleet.config import Settings
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice, Group
from fleet.engine.outcomes.dead_letters import CAUSES
from fleet.signals.ahead.dead_view import DeadGroup
from fleet.signals.picture import PoolWindows
from fleet.signals.series import cost_of_answer, series_of
from fleet.store import keys
from fleet.store.running.brokers import Anywhere


def priced(groups: Iterable[Group], cost_of: Callable[[str], float | None]) -> tuple[DeadGroup, ...]:
    """Return groups as they are shown; `cost_of` tells what an answer of a pool has cost, in micro-dollars."""
    return tuple(
        DeadGroup.of(pool, reason, CAUSES.get(reason, "bug"), count, newest_at, cost_of(pool))
        for pool, reason, count, newest_at in groups
    )


def read_dead_of(
    state: redis.Redis, broker: Anywhere, settings: Settings, pools: Mapping[str, PoolWindows]
) -> tuple[DeadGroup, ...]:
    """Return all letters by pool and reason; `pools` tells what answers have cost. One round trip."""
    groups = DeadLetterOffice(state, broker, settings).groups()
    return priced(groups, lambda pool: cost_of_answer(pools[pool].series) if pool in pools else None)


def read_dead(
    office: DeadLetterOffice, state: redis.Redis, settings: Settings, *, pool: str | None, reason: str | None
) -> tuple[DeadGroup, ...]:
    """Return the letters of a pool and reason (None: any), counted by both. Two round trips and one per pool.

    Args:
        office: Counts them.
        state: Plain client of the state Redis: what answers have cost.
        settings: Pools.
        pool: Only of this one; `-`: of pools that are not configured.
        reason: Only with this error type.
    """
    groups = [group for group in office.groups(pool=pool) if reason in (None, group.reason)]
    costs = {
        name: cost_of_answer(series_of(state.get(keys.series(name)) or b""))  # type: ignore[arg-type]
        for name in {group.pool for group in groups} & settings.pools.keys()
    }
    return priced(groups, costs.get)
