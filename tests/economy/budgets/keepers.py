"""What tests of budgets share: a process that keeps them, its calls, and how they stand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from fleet.config import BudgetSettings
from fleet.economy.budgets import (
    BudgetKeeper,
    Reached,
    read_budgets,
)
from fleet.economy.budgets.reader import BudgetReading
from fleet.errors import NotSoon
from fleet.grants import Caller
from fleet.models import Priority
from fleet.store.client import Store, connect
from fleet.waits import Wait

ANN = Caller(bot="a-001", tenant="ann")
NORMAL = Priority.NORMAL


def keeper(store: Store, budgets: dict[str, BudgetSettings], told: list[Reached] | None = None) -> BudgetKeeper:
    """A process's side."""
    heard = [] if told is None else told
    return BudgetKeeper(store, budgets, process=f"p{time.time_ns():x}", on_reached=heard.append)


def run(url: str, body: Callable[[Store], Awaitable[None]]) -> None:
    async def within() -> None:
        store = Store(url)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(within())


async def settled(one: BudgetKeeper) -> None:
    """Wait until all that ended has been counted."""
    if one._settling is not None:
        await one._settling


def readings(url: str, budgets: dict[str, BudgetSettings]) -> dict[str, BudgetReading]:
    with connect(url) as client:
        return {one.scope: one for one in read_budgets(client, budgets)}


async def refused(one: BudgetKeeper, micros: float, *, pool: str = "a", caller: Caller = ANN) -> Wait:
    with pytest.raises(NotSoon) as caught:
        await one.reserve(one.counting(pool, caller), micros, priority=caller.priority)
    return caught.value.wait()


async def reserve(one: BudgetKeeper, micros: float, *, pool: str = "a", caller: Caller = ANN) -> str:
    return await one.reserve(one.counting(pool, caller), micros, priority=caller.priority)
