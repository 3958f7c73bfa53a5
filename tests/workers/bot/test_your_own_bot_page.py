"""The page docs/your-own-bot.md, carried out: its code, its fleet.toml, its test."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.config import ProviderSettings
from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.workers.agent import Agent
from fleet.workers.bot.persona import bot_of
from fleet.workers.gateway import Gateway, Route
from fleet.workers.ports import Provider
from fleet.workers.providers import make_provider
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider
from tests.workers.simulator.running import running, total

PAGE = (Path(__file__).parents[3] / "docs" / "your-own-bot.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
AGENT = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the page describes it: fleet.toml and my_bots.py."""
    (tmp_path / "fleet.toml").write_text(TOML[0])
    (tmp_path / "my_bots.py").write_text("\n\n".join(PYTHON[:4]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_bots", None)
    yield tmp_path
    sys.modules.pop("my_bots", None)


def work(provider: Provider, settings: config.Settings) -> Outcome:
    async def run() -> Outcome:
        route = Route(provider, "simulator", "simulated-1", LIMIT, "none", 60.0, simulated=True)
        agent = Agent(
            Gateway(FakeLimiter(), {"essays": route}, lambda model, usage, tier: None, breakers=FakeBreakers()),
            settings,
        )
        bot = bot_of("essays-001", settings)
        try:
            return await agent.run(BotTask(prompt="Why is the sky blue?"), bot, task_id="t1", deadline_s_left=10)
        finally:
            await agent.close()
            await provider.close()

    return asyncio.run(run())


def test_the_example_drafts_criticises_and_finishes(folder: Path):
    provider = FakeProvider(["a draft", "a critique", "the final answer"])
    outcome = work(provider, config.load())
    assert (outcome.answer, outcome.attempts, outcome.simulated) == ("the final answer", 3, True)
    assert "a draft" in provider.calls[1].messages[-1].content
    assert "a critique" in provider.calls[2].messages[-1].content
    assert [call.max_output_tokens for call in provider.calls] == [400, 200, 400]


def test_the_function_that_reads_while_the_answer_is_made_stops_at_a_sentence(folder: Path):
    (folder / "fleet.toml").write_text(TOML[0].replace("draft_critique_final", "first_sentence"))
    assert work(FakeProvider(["It scatters light. There is more to say."]), config.load()).answer == "It scatters light"


def test_the_plain_function_works_too(folder: Path):
    (folder / "fleet.toml").write_text(TOML[0].replace("draft_critique_final", "two_opinions"))
    provider = FakeProvider(["one", "two", "the better one"])
    assert work(provider, config.load()).answer == "the better one"
    assert [call.temperature for call in provider.calls[:2]] == [0.3, 0.9]


@pytest.mark.parametrize("function", ["with_openai", "with_anthropic"])
def test_the_functions_with_an_sdk_work_against_the_simulator(folder: Path, function: str):
    (folder / "fleet.toml").write_text(TOML[0].replace("draft_critique_final", function))
    with running() as url:
        provider = make_provider(ProviderSettings(kind="simulator", base_url=url))
        outcome = work(provider, config.load())
        assert (outcome.status, outcome.attempts, outcome.sent) == ("ok", 1, {"model": "simulated-1"})
        assert outcome.usage.output_tokens == total(url)["output_tokens"] > 0


@pytest.mark.parametrize("setting", ['agent = "triage:agent"', 'function = "triage:answer"'])
def test_the_agent_answers_in_its_form_named_by_the_pool_and_run_by_a_function(folder: Path, setting: str):
    pool = TOML[1].replace("[pools.triage]", "[pools.essays]").replace('agent = "triage:agent"', setting)
    (folder / "fleet.toml").write_text(pool)
    (folder / "triage.py").write_text("\n\n".join(AGENT))
    sys.modules.pop("triage", None)
    with running(agents=True) as url:
        outcome = work(make_provider(ProviderSettings(kind="simulator", base_url=url)), config.load())
    assert outcome.status == "ok"
    assert set(json.loads(outcome.answer or "")) == {"team", "is_urgent"}


def test_the_test_on_the_page_passes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(folder)
    names: dict[str, object] = {}
    exec(compile(PYTHON[4], "test_my_bots.py", "exec"), names)
    test = names["test_the_last_of_three_answers_is_returned"]
    assert callable(test)
    test()


def test_every_block_of_the_page_is_carried_out_here():
    assert (len(PYTHON), len(AGENT), len(TOML)) == (5, 2, 2)
