"""The agents of `examples/agents/` as their frameworks run them: providers that fail, refusals, ends, streams.

LlamaIndex wants an older `openai`: `make llamaindex` runs these tests for it, in an environment of its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.errors import BadRequest, OutOfTries
from fleet.outcome import Outcome
from tests.house import ROOT
from tests.workers.fakes import FakeBreakers
from tests.workers.frameworks.at_work import Work
from tests.workers.frameworks.test_failures import OTHERS_DID_WELL
from tests.workers.providers.raw_server import response
from tests.workers.simulator.running import running, total

AGENTS = ROOT / "examples" / "agents"
HERE = "tests.workers.frameworks.test_frameworks"
#: Bot function -> the package that it needs.
BOTS = {
    "researcher:research": "openai",
    "agents_sdk_bot:answer": "agents",
    "langchain_bot:answer": "langchain_openai",
    "pydantic_ai_bot:answer": "pydantic_ai",
    "llamaindex_bot:answer": "llama_index.llms.openai",
}
#: Functions below that read streams -> the package.
STREAMING = {
    f"{HERE}:agents_sdk_streams": "agents",
    f"{HERE}:agents_sdk_responds": "agents",
    f"{HERE}:langchain_streams": "langchain_openai",
    f"{HERE}:pydantic_ai_streams": "pydantic_ai",
    f"{HERE}:llamaindex_streams": "llama_index.llms.openai",
}
REFUSED = response({"error": {"message": "Invalid value: 'q'.", "type": "invalid_request_error"}}, status=400)
DOWN = response({"error": {"message": "down"}}, status=503)


def installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def those(bots: dict[str, str]) -> list[Any]:
    """Return the bots as parameters; what is not installed is skipped, and says how to run it."""
    hint = "needs {}: `make llamaindex` has LlamaIndex, the extra `frameworks` the others"
    return [
        pytest.param(bot, id=bot, marks=pytest.mark.skipif(not installed(package), reason=hint.format(package)))
        for bot, package in bots.items()
    ]


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(AGENTS))
    yield
    for name in ("library", *(bot.partition(":")[0] for bot in BOTS)):
        sys.modules.pop(name, None)


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that somebody in this process wanted to reach, if only to be refused by conftest.py."""
    hosts: list[str] = []
    really = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        hosts.append(str(host))
        return really(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return hosts


def work(bot: str, **options: Any) -> Work:
    return Work(bot, kind="simulator", model="agent-2", deadline_s=90.0, **options)


async def agents_sdk_streams(task: Any, bot: Any) -> str:
    from agents import Runner
    from agents_sdk_bot import OpenAIProvider, RunConfig, agent

    by_this_bot = OpenAIProvider(openai_client=bot.openai(), use_responses=False)
    run = Runner.run_streamed(agent, task.prompt, run_config=RunConfig(model_provider=by_this_bot))
    async for _ in run.stream_events():
        pass
    return str(run.final_output)


async def agents_sdk_responds(task: Any, bot: Any) -> str:
    from agents import Runner
    from agents_sdk_bot import OpenAIProvider, RunConfig, agent

    run = Runner.run_streamed(
        agent, task.prompt, run_config=RunConfig(model_provider=OpenAIProvider(openai_client=bot.openai()))
    )
    async for _ in run.stream_events():
        pass
    return str(run.final_output)


async def langchain_streams(task: Any, bot: Any) -> str:
    import library
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="the-pools", api_key="the pool's", http_async_client=bot.http_client("httpx2"))  # type: ignore[arg-type]
    agent = create_agent(model, tools=[library.search, library.read])
    said = ""
    async for piece, about in agent.astream(
        {"messages": [{"role": "user", "content": task.prompt}]}, stream_mode="messages"
    ):
        said += piece.text if about["langgraph_node"] == "model" else ""  # type: ignore[index, union-attr]
    return said


async def pydantic_ai_streams(task: Any, bot: Any) -> str:
    from pydantic_ai_bot import agent

    async def reads(_: Any, events: Any) -> None:
        async for _ in events:
            pass

    return str((await agent.run(task.prompt, model=bot.model(), event_stream_handler=reads)).output)


async def llamaindex_streams(task: Any, bot: Any) -> str:
    from llama_index.core.agent.workflow import FunctionAgent  # type: ignore[import-not-found, unused-ignore]
    from llamaindex_bot import OpenAI, library

    model = OpenAI(
        model="gpt-4o", api_key="the pool's", async_http_client=bot.http_client("httpx"), max_retries=0,
        api_base="http://fleet.invalid/v1",
    )  # fmt: skip
    run = FunctionAgent(tools=[library.search, library.read], llm=model).run(task.prompt)
    async for _ in run.stream_events():
        pass
    return str(await run)


@pytest.mark.parametrize("bot", [*those(BOTS), *those(STREAMING)])
def test_a_provider_that_fails_is_waited_out_inside_and_blames_no_bot(bot: str, looked_up: list[str]) -> None:
    async def runs(url: str) -> list[Outcome]:
        return list(await asyncio.gather(*(work(bot, task={"prompt": f"What of {n}?"}).at(url) for n in range(6))))

    with running(error_rate=0.35, seed=3) as url:
        outcomes, counted = asyncio.run(runs(url)), total(url)
    assert [one.error for one in outcomes] == [None] * 6
    assert counted["calls"] > counted["served"] == 6 * 3
    assert sum(one.usage.total_tokens for one in outcomes) == counted["input_tokens"] + counted["output_tokens"]
    assert set(looked_up) <= {"127.0.0.1"}


@pytest.mark.parametrize("bot", [*those(BOTS), *those(STREAMING)])
def test_a_refused_request_fails_as_one_through_the_frameworks_own_errors(bot: str) -> None:
    outcome, _ = Work(bot).run_with(REFUSED)
    assert type(outcome.error) is BadRequest, outcome.error
    assert outcome.error.blame == "prompt"


@pytest.mark.parametrize("bot", those(BOTS))
def test_what_ends_a_task_comes_through_the_frameworks_own_errors(bot: str) -> None:
    others_did_well = FakeBreakers(rulings=[OTHERS_DID_WELL], answers=True)
    outcome, _ = Work(bot, breakers=others_did_well, pool={"max_attempts": 2}).run_with(DOWN)
    assert type(outcome.error) is OutOfTries, outcome.error
    assert outcome.attempts == 2 and outcome.fault is None
