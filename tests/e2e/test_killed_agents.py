"""kill -9 of a worker in the middle of agents' runs: every task gets its answer, and no bot is blamed for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.models import BotResult
from fleet.roster import health_rows_of, read_quarantined
from fleet.store import keys
from fleet.store.client import connect
from tests.every import every
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES, WorkerProcess
from tests.workers.simulator.running import running, total

WAIT_S = 120
BOTS, RUNS = 12, 24
AGENT = """
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

async def work(task, bot):
    model = OpenAIChatModel("agent", provider=OpenAIProvider(openai_client=bot.openai()))
    return (await agent.run(task.prompt, model=model)).output

agent = Agent(instructions="Look it up.", retries=3)

@agent.tool_plain
async def search(query: str) -> list[str]:
    return [query]

@agent.tool_plain
def weather(city: str) -> str:
    return f"rain in {city}"
"""
TOML = """
[worker]
slots = 12
[providers.api]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "AGENTS_KEY"
[pools.agents]
bots = 12
provider = "api"
model = "agent-4"
function = "killed_agents:work"
"""


@pytest.fixture
def client(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    (tmp_path / "killed_agents.py").write_text(AGENT)
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("AGENTS_KEY", "sk-agents")
    with connect(redis_url) as client:
        yield client


def test_runs_that_a_kill_cuts_are_run_again_and_nobody_is_blamed(client: redis.Redis, tmp_path: Path) -> None:
    with running(seed=4, latency_ms=60, error_rate=0.1) as url:
        (tmp_path / "fleet.toml").write_text(TOML.format(url=url))
        config.current.cache_clear()
        ids = list(submit_many([{"prompt": f"Tell me of bridge {n}"} for n in range(RUNS)]))
        workers = [WorkerProcess(tmp_path, app=QUICK_LEASES)]
        try:
            workers[0].wait_ready()
            wait_until(lambda: total(url)["served"] >= 2 * BOTS, WAIT_S, lambda: f"they run; log:\n{workers[0].log}")
            assert client.exists(*map(keys.result, ids)) == 0  # nobody is done: all of them are in the middle
            workers[0].kill()
            workers += [WorkerProcess(tmp_path, app=QUICK_LEASES) for _ in range(2)]
            wait_until(lambda: every(map(client.exists, map(keys.result, ids))), WAIT_S, "all have results")
        finally:
            for worker in workers:
                worker.kill()
    rows: list[Any] = client.mget([keys.result(task_id) for task_id in ids])
    results = [BotResult.model_validate(json.loads(row)["result"]) for row in rows]
    assert [(one.status, one.error) for one in results] == [("ok", None)] * RUNS
    assert every(bool(one.answer) for one in results)
    health: Any = client.get(keys.health("agents"))
    assert every(percent == 0 for percent in health_rows_of(health or b"", BOTS).percents[0])
    assert read_quarantined(client, ["agents"]) == {}
