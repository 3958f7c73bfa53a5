"""Whether others are answered, fleet-wide: what lets a deadline cut a call that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fleet.errors import DeadlineExceeded
from fleet.models import BotTask
from fleet.workers.agent import Agent
from fleet.workers.gateway import Gateway
from fleet.workers.rungs import Route
from tests.resilience.fleet_of_breakers import LIMIT, member
from tests.workers.fakes import LIMIT as CALLED
from tests.workers.fakes import FakeLimiter, FakeProvider, a_bot, settings_of


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(work())


def test_a_process_without_an_answer_of_its_own_hears_that_others_are_answered(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one, member(redis_url) as other:
            assert not one.breakers.is_answering(LIMIT, within_s=3600)  # it asks
            await other.tell("b")
            await one.store.command("PING")
            before = one.store.writes
            assert not [k for k in range(100) if one.breakers.is_answering(LIMIT, within_s=3600)]
            await asyncio.sleep(0)
            assert one.store.writes == before, "asked once a second, however many calls take too long"
            one.breakers._known[LIMIT].look_at = 0.0
            assert not one.breakers.is_answering(LIMIT, within_s=3600)
            await one.store.command("PING")
            assert one.breakers.is_answering(LIMIT, within_s=3600)
            assert not one.breakers.is_answering(LIMIT, within_s=0.0)  # not since a call that began just now
            assert other.breakers.is_answering(LIMIT, within_s=3600)  # as its own

    run(work)


def test_a_deadline_cuts_a_call_that_hangs_here_while_another_process_is_answered(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url, limit=CALLED) as one, member(redis_url, limit=CALLED) as other:
            route = Route(FakeProvider(["hang"]), "api", "model-1", CALLED, "key", 60.0)
            gateway = Gateway(
                FakeLimiter(), {"research": route}, lambda model, usage, tier: None, breakers=one.breakers
            )
            agent = Agent(gateway, settings_of())
            job = asyncio.ensure_future(agent.run(BotTask(prompt="x"), a_bot(), task_id="t", deadline_s_left=0.2))
            await asyncio.sleep(0.5)
            assert not job.done(), "its provider may be silent to all"
            await other.tell("b")
            outcome = await asyncio.wait_for(job, 20)
            assert isinstance(outcome.error, DeadlineExceeded)

    run(work)
