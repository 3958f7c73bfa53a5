"""The bill in a program of your own, without tasks or bots: opened by URL, for asyncio and for threads.

Weakness: if the program dies, its calls that had no answer yet are entered as unknown by a worker of a fleet on the
same Redis, ten minutes later; without one, they are missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

from fleet.economy.bill.notes import packed_note
from fleet.economy.bill.sweep import LIMITS_LIFE_S
from fleet.economy.bill.writer import Writer
from fleet.entries import Entry
from fleet.errors import FleetError
from fleet.store import bill_keys
from fleet.store.client import Store
from fleet.store.cluster import store_of
from fleet.store.running.loop_thread import LoopThread


class LoneBill(Writer):
    """A writer of the bill for a process that no fleet knows. Belongs to its event loop."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._listed: dict[str, asyncio.Task[None]] = {}

    def opened(self, asked: Entry) -> str:
        """Return the note that the limiter keeps with a call's grant until it is entered."""
        self.list_limit(asked.limit)
        return super().opened(asked)

    def list_limit(self, limit: str) -> None:
        """Let workers of a fleet know that notes of calls may lie beside a limit, once. Never waits, never raises."""
        if limit not in self._listed:
            self._listed[limit] = asyncio.get_running_loop().create_task(self._list(limit))

    async def _list(self, limit: str) -> None:
        try:
            await self._store.command("SADD", bill_keys.limits(), limit)
            await self._store.command("EXPIRE", bill_keys.limits(), LIMITS_LIFE_S)
        except FleetError:  # the next call of the limit does it
            del self._listed[limit]


@asynccontextmanager
async def open_bill(url: str, *, timeout_s: float = 5.0) -> AsyncIterator[LoneBill]:
    """Open the bill for the asyncio loop that runs; what was entered is in it when the block ends.

    Args:
        url: Of Redis; a cluster is `redis+cluster://host:port,host:port`.
        timeout_s: Longest wait for an answer of Redis.
    """
    store = store_of(url, timeout_s=timeout_s)
    bill = LoneBill(store)
    try:
        yield bill
    finally:
        await bill.close()
        await store.close()


class ThreadedBill:
    """The bill for programs with threads: all share it. It runs a loop in a thread; not for forked processes.

    Close it, or use it as a context manager: what was entered is in the bill then.

    Args:
        url: Of Redis; a cluster is `redis+cluster://host:port,host:port`.
        timeout_s: Longest wait for an answer of Redis.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        self._store = store_of(url, timeout_s=timeout_s)
        self._bill = LoneBill(self._store)
        self._runner = LoopThread("fleet-bill")

    def opened(self, asked: Entry) -> str:
        """As `LoneBill.opened`. Does not block."""
        self._runner.post(partial(self._bill.list_limit, asked.limit))
        return packed_note(asked, writer=self._bill.id, process="")

    def enter(self, entry: Entry) -> None:
        """As `Writer.enter`. Does not block."""
        self._runner.post(partial(self._bill.enter, entry))

    def void(self, limit: str, ticket: str) -> None:
        """As `Writer.void`. Does not block."""
        self._runner.post(partial(self._bill.void, limit, ticket))

    def close(self) -> None:
        """Send what was entered, and end the thread."""
        self._runner.close(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def _end(self) -> None:
        await self._bill.close()
        await self._store.close()
