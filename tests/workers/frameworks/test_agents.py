"""A pool's pydantic-ai agent as a worker runs it, against the simulator over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastmcp.client.transports import StdioTransport
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import DeferredToolRequests, ModelRetry, RunContext
from pydantic_ai.mcp import MCPToolset

from fleet.config import ProviderSettings
from fleet.errors import BadAnswer, BadRequest, BotFunctionFailed, DeadlineExceeded, OutOfTries, TooExpensive
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.workers.agent import Agent
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.frameworks.raw import RawAnswer, RawRequest
from fleet.workers.gateway import Gateway, Route
from fleet.workers.providers import make_provider
from fleet.workers.rungs import Rung
from tests.house import ROOT
from tests.workers.fakes import OTHERS_DID_WELL, FakeBreakers, FakeLimiter, a_bot, settings_of
from tests.workers.simulator.running import running, send

HERE = "tests.workers.frameworks.test_agents"
#: What tools and functions below leave behind for their tests.
seen: dict[str, Any] = {}


class Triage(BaseModel):
    team: str
    is_urgent: bool


@dataclass
class Desk:
    """Dependencies of an agent: who it works for."""

    bot: str
    prompt: str


plain: PydanticAgent[object, str] = PydanticAgent(instructions="Be brief.", model_settings={"temperature": 0.125})
triage = PydanticAgent(output_type=Triage)
with_desk = PydanticAgent(deps_type=Desk)
crashing = PydanticAgent()
giving_back = PydanticAgent()
waiting_for_somebody = PydanticAgent(output_type=[str, DeferredToolRequests])
never_content = PydanticAgent()
ill_used = PydanticAgent(model_settings={"tool_choice": "required"})
slow = PydanticAgent()
breaks_the_first = PydanticAgent()
not_an_agent = "text"


@triage.tool_plain
def past_tickets(word: str) -> str:
    """Look for past tickets."""
    seen.setdefault("words", []).append(word)
    return "none"


@with_desk.tool
def who_asks(context: RunContext[Desk]) -> str:
    """Say who asks."""
    seen["desk"] = context.deps
    return context.deps.bot


@crashing.tool_plain
def crash(word: str) -> str:
    """Fail."""
    raise ValueError(word)


@giving_back.tool_plain
def refuse(word: str) -> str:
    """Give it back."""
    raise ModelRetry("another word")


@waiting_for_somebody.tool_plain(requires_approval=True)
def delete(word: str) -> str:
    """Delete it."""
    return word


@slow.tool_plain
async def sleep(word: str) -> str:
    """Sleep for long."""
    await asyncio.sleep(30)
    return word


@breaks_the_first.tool_plain
def break_it(word: str) -> str:
    """Take the provider away from under the run."""
    seen["break"]()
    return word


def desk(task: BotTask, bot: LoopBotContext) -> Desk:
    return Desk(bot.name, task.prompt or "")


@never_content.output_validator
def never(output: str) -> str:
    raise ModelRetry("not yet")


async def streams(task: BotTask, bot: LoopBotContext) -> str:
    async with plain.run_stream(task.prompt, model=bot.model()) as result:
        seen["pieces"] = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    return "".join(seen["pieces"])


def in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    return triage.run_sync(task.prompt, model=bot.model()).output.model_dump_json()


class Room:
    """What one test works with: a worker's agent, and all that it was granted."""

    def __init__(
        self, url: str, *, below: str = "", model: str = "agent-2", kind: str = "openai", share: float = 0.0,
        **pool: Any,
    ) -> None:  # fmt: skip
        self.limiter, self.breakers = FakeLimiter(), FakeBreakers(answers=True)
        own = self._route(url, "api", model, kind)
        ladder = {"research": (Rung(0, own), Rung(1, self._route(below, "other", model, "anthropic"),
                                                  when=frozenset({"outage"})))} if below else None  # fmt: skip
        self.gateway = Gateway(
            self.limiter, {"research": own}, lambda model, usage, tier: usage.total_tokens * 10**6,
            breakers=self.breakers, ladders=ladder,
        )  # fmt: skip
        self.agent = Agent(self.gateway, settings_of(**pool), share=lambda: share)
        self.bodies: list[dict[str, Any]] = []
        for rung in self.gateway.ladders.of("research"):
            assert rung.route is not None
            self._record(rung.route.provider)

    def _record(self, provider: Any) -> None:
        sends = provider.exchange

        async def exchange(request: RawRequest, **options: Any) -> RawAnswer:
            self.bodies.append(json.loads(request.body))
            answer: RawAnswer = await sends(request, **options)
            return answer

        provider.exchange = exchange

    @staticmethod
    def _route(url: str, name: str, model: str, kind: str) -> Route:
        settings = ProviderSettings.model_validate({"kind": kind})
        provider = make_provider(settings, base_url=url if kind == "anthropic" else f"{url}/v1", name=name)
        return Route(provider, name, model, f"{name}/{model}/default", "k", 20.0)

    async def run(self, task: BotTask, **options: Any) -> Outcome:
        try:
            return await self.agent.run(task, a_bot(), task_id="t-1", **options)
        finally:
            await self.agent.close()
            for rung in self.gateway.ladders.of("research"):
                if rung.route is not None:
                    await rung.route.provider.close()


