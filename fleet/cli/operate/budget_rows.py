"""The part of API limits of the third signal: what each limit allows a minute, and what is used of it."""

from __future__ import annotations

import asyncio

from fleet.config import Settings
from fleet.limiter import Limiter, LimitSnapshot
from fleet.signals import BudgetRow
from fleet.store.client import Store


def read_budgets(settings: Settings, url: str) -> tuple[BudgetRow, ...]:
    """Return one row per limit, in the order of the pools that use it.

    Args:
        settings: Pools and their limits.
        url: State Redis.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    return asyncio.run(_read(settings, url))


async def _read(settings: Settings, url: str) -> tuple[BudgetRow, ...]:
    limits = settings.limits_by_key
    store = Store(url, timeout_s=settings.redis.socket_timeout_s)
    try:
        limiter = Limiter(store, limits)
        return tuple([_row(await limiter.snapshot(name)) for name in limits])
    finally:
        await store.close()


def _row(limit: LimitSnapshot) -> BudgetRow:
    return BudgetRow(
        limit=limit.limit,
        rpm=limit.rpm,
        tpm=limit.tpm,
        used_rpm=limit.used_rpm,
        used_tpm=limit.used_tpm,
        held_until=limit.held_until,
    )
