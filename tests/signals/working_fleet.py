"""A fleet without workers: results are finished by the real script on a real Redis, and read by the real reader."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import redis

from fleet.config import LimitSettings, PoolSettings, Settings
from fleet.engine.operations.overview import Overview
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.models import BotResult, bot_name
from fleet.roster import Checkout, Roster
from fleet.store.client import Store

#: Two pools of three bots on two APIs, one of them with a budget.
SETTINGS = Settings(
    pools={"a": PoolSettings(bots=3, model="m1"), "b": PoolSettings(bots=3, model="m2")},
    limits={"simulator/m1": LimitSettings(rpm=600, tpm=60_000, usd_per_day=24.0)},
)


class WorkingFleet:
    """Finishes tasks as a worker would.

    Args:
        url: State Redis and broker.
        client: A client of it.
        settings: Pools and their APIs.
    """

    def __init__(self, url: str, client: redis.Redis, settings: Settings = SETTINGS) -> None:
        self._url = url
        self._settings = settings
        self._numbers = itertools.count(1)
        self.overview = Overview(settings, state=client, broker=client)
        self.results: list[BotResult] = []

    def seed(self) -> None:
        """Make the bots."""
        asyncio.run(self._with_store(lambda store: Roster(store, self._settings).seed()))

    def finish(
        self, tasks: int, *, pool: str, bot: int, error: str = "", calls: dict[str, int] | None = None, **fields: Any
    ) -> list[str]:
        """Finish new tasks, all alike, and return their ids."""
        name = bot_name(pool, bot)
        data = {
            "status": "failed" if error else "ok", "bot": name, "pool": pool, "provider": "simulator",
            "model": self._settings.pools[pool].model, "attempts": 1, "finished_at": 1.0,
            "error": {"type": error, "message": "m"} if error else None, **fields,
        }  # fmt: skip
        made = [
            BotResult.model_validate({"task_id": f"00000000-0000-4000-8000-{next(self._numbers):012d}", **data})
            for _ in range(tasks)
        ]
        self.repeat(made, calls=calls)
        self.results += made
        return [result.task_id for result in made]

    def repeat(self, results: list[BotResult], *, calls: dict[str, int] | None = None) -> None:
        """Finish tasks with these results, whether they have one or not."""

        async def work(store: Store) -> None:
            completion = Finisher(store, self._settings)
            for result in results:
                checkout = Checkout(result.task_id, str(result.pool), str(result.bot), token=result.task_id)
                await completion.finish(Finish(result, checkout=checkout, provider_errors=calls or {}))

        asyncio.run(self._with_store(work))

    async def _with_store(self, work: Any) -> None:
        store = Store(self._url)
        try:
            await work(store)
        finally:
            await store.close()