def ran(room: Room, task: BotTask | None = None, **options: Any) -> Outcome:
    return asyncio.run(room.run(task or BotTask(prompt="My printer is on fire, please help me now."), **options))


@pytest.fixture
def url() -> Iterator[str]:
    seen.clear()
    with running() as url:
        yield url


def test_its_output_is_the_answer_and_all_its_turns_are_accounted(url: str) -> None:
    room = Room(url, agent=f"{HERE}:triage")
    outcome = ran(room)
    assert outcome.error is None
    assert set(json.loads(outcome.answer or "")) == {"team", "is_urgent"}
    assert outcome.attempts == len(room.limiter.granted) == 3
    assert seen["words"]
    assert outcome.usage.total_tokens > 0
    assert outcome.cost_usd_picos == outcome.usage.total_tokens * 10**6
    assert room.limiter.is_settled_once


def test_persona_pool_and_agent_are_laid_over_each_other(url: str) -> None:
    room = Room(url, agent=f"{HERE}:plain", effort="low", seed=7)
    outcome = ran(room)
    bot, [body] = a_bot(), room.bodies
    assert [turn["role"] for turn in body["messages"]] == ["system", "system", "user"]
    assert [turn["content"] for turn in body["messages"][:2]] == [bot.persona.system_prompt, "Be brief."]
    assert (body["model"], body["temperature"], body["seed"]) == ("agent-2", 0.125, 7)
    assert outcome.sent == {"temperature": 0.125}


def test_what_the_task_asks_for_comes_before_the_agents_own(url: str) -> None:
    room = Room(url, agent=f"{HERE}:plain")
    task = BotTask.model_validate({
        "messages": [
            {"role": "system", "content": "The customer is from Bern."},
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "What is 2+2?"},
        ],
        "top_p": 0.5, "max_output_tokens": 77, "tools": [{"name": "mine"}],
    })  # fmt: skip
    outcome = ran(room, task)
    body = room.bodies[0]
    assert [turn["role"] for turn in body["messages"]] == ["system", "system", "system", "user", "assistant", "user"]
    said = [turn["content"] for turn in body["messages"]]
    assert said[1:4] == ["Be brief.", "The customer is from Bern.", "Hello."]
    assert (body["top_p"], body["max_completion_tokens"]) == (0.5, 77)
    assert "tools" not in body
    assert outcome.sent == {"temperature": 0.125, "tools": None}
    assert "4" in (outcome.answer or "")


def test_its_dependencies_are_made_for_each_task(url: str) -> None:
    outcome = ran(Room(url, agent=f"{HERE}:with_desk", deps=f"{HERE}:desk"), BotTask(prompt="who_asks?"))
    assert outcome.status == "ok"
    assert seen["desk"] == Desk(a_bot().name, "who_asks?")


@pytest.mark.parametrize(
    ("name", "error", "fault", "told"),
    [
        ("crashing", BotFunctionFailed, Fault.CRASHED, "got ValueError raised at test_agents.py"),
        ("giving_back", BadAnswer, Fault.REJECTED, "its tool 'refuse'"),
        ("never_content", BadAnswer, Fault.SCHEMA, "an output of the agent's type"),
        ("waiting_for_somebody", BotFunctionFailed, Fault.CRASHED, "run or approve"),
        ("ill_used", BotFunctionFailed, Fault.CRASHED, "tool_choice"),
    ],
)
def test_what_its_run_raises_is_told_in_fleets_words(
    url: str, name: str, error: type[Exception], fault: Fault, told: str
) -> None:
    outcome = ran(Room(url, agent=f"{HERE}:{name}", model="agent-3"), BotTask(prompt="a very private prompt"))
    assert type(outcome.error) is error
    assert outcome.fault is fault
    assert told in str(outcome.error)
    assert "private" not in str(outcome.error)


