"""Canaries: who gets one, how many, what they say of a bot, and files that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.config import HealthSettings, PoolSettings, Settings
from fleet.engine.answers.canaries import Canaries, load_canaries
from fleet.errors import ConfigurationError
from fleet.models import Bot
from fleet.roster import Health, bot_health_of
from fleet.roster.health import row_of
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.counted import counted
from tests.engine.answers.test_opinions import EMPTY, PERSONA, UNAVAILABLE, Scripted, outcome


@pytest.fixture
def canaries(tmp_path: Path) -> Path:
    path = tmp_path / "canaries.jsonl"
    path.write_text('{"prompt": "What is 2+2?", "expect": "\\\\b(4|four)\\\\b"}\n\n')
    return path


def suspect(url: str, path: Path | None, agent: Scripted, *, times: int = 1, every_s: float = 0.1) -> None:
    pools = {"p": PoolSettings(bots=3, canaries=path)}
    settings = Settings(pools=pools, health=HealthSettings(canary_every_s=every_s))

    async def run() -> None:
        store = Store(url)
        try:
            health = Health(settings.health)
            tried = Canaries(
                store, settings, agent, health, bot_of=lambda name: Bot(name=name, pool="p", persona=PERSONA)
            )
            for _ in range(times):
                tried.suspect("p", "p-002")
                await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        finally:
            await store.close()

    asyncio.run(run())


def said_of(url: str) -> tuple[float, int]:
    """Return the evidence of errors against p-002, and on how many tasks it was judged."""
    with connect(url) as client:
        health = bot_health_of(client.getrange(keys.health("p"), *row_of(2)))
    return health.evidence[0], health.tasks


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (lambda: Scripted(outcome("It is FOUR.")), (0.0, 1)),
        (lambda: Scripted(outcome("It is five.")), (pytest.approx(1.79, abs=0.01), 1)),
        (lambda: Scripted(EMPTY), (pytest.approx(1.79, abs=0.01), 1)),
        (lambda: Scripted(UNAVAILABLE), (0.0, 0)),
    ],
)
def test_a_canary_speaks_for_or_against_a_bot_unless_the_provider_failed(
    redis_url: str, canaries: Path, agent: Callable[[], Scripted], expected: tuple[float, int]
) -> None:
    suspect(redis_url, canaries, agent())
    assert said_of(redis_url) == expected
    with connect(redis_url) as client:
        assert counted(client, "canaries") == 1
        assert counted(client, "input_tokens") == 10
        assert client.ttl(keys.pool_totals("p")) == -1, "a counter must not fall"


def test_canaries_are_rationed_over_the_fleet(redis_url: str, canaries: Path) -> None:
    agent = Scripted(*[EMPTY] * 10)
    suspect(redis_url, canaries, agent, times=5, every_s=3600)
    suspect(redis_url, canaries, agent, times=5, every_s=3600)
    assert len(agent.bots) == 1


def test_a_pool_without_canaries_gives_none(redis_url: str) -> None:
    agent = Scripted()
    suspect(redis_url, None, agent)
    assert agent.bots == []


@pytest.mark.parametrize(
    "text", ["", "no JSON", '{"prompt": "x"}', '{"prompt": "", "expect": "x"}', '{"prompt": "SECRET", "expect": "("}']
)
def test_a_file_that_holds_no_canaries_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "canaries.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"canaries: expected|expect: expected") as refused:
        load_canaries(path)
    assert "SECRET" not in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"canaries: expected a readable file, got .*nowhere"):
        load_canaries(tmp_path / "nowhere.jsonl")


def test_a_pool_whose_file_is_missing_goes_without_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Scripted()
    suspect("redis://127.0.0.1:9/0", tmp_path / "nowhere.jsonl", agent)
    assert agent.bots == [] and "canaries_unusable pool=p: canaries: expected a readable file" in caplog.text
