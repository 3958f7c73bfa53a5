"""Breakers of one limit as several worker processes hold them, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fleet.errors import ProviderUnavailable, Waits
from fleet.resilience import Breakers
from fleet.store.client import Store
from fleet.waits import Ruling, Wait

LIMIT = "api/model/default"


@dataclass
class Member:
    """One process's breakers, and what it was told to do."""

    breakers: Breakers
    store: Store
    limit: str = LIMIT
    closed: list[str] = field(default_factory=list)
    turns: list[Wait | None] = field(default_factory=list)

    async def fail(
        self, who: str, error: Waits | None = None, *, since_s: float = 60.0, place: int = 0, is_probe: bool = False
    ) -> Ruling:
        """Let a call of task `who` fail."""
        failed = error or ProviderUnavailable("api: expected an answer, got 503")
        return await self.breakers.failed(self.limit, failed, who=who, since_s=since_s, place=place, is_probe=is_probe)

    async def do_well(self, who: str = "good", *, seconds: float = 0.0, place: int = 0, is_probe: bool = False) -> None:
        """Let a call of task `who` do well, and see that the fleet has heard of it if this process tells it."""
        self.breakers.did_well(self.limit, who=who, seconds=seconds, output_tokens=0, place=place, is_probe=is_probe)
        await self.store.command("PING")

    async def tell(self, who: str = "good", *, times: int = 1, place: int = 0) -> None:
        """Let calls do well, and have them reported now."""
        known = self.breakers._known[self.limit]
        for _ in range(times):
            known.report_at = float("inf")
            await self.do_well(who, place=place)
        known.report_at = 0.0
        await self.do_well(who, place=place)

    async def open(self, error: Waits | None = None, calls: int = 10) -> Ruling:
        """Let calls of different tasks fail until the breaker opens."""
        for k in range(calls):
            ruling = await self.fail(f"task {k}", error, place=k + 1)
            if ruling.wait is not None:
                return ruling
        raise AssertionError(f"expected an open breaker after {calls} failures")


@asynccontextmanager
async def member(url: str, fingerprint: str = "aaaa", *, limit: str = LIMIT) -> AsyncIterator[Member]:
    """Start one process's breakers."""
    store = Store(url)
    found: list[Member] = []

    async def on_closed(limit: str, is_first: bool) -> None:
        found[0].closed.append(limit)

    def on_turn(limit: str, wait: Wait | None) -> None:
        found[0].turns.append(wait)

    breakers = Breakers(store, {limit: fingerprint}, on_closed=on_closed, on_turn=on_turn)
    found.append(Member(breakers, store, limit))
    try:
        await breakers.load()
        yield found[0]
    finally:
        await breakers.close()
        await store.close()