def test_a_tool_that_fails_is_named_and_its_arguments_are_not(url: str) -> None:
    outcome = ran(Room(url, agent=f"{HERE}:crashing"))
    assert re.fullmatch(
        rf"{HERE}:crashing: expected an answer, got ValueError raised at test_agents.py:\d+, in its tool 'crash'",
        str(outcome.error),
    )


def test_the_tasks_schema_holds_for_its_output_too(url: str) -> None:
    outcome = ran(Room(url, agent=f"{HERE}:triage"), BotTask(prompt="x", answer_schema={"required": ["cost"]}))
    assert isinstance(outcome.error, BadAnswer)
    assert ran(Room(url, agent=f"{HERE}:triage"), BotTask(prompt="x", answer_schema=Triage)).status == "ok"


@pytest.mark.parametrize(("agent", "is_told"), [("plain", True), ("triage", False)])
def test_an_agent_that_answers_in_text_is_told_the_tasks_schema(url: str, agent: str, is_told: bool) -> None:
    room = Room(url, agent=f"{HERE}:{agent}")
    task = BotTask(messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "x"}],
                   answer_schema={"type": "object", "title": "a form of ours"})  # fmt: skip
    ran(room, task)
    said = json.dumps(room.bodies[0]["messages"])
    assert ("a form of ours" in said) == is_told and "Be kind." in said


def test_a_provider_that_fails_and_limits_fails_no_agent(url: str) -> None:
    send(url, "/failures?error_rate=0.4", method="POST")
    outcomes = [ran(Room(url, agent=f"{HERE}:triage"), BotTask(prompt=f"Case {n}")) for n in range(6)]
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert sum(outcome.attempts for outcome in outcomes) > 18
    assert sum(sum(outcome.provider_errors.values()) for outcome in outcomes) == sum(
        outcome.attempts - 3 for outcome in outcomes
    )


def test_one_that_fails_while_others_do_well_ends_by_its_tries_and_blames_no_bot(url: str) -> None:
    send(url, "/failures?error_rate=1", method="POST")
    room = Room(url, agent=f"{HERE}:plain", max_attempts=2)
    room.breakers.rulings.append(OTHERS_DID_WELL)
    outcome = ran(room)
    assert isinstance(outcome.error, OutOfTries)
    assert outcome.error.blame == "provider"
    assert (outcome.attempts, outcome.fault) == (2, None)


def test_a_refusal_of_the_request_is_the_prompts(url: str) -> None:
    outcome = ran(Room(url, agent=f"{HERE}:plain", model="odd-moderated"))
    assert isinstance(outcome.error, BadRequest)
    assert (outcome.attempts, outcome.fault) == (1, None)


def test_what_a_model_refuses_of_the_personas_is_left_out_and_told(url: str) -> None:
    outcome = ran(Room(url, agent=f"{HERE}:giving_back", model="odd-refused-temperature"))
    assert (outcome.status, outcome.attempts, outcome.sent) == ("ok", 2, {"temperature": None})


def test_its_time_at_work_and_its_money_end_it(url: str) -> None:
    late = ran(Room(url, agent=f"{HERE}:slow"), BotTask(prompt="x", deadline_s=1.0))
    assert isinstance(late.error, DeadlineExceeded)
    dear = ran(Room(url, agent=f"{HERE}:triage"), BotTask(prompt="x", max_cost_usd=0.0015))
    assert isinstance(dear.error, TooExpensive)
    assert dear.attempts in (1, 2)
    assert dear.fault is None


