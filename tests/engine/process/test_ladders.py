"""A pool with a fallback on real breakers, a real limiter and two simulators: down the ladder and back."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fleet import config
from fleet.economy.prices import PriceList
from fleet.engine.process.breaking import make_breakers
from fleet.engine.process.ladders import keys_among, make_ladders
from fleet.errors import ConfigurationError, KeyMissing, VaultAway
from fleet.lessons import Notebook
from fleet.limiter import Limiter
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.vault import Keyring, Secret
from fleet.waits import CAUSES, Cause, Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.persona import bot_of
from fleet.workers.gateway import Gateway
from fleet.workers.rungs import choose
from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.server import Simulator
from tests.workers.simulator.running import send

OWN, OTHER = "one/large/default", "two/small/default"


def settings_for(one: str, two: str) -> config.Settings:
    """Return a pool of two real-looking providers, the other one much cheaper."""
    return config.Settings.model_validate(
        {
            "providers": {
                "one": {"kind": "simulator", "base_url": f"{one}/v1"},
                "two": {"kind": "simulator", "base_url": f"{two}/v1"},
            },
            "prices": {
                "one/large": {"input_usd_per_mtok": 100, "output_usd_per_mtok": 100},
                "two/small": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1},
            },
            "pools": {
                "p": {"provider": "one", "model": "large", "bots": 4,
                      "fallback": [{"provider": "two", "model": "small"}]},
            },
        }
    )  # fmt: skip


@asynccontextmanager
async def worker(url: str, settings: config.Settings) -> AsyncIterator[tuple[Agent, Gateway, Store]]:
    """What a worker process has for its calls, put together as the wiring does it."""
    store = Store(url)
    told = cast(Any, SimpleNamespace(provider=lambda made: made))
    ladders = await make_ladders(settings, told, Notebook())
    routes = [rung.route for rung in ladders["p"] if rung.route is not None]
    breakers = make_breakers(
        settings, store, store, {route.limit: route.api_key for route in routes}, calm=lambda limit: None
    )
    limiter = Limiter(store, {route.limit: settings.limits_in_use[route.priced_as] for route in routes})
    gateway = Gateway(
        limiter, {"p": routes[0]}, PriceList(settings), breakers=breakers, ladders=ladders, clock=CLOCK.now_s
    )
    agent = Agent(gateway, settings)
    try:
        await breakers.load()
        yield agent, gateway, store
    finally:
        await agent.close()
        await breakers.close()
        for route in routes:
            await route.provider.close()
        await store.close()


async def fails(url: str, rate: float) -> None:
    """Let a simulator fail that share of its calls from now on."""
    reply = await asyncio.to_thread(send, url, f"/failures?error_rate={rate}", method="POST")
    assert reply.status == 200


def test_tasks_go_down_the_ladder_in_an_outage_and_back_within_seconds_of_its_end(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> tuple[list[Outcome], Outcome, float]:
        async with AsyncExitStack() as stack:
            urls = []
            for _ in range(2):
                simulator = Simulator(SimulatorOptions(rpm=10**9, tpm=10**12))
                urls.append(await simulator.start())
                stack.push_async_callback(simulator.stop)
            settings = settings_for(*urls)
            agent, *_ = await stack.enter_async_context(worker(redis_url, settings))
            bot = bot_of("p-001", settings)

            async def ask(name: str) -> Outcome:
                return await agent.run(BotTask(prompt=f"{name}?"), bot, task_id=name, before=NOTHING_BEFORE)

            assert (await ask("before")).rung == 0
            await fails(urls[0], 1.0)
            down = [await ask(f"down {n}") for n in range(30)]
            await fails(urls[0], 0.0)
            healed_at = time.monotonic()
            while (back := await ask(f"back {time.monotonic()}")).rung:
                assert time.monotonic() - healed_at < 30, "expected the pool's own API to serve again"
                await asyncio.sleep(0.05)
            return down, back, time.monotonic() - healed_at

    down, back, back_after_s = asyncio.run(work())
    served = [outcome for outcome in down if outcome.parking is None]
    assert [outcome.error for outcome in down] == [None] * 30
    assert len(served) >= 20 and {outcome.rung for outcome in served} == {1}
    last = served[-1]
    assert (last.provider, last.model, last.attempts) == ("two", "small", 1)
    assert last.cost_usd_picos == last.usage.total_tokens * 10**6
    assert (back.provider, back.status) == ("one", "ok")
    assert back_after_s < 10
    said = [record.getMessage() for record in caplog.records if "fallback_taken" in record.getMessage()]
    assert said == ["fallback_taken pool=p rung=1 api=two/small cause=outage"]


def test_any_rung_that_opens_opens_the_gate_of_a_pool_that_waits_for_its_whole_ladder(redis_url: str) -> None:
    settings = settings_for("http://127.0.0.1:9", "http://127.0.0.1:9")

    async def work() -> bytes | None:
        from fleet.engine.process.breaking import behind, lift

        store, name = Store(redis_url), keys.hold(keys.queue("p"))
        try:
            await store.command("SET", name, Wait("money", time.time() + 3600, OWN).to_json())
            queues = behind(OTHER, settings)
            assert queues == {OTHER: [keys.queue("p")], OWN: [keys.queue("p")]}
            await lift(store, queues[OWN], about=OWN, causes=CAUSES, parked_too=True)
            return cast("bytes | None", await store.command("GET", name))
        finally:
            await store.close()

    assert asyncio.run(work()) is None


def test_what_one_provider_lacks_shuts_its_own_rungs_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_KEY", "test-key")
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)  # the extra is not installed
    for name in [name for name in sys.modules if name.startswith(("pydantic_ai.", "fleet.workers.providers.models."))]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "open.txt").write_text("test-key")
    (tmp_path / "open.txt").chmod(0o644)
    lacks: dict[str, tuple[dict[str, Any], Cause, str]] = {
        "unset": ({"kind": "openai", "api_key_env": "NOBODY_SET_IT"}, "key", "variable NOBODY_SET_IT, got nothing"),
        "none": ({"kind": "anthropic"}, "key", 'api_key_env = "ANTHROPIC_API_KEY"'),
        "file": ({"kind": "openai", "api_key_file": "no/such"}, "key", "api_key_file: expected a readable file"),
        "mode": ({"kind": "openai", "api_key_file": str(tmp_path / "open.txt")}, "key", "chmod 600"),
        "url": ({"kind": "openai", "api_key_env": "A_KEY", "base_url": "http//[x"}, "configuration", "base_url: exp"),
        "sdk": ({"kind": "pydantic-ai", "api_key_env": "A_KEY"}, "configuration", "pip install"),
    }
    pool = {"model": "vendor:m", "fallback": [{"provider": "simulator", "model": "m"}]}
    settings = config.Settings.model_validate(
        {
            "providers": {
                "simulator": {"kind": "simulator", "base_url": "http://127.0.0.1:9"},
                **{name: table for name, (table, _, _) in lacks.items()},
            },
            "pools": {"fine": {}, **{name: {"provider": name, **pool} for name in lacks}},
        }
    )
    ladders = asyncio.run(make_ladders(settings, cast(Any, SimpleNamespace(provider=lambda made: made)), Notebook()))
    assert [rung.shut for rung in ladders.pop("fine")] == [None]
    for name, (own, below) in ladders.items():
        _, cause, words = lacks[name]
        assert own.shut is not None and below.shut is None
        assert (own.shut.cause, own.shut.about, own.shut.is_everyones) == (cause, f"{name}/vendor:m/default", True)
        assert words in f"{own.shut.told}: {own.shut.advice}", name
        assert choose((own, below), {0: own.shut}) is below
        assert own.route is not None
        with pytest.raises(KeyMissing if cause == "key" else ConfigurationError, match=re.escape(words)):
            asyncio.run(own.route.provider.complete(cast(Any, None), api_key=""))


@dataclass
class GivenKey:
    """A source that gives a key, or says why not."""

    given: str | KeyMissing
    where: str = "a test"

    def current(self) -> Secret:
        if isinstance(self.given, KeyMissing):
            raise self.given
        return Secret(self.given)

    def mark(self) -> Hashable:
        return None


@pytest.mark.parametrize(
    ("given", "is_shut"),
    [
        ({"default": "one"}, False),
        ({"default": KeyMissing("none")}, True),
        ({"default": VaultAway("away")}, False),
        ({"a": "one", "b": KeyMissing("none")}, False),
        ({"a": KeyMissing("none"), "b": VaultAway("away")}, False),
        ({"a": KeyMissing("none"), "b": KeyMissing("none")}, True),
    ],
)
def test_a_rung_is_shut_only_when_no_key_of_its_provider_can_be_had_here(
    given: dict[str, str | KeyMissing], is_shut: bool
) -> None:
    labels = [] if "default" in given else list(given)
    settings = config.Settings.model_validate(
        {
            "providers": {"acme": {"kind": "openai", "keys": labels}},
            "pools": {"p": {"provider": "acme", "model": "m"}},
        }
    )

    async def work() -> None:
        ring = Keyring(settings, source=lambda name, _, model, label: GivenKey(given[label]))
        ladders = await make_ladders(settings, cast(Any, SimpleNamespace(provider=lambda made: made)), Notebook(), ring)
        (rung,) = ladders["p"]
        assert rung.route is not None and (rung.shut is not None) == is_shut
        if not is_shut:
            assert rung.route.limits == tuple(f"acme/m/{label}" for label in given)
            values = ["" if isinstance(one, KeyMissing) else one for one in given.values()]
            assert [key.api_key for key in keys_among([rung.route])] == values
        await rung.route.provider.close()

    asyncio.run(work())
