"""Calls for tests of the bill: entries, and the Redis that they go to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fleet.economy.bill.reader import read_bill
from fleet.economy.bill.rows import Sums
from fleet.entries import Entry
from fleet.store.client import Store, connect
from fleet.usage import Usage

LIMIT = "simulator/simulated-1/default"
#: Unix time of all calls: noon of yesterday, so that neither hour nor day is near its end.
AT_S = float(int(time.time() // 86_400) * 86_400 - 43_200)

T = TypeVar("T")


def entry(number: int = 1, **fields: Any) -> Entry:
    """Return a settled call of 21 tokens at $0.02 a million."""
    usual: dict[str, Any] = {
        "id": f"t-{number}", "task": f"task-{number}", "pool": "research", "bot": "research-001", "tenant": "",
        "kind": "default", "run": "", "limit": LIMIT, "tier": "", "usage": Usage(input_tokens=20, output_tokens=1),
        "usd_picos": 420_000, "state": "settled", "at_s": AT_S,
    }  # fmt: skip
    return Entry(**{**usual, **fields})


def in_store(redis_url: str, body: Callable[[Store], Awaitable[T]]) -> T:
    """Run a coroutine with a store, and close it."""

    async def run() -> T:
        store = Store(redis_url)
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(run())


def total(redis_url: str, at_s: float = AT_S) -> Sums:
    """Return the sums of the day of these calls, the same by kind, by bot and by the hour."""
    with connect(redis_url) as client:
        bills = [read_bill(client, since_s=at_s, until_s=at_s + 1, by=by) for by in (["pool"], ["bot"], ["hour"])]
    by_kind, by_bot, by_hour = (bill.total for bill in bills)
    assert by_kind == by_bot == by_hour
    return by_kind