def test_a_ladder_goes_down_to_another_wire_in_the_middle_of_a_run(url: str) -> None:
    with running() as other:
        seen["break"] = lambda: send(url, "/failures?error_rate=1", method="POST")
        room = Room(url, below=other, agent=f"{HERE}:breaks_the_first", model="agent-3")
        outcome = ran(room, BotTask(prompt="x"), before=NOTHING_BEFORE)
    assert outcome.error is None
    assert (outcome.provider, outcome.rung) == ("other", 1)
    assert {body["messages"][0]["role"] for body in room.bodies} == {"system", "user"}  # both wires were spoken
    assert any(body.get("system") for body in room.bodies)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_stream_is_read_piece_by_piece(url: str, kind: str) -> None:
    room = Room(url, function=f"{HERE}:streams", kind=kind)
    outcome = ran(room)
    assert outcome.error is None
    assert len(seen["pieces"]) > 1
    assert outcome.usage.output_tokens > 0
    assert room.limiter.is_settled_once


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_plain_function_runs_an_agent_in_its_thread(url: str, kind: str) -> None:
    outcome = ran(Room(url, function=f"{HERE}:in_a_thread", kind=kind))
    assert outcome.error is None
    assert outcome.attempts == 3
    assert set(json.loads(outcome.answer or "")) == {"team", "is_urgent"}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"agent": "nowhere"}, "agent: expected `package.module:agent`, got 'nowhere'"),
        ({"agent": "no_such_module:agent"}, "leave the model out of Agent(...)"),
        ({"agent": f"{HERE}:nothing"}, "got no such name"),
        ({"agent": f"{HERE}:not_an_agent"}, "expected a pydantic_ai.Agent, got str"),
        ({"agent": f"{HERE}:with_desk"}, "its deps_type is Desk, got none"),
        ({"agent": f"{HERE}:with_desk", "deps": f"{HERE}:past_tickets"}, "expected to be called with (task, bot)"),
    ],
)
def test_one_that_cannot_be_used_shuts_its_pool_and_says_why(setting: dict[str, str], told: str) -> None:
    room = Room("http://127.0.0.1:1", **setting)
    assert told in room.agent.shut["research"].told
    assert room.agent.shut["research"].cause == "configuration"


def test_a_pool_has_one_bot_of_its_users() -> None:
    with pytest.raises(ValueError, match="expected `function` or `agent`, got both"):
        settings_of(function="a:b", agent="a:c")
    with pytest.raises(ValueError, match="deps: expected an `agent`"):
        settings_of(deps="a:b")


def test_without_the_extra_its_pool_is_shut_and_told_what_to_install() -> None:
    code = f"""
        import sys
        sys.modules["pydantic_ai"] = None
        from fleet.errors import ConfigurationError
        from fleet.workers.frameworks.own_bots import load_agent
        try:
            load_agent("{HERE}:triage", None)
        except ConfigurationError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "pip install 'celery-fleet[agents]'" in done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """An MCP server over stdio, and an agent with it."""
    path = tmp_path / "tickets.py"
    path.write_text(
        textwrap.dedent("""
        from mcp.server import MCPServer

        tickets = MCPServer("tickets")

        @tickets.tool()
        def close_ticket(number: int) -> str:
            return f"ticket {number} is closed"

        tickets.run()
    """)
    )
    toolset: MCPToolset[object] = MCPToolset(StdioTransport(sys.executable, [str(path)]), id="tickets")
    globals()["with_server"] = PydanticAgent(toolsets=[toolset])
    yield path
    del globals()["with_server"]


def test_the_tools_of_an_mcp_server_are_called_and_it_is_started_once_for_runs_at_the_same_time(
    url: str, server: Path
) -> None:
    room = Room(url, agent=f"{HERE}:with_server", model="agent-1")

    async def both() -> list[Outcome]:
        tasks = [BotTask(prompt="Close 7."), BotTask(prompt="Close 8.")]
        runs = [room.agent.run(task, a_bot(), task_id=str(number)) for number, task in enumerate(tasks)]
        outcomes = await asyncio.gather(*runs)
        children = psutil.Process().children(recursive=True)
        assert sum(str(server) in child.cmdline() for child in children) == 1
        await room.run(BotTask(prompt="Close 9."))
        return outcomes

    outcomes = asyncio.run(both())
    assert [outcome.error for outcome in outcomes] == [None, None]
    results = [turn["content"] for body in room.bodies for turn in body["messages"] if turn["role"] == "tool"]
    assert results
    assert {bool(re.fullmatch(r"ticket -?\d+ is closed", str(result))) for result in results} == {True}


def test_a_server_that_does_not_start_makes_its_task_wait_and_blames_no_bot(url: str, server: Path) -> None:
    server.write_text("raise SystemExit(1)")
    outcome = ran(Room(url, agent=f"{HERE}:with_server", share=0.9), before=NOTHING_BEFORE)
    assert outcome.parking is not None
    assert outcome.parking.wait.cause == "configuration"
    assert "expected MCPToolset 'tickets' to start" in outcome.parking.wait.told
    assert outcome.fault is None
