"""One task of a bot function with SDKs at work, against the simulator or a server of given answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fleet.config import ProviderSettings
from fleet.entries import Entry
from fleet.lessons import Notebook
from fleet.models import BotTask
from fleet.outcome import Before, Outcome
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.gateway import Gateway, Route
from fleet.workers.providers import make_provider
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, a_bot, settings_of
from tests.workers.providers.raw_server import RawServer, raw_server
from tests.workers.test_entries import FakeBill

KEY = "sk-secret-0123456789"


@dataclass
class Work:
    """What a task is run with, and what was seen of it.

    Args:
        function: Dotted path.
        kind: Of the provider.
    """

    function: str
    kind: str = "openai"
    limiter: FakeLimiter = field(default_factory=FakeLimiter)
    breakers: FakeBreakers = field(default_factory=lambda: FakeBreakers(answers=True))
    bill: FakeBill = field(default_factory=FakeBill)
    lessons: Notebook = field(default_factory=Notebook)
    task: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)
    deadline_s: float = 20.0
    timeout_s: float = 60.0
    before: Before | None = None
    model: str = "simulated-1"
    share: float = 0.0

    async def at(self, url: str) -> Outcome:
        """Run the task with its provider there."""
        provider = make_provider(
            ProviderSettings.model_validate({"kind": self.kind, "base_url": url}), name="api", lessons=self.lessons
        )
        route = Route(provider, "api", self.model, LIMIT, KEY, self.timeout_s)
        gateway = Gateway(
            self.limiter, {"research": route}, _price, breakers=self.breakers, bill=self.bill, lessons=self.lessons
        )
        agent = Agent(gateway, settings_of(function=self.function, **self.pool), share=lambda: self.share)
        try:
            return await agent.run(
                BotTask.model_validate({"prompt": "2+2?", **self.task}), a_bot(), task_id="t1",
                deadline_s_left=self.deadline_s, before=self.before,
            )  # fmt: skip
        finally:
            await agent.close()
            await provider.close()

    def run_at(self, url: str) -> Outcome:
        """Run it on a loop of its own."""
        return asyncio.run(self.at(url))

    def run_with(self, *answers: bytes | None, meanwhile: Meanwhile | None = None) -> tuple[Outcome, RawServer]:
        """Run it against a server that gives these answers in turn."""

        async def run() -> tuple[Outcome, RawServer]:
            async with raw_server(*answers) as server:
                working = asyncio.create_task(self.at(server.url))
                if meanwhile is not None:
                    await meanwhile(server)
                return await working, server

        return asyncio.run(run())

    @property
    def entries(self) -> list[Entry]:
        """What was entered into the bill."""
        return self.bill.entered


#: What a test does while a task works.
Meanwhile = Callable[[RawServer], Awaitable[None]]


def _price(model: str, usage: Usage, tier: str | None) -> int:
    """A micro-dollar a token; half of it in the tier `flex`."""
    return usage.total_tokens * 10**6 // (2 if tier == "flex" else 1)
