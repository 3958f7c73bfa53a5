"""APIs that take calls and do not answer them, in all the ways there are: over HTTP, with breakers on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from benchmarks.storm import Provider
from benchmarks.storm import provider as storm_provider
from fleet.config import ProviderSettings
from fleet.conversation import Message
from fleet.errors import ProviderUnavailable
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway
from fleet.workers.meter import Meter
from fleet.workers.providers import make_provider
from fleet.workers.rungs import Route
from fleet.workers.silence.answer_times import KEPT
from tests.every import every
from tests.resilience.fleet_of_breakers import LIMIT, member
from tests.workers.fakes import FakeLimiter

WAIT_S = 30.0
#: Seconds between two calls.
EVERY_S = 0.02


class Caller:
    """One process's calls to an API that can be told to fail."""

    def __init__(self, gateway: Gateway, api: Provider) -> None:
        self._gateway, self._api = gateway, api
        self.calls: list[asyncio.Task[Any]] = []

    def call(self) -> None:
        work = self._gateway.chat(
            "storm", (Message(role="user", content="hello"),), temperature=1, max_output_tokens=8,
            deadline=Deadline(asyncio.get_running_loop().time() + 3600), meter=Meter(), patience_s=WAIT_S,
        )  # fmt: skip
        self.calls.append(asyncio.ensure_future(work))

    async def storm(self, kind: str, seconds: float) -> None:
        await asyncio.to_thread(self._api.storm, kind, seconds)

    @property
    def under_way(self) -> int:
        return len(self._gateway.roads.under_way._apis[LIMIT].sent)

    @property
    def doubts(self) -> bool:
        return self._gateway.roads.restraint.doubts(LIMIT)


def storms(redis_url: str, work: Callable[[Caller], Coroutine[Any, Any, None]]) -> None:
    """Run a test with an API that has answered enough to be known."""

    async def run() -> None:
        provider = make_provider(ProviderSettings(kind="openai"), base_url=f"{api.url}/v1")
        async with member(redis_url) as one:
            route = Route(provider, "api", "model", LIMIT, "key", 120.0)
            gateway = Gateway(FakeLimiter(), {"storm": route}, lambda *of: None, breakers=one.breakers)
            caller = Caller(gateway, api)
            for _ in range(KEPT // 20):
                for _ in range(20):
                    caller.call()
                await asyncio.gather(*caller.calls)
            caller.calls.clear()
            try:
                await work(caller)
            finally:
                for call in caller.calls:
                    call.cancel()
                await asyncio.gather(*caller.calls, return_exceptions=True)
                await provider.close()

    with storm_provider(rpm=1_000_000, latency_ms=40, burst=1.0) as api:
        asyncio.run(run())


@pytest.mark.parametrize("kind", ["accept", "hang", "half"])
def test_few_calls_are_sent_into_a_silence_of_any_kind_and_those_that_were_held_go_on_after_it(
    redis_url: str, kind: str
) -> None:
    async def work(caller: Caller) -> None:
        await caller.storm(kind, 2.5)
        for _ in range(100):
            caller.call()
            await asyncio.sleep(EVERY_S)
        assert caller.doubts
        hung = caller.under_way
        assert hung <= 50, "half a second, and one try now and then"
        async with asyncio.timeout(WAIT_S):
            while sum(call.done() for call in caller.calls) < 100 - hung - 1:
                await asyncio.sleep(EVERY_S)
        ended = [call.exception() for call in caller.calls if call.done()]
        assert ended.count(None) >= 50, "some of what is sent as the socket is taken over is refused"
        assert every(error is None or isinstance(error, ProviderUnavailable) for error in ended)

    storms(redis_url, work)


def test_an_api_that_answers_one_call_of_ten_is_not_held_for_silent(redis_url: str) -> None:
    async def work(caller: Caller) -> None:
        await caller.storm("tenth", 3600)
        for _ in range(100):
            caller.call()
            await asyncio.sleep(EVERY_S)
        async with asyncio.timeout(WAIT_S):
            while caller.under_way + sum(call.done() for call in caller.calls) < 100:
                await asyncio.sleep(EVERY_S)
        assert sum(call.done() and call.exception() is None for call in caller.calls) >= 8

    storms(redis_url, work)
