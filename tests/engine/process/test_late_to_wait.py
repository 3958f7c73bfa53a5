"""A task that looks for a warm cache just before there is one, and is parked just after: it must go on at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fleet.config import PoolSettings, Settings
from fleet.economy.contexts.shelf import Documents
from fleet.economy.contexts.warmth import Start
from fleet.engine.process import shared_contexts
from fleet.engine.process.shared_contexts import SharedContexts
from fleet.models import BotTask

CONTEXT = "ctx-" + "0" * 24


class OneFirst:
    """Warmth of which the first task to look goes first."""

    def __init__(self) -> None:
        self.first = ""

    async def look(self, prefix: str, who: str, limits: Any) -> Start:
        self.first = self.first or who
        return Start(limits[0])

    def goes_first_under(self, prefix: str, who: str) -> str:
        return "api/m/default" if who == self.first else ""

    def habits(self, prefix: str) -> tuple[int, int, int]:
        return (0, 0, 0)

    def begun(self, prefix: str, limit: str, who: str, *, kept_s: float) -> bool:
        return who == self.first


class Shelf:
    async def opened(self, ids: Any, tenant: str) -> Documents:
        return Documents("The handbook.", 20_000)


def test_what_is_parked_after_the_first_answer_has_begun_is_opened_too(monkeypatch: pytest.MonkeyPatch) -> None:
    parked, opened = {"early"}, set[str]()

    async def open_early(broker: Any, queue: str, *, about: str, causes: Any) -> int:
        opened.update(parked)
        parked.clear()
        return len(opened)

    monkeypatch.setattr(shared_contexts, "open_early", open_early)
    monkeypatch.setattr(shared_contexts, "OPEN_AFTER_S", (0.0, 0.1))
    persona = {"context_windows_tokens": [100_000]}
    settings = Settings(pools={"research": PoolSettings.model_validate({"persona": persona})})

    async def has_left(task: str) -> bool:
        return False

    async def run() -> None:
        contexts = SharedContexts(
            settings, cast(Any, Shelf()), room_of=lambda pool, window, answer: window, tokens_of=lambda task: 10,
            warmth=cast(Any, OneFirst()), limits_of=lambda pool: ["api/m/default"], models={},
            reads=cast(Any, SimpleNamespace(count=lambda *told: None)), broker=cast(Any, None),
            price=lambda *told: None, has_left=has_left,
        )  # fmt: skip
        task = BotTask.parse("Who signs?", context=[CONTEXT])
        await contexts.enter(task, "research", "first")
        contexts.begun(task.prefix, "api/m/default", "first")
        async with asyncio.timeout(5):
            while "early" not in opened:
                await asyncio.sleep(0.005)
            parked.add("late")
            while "late" not in opened:
                await asyncio.sleep(0.005)

    asyncio.run(run())
