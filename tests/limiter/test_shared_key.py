"""The limiter and a provider that tells its rates: the gateway and the simulator over HTTP, others on the same key."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from fleet.config import LimitSettings, ProviderSettings
from fleet.conversation import Message
from fleet.errors import FleetError, RateLimited
from fleet.grants import Caller
from fleet.limiter import Limiter, LimitSnapshot
from fleet.limiter.call import WaitingCall
from fleet.limiter.first_answers import PROBES
from fleet.store.client import Store
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway, Route
from fleet.workers.meter import Meter
from fleet.workers.providers import make_provider
from tests.workers.fakes import FakeBreakers
from tests.workers.simulator.running import running

LIMIT = "simulator/m/key"
KEY = "shared-key"


@dataclass
class Run:
    """What came of one run."""

    answered: int = 0
    refused: int = 0
    others_answered: int = 0
    others_refused: int = 0
    snapshot: LimitSnapshot | None = None


async def play(redis_url: str, url: str, limit: LimitSettings, *, seconds: float, other_callers: int = 0) -> Run:
    """Let 60 callers of the fleet send as much as they may, and others 2.5 calls a second each, on the same key."""
    run = Run()
    loop = asyncio.get_running_loop()
    store = Store(redis_url)
    limiter = Limiter(store, {LIMIT: limit})
    provider = make_provider(ProviderSettings(kind="openai"), base_url=f"{url}/v1")
    route = Route(provider, "simulator", "m", LIMIT, KEY, timeout_s=10.0)
    gateway = Gateway(limiter, {"pool": route}, lambda model, usage, tier: None, breakers=FakeBreakers())
    end = loop.time() + seconds

    async def bot(name: str) -> None:
        for number in itertools.count():
            messages = (Message(role="user", content=f"{name} asks for the {number}th time"),)
            try:
                await gateway.chat(
                    "pool",
                    messages,
                    temperature=1,
                    max_output_tokens=20,
                    deadline=Deadline(end),
                    meter=Meter(),
                    caller=Caller(name),
                    patience_s=max(0.0, end - loop.time()),
                )
                run.answered += 1
            except RateLimited:
                run.refused += 1
            except FleetError:
                return  # its turn would come after the end

    async def others() -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}
        async with aiohttp.ClientSession(headers=headers) as session:
            while loop.time() < end:
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    await response.read()
                    run.others_answered += response.status == 200
                    run.others_refused += response.status == 429
                await asyncio.sleep(0.2)

    await asyncio.gather(*[bot(f"bot-{number}") for number in range(60)], *[others() for _ in range(other_callers)])
    run.snapshot = await limiter.snapshot(LIMIT)
    await provider.close()
    await store.close()
    return run


def test_with_headers_a_fleet_makes_room_for_others_on_its_key(redis_url: str) -> None:
    with running(rpm=2400, latency_ms=200, burst=0.02) as url:
        limit = LimitSettings(rpm=2400, burst=0.005, counting="bucket")
        run = asyncio.run(play(redis_url, url, limit, seconds=5, other_callers=6))
    assert run.others_answered >= 50
    assert run.answered >= 60  # 40 a second, less theirs
    assert run.refused <= 2  # 15 without headers
    assert run.others_refused <= 0.1 * run.others_answered  # without headers about half of them


def test_a_limit_of_which_nothing_is_configured_is_learnt_from_the_first_answers(redis_url: str) -> None:
    with running(rpm=2400, tpm=10**9) as url:
        run = asyncio.run(play(redis_url, url, LimitSettings(), seconds=3))
    assert run.refused == 0
    assert run.answered >= 0.7 * 40 * 3
    assert run.snapshot is not None
    assert (run.snapshot.rpm, run.snapshot.is_learnt) == (2400, True)


def test_a_limit_that_is_configured_too_high_is_lowered_to_what_the_provider_allows(redis_url: str) -> None:
    with running(rpm=2400) as url:
        run = asyncio.run(play(redis_url, url, LimitSettings(rpm=12_000, counting="bucket"), seconds=3))
    assert run.refused <= 4
    assert run.snapshot is not None
    assert (run.snapshot.rpm, dict(run.snapshot.lowered)) == (2400, {"rpm": 12_000})


def test_a_provider_that_takes_few_calls_at_once_is_kept_busy_and_hardly_asked_in_vain(redis_url: str) -> None:
    with running(in_flight=5, latency_ms=200) as url:
        run = asyncio.run(play(redis_url, url, LimitSettings(rpm=60_000, counting="bucket"), seconds=4))
    assert run.answered >= 0.3 * 4 * 5 / 0.2
    assert run.refused <= 60 + run.answered  # the first ones came together; without learning it is thousands
    assert run.snapshot is not None
    assert run.snapshot.in_flight_is_learnt and run.snapshot.most_in_flight == 5


def test_a_day_that_is_used_up_is_no_minute_and_stops_the_calls_when_little_is_left(redis_url: str) -> None:
    with running(rpd=100, latency_ms=20) as url:
        run = asyncio.run(play(redis_url, url, LimitSettings(rpm=600, burst=0.02), seconds=4))
    assert run.snapshot is not None
    assert dict(run.snapshot.lowered) == {} and run.snapshot.rpm == 600
    assert [(long.label, long.limit) for long in run.snapshot.long] == [("requests a day", 100)]
    assert 30 <= run.answered <= 100 and run.refused == 0


def test_a_call_that_waited_for_the_first_answers_asks_with_the_time_that_it_then_has_left(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    question = WaitingCall.question

    def noted(call: WaitingCall, now: float, random: float) -> list[Any]:
        asked.append(now)
        return question(call, now, random)

    monkeypatch.setattr(WaitingCall, "question", noted)

    async def main() -> None:
        store, loop = Store(redis_url), asyncio.get_running_loop()
        limiter = Limiter(store, {"provider/model/key": LimitSettings()})
        try:
            first = [await limiter.acquire("provider/model/key", tokens=10, timeout_s=60) for _ in range(PROBES)]
            waiting = asyncio.ensure_future(limiter.acquire("provider/model/key", tokens=10, timeout_s=60))
            await asyncio.sleep(0)  # it stands behind those that go before anything is known
            assert not waiting.done() and len(asked) == PROBES
            answered_at = loop.time()
            limiter.settle(first[0], used_tokens=10)
            await waiting
            assert asked[PROBES] >= answered_at
        finally:
            await store.close()

    asyncio.run(main())
