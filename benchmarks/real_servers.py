"""python -m benchmarks.real_servers: Fleet's adapters against a real server, and what they saw.

Not part of CI: it needs a server. One that runs is named by --url; --gguf starts llama.cpp's `llama-server` (of PATH)
with a model file; --litellm starts LiteLLM's proxy before the simulator. Without any of these the simulator answers,
which is how a test keeps this program working.

Each row is a call, or a few: what was asked, how it ended, and the tokens of an answer. "calls" counts HTTP requests,
so a model that refuses a parameter shows by one more. The rows of JSON compare the two ways to an answer that fits a
schema: told in the prompt, and told by the wire.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.bench import print_table
from benchmarks.real_started import Server, litellm, llama_server, simulator
from fleet.config import ProviderSettings
from fleet.conversation import Message, Tool
from fleet.errors import FleetError, Relearnt
from fleet.schema import compiled
from fleet.workers.bot.json_answer import read, rules
from fleet.workers.calls import PLAIN, Call, Completion, Wishes
from fleet.workers.ports import Provider
from fleet.workers.providers import make_provider

#: Requests for one answer at most: a model may refuse several parameters, one at a time.
MOST_TRIES = 6
#: Seconds for one answer: a small model on a busy machine is slow.
TIMEOUT_S = 300.0
#: Tokens of an answer at most, and of one in JSON.
ROOM, JSON_ROOM = 80, 300
#: Characters of a remark in the table at most.
MOST_TOLD = 60
#: What JSON answers must fit: closed and with every key required, as the strictest servers want it.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "inhabitants": {"type": "integer"},
        "is_capital": {"type": "boolean"},
    },
    "required": ["city", "inhabitants", "is_capital"],
    "additionalProperties": False,
}
CITIES = ("Paris", "Lagos", "Quito", "Osaka", "Turin", "Perth", "Leeds", "Delhi", "Basel", "Miami")
TOOL = Tool(
    name="get_weather",
    description="The weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)


@dataclass
class Row:
    """One line of the table: what the answers to one kind of call were like."""

    asked: str
    good: int = 0
    of: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    told: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return it as text; tokens are those of one answer, on average."""
        answers = max(1, self.of)
        remarks = ", ".join(dict.fromkeys(self.told))
        return [
            self.asked,
            f"{self.good} of {self.of}",
            str(self.calls),
            f"{self.input_tokens / answers:.0f}",
            f"{self.output_tokens / answers:.0f}",
            remarks if len(remarks) <= MOST_TOLD else f"{remarks[: MOST_TOLD - 1]}…",
        ]


Judge = Callable[[Completion], bool]


class Probes:
    """Asks one server.

    Args:
        server: Where it is, and which of its models is asked.
        adapter: Speaks its wire.
    """

    def __init__(self, server: Server, adapter: Provider) -> None:
        self._server = server
        self._adapter = adapter
        self.rows: list[Row] = []

    def call(self, prompt: str, *, wishes: Wishes = PLAIN, room: int = ROOM, temperature: float | None = 0.7) -> Call:
        """Return a call with a system prompt and a temperature, as a bot makes it."""
        messages = (
            Message(role="system", content="You are a helpful assistant. Be brief."),
            Message(role="user", content=prompt),
        )
        return Call(self._server.model, messages, temperature, room, TIMEOUT_S, wishes)

    async def ask(self, asked: str, calls: Iterable[Call], judge: Judge, *, key: str | None = None) -> Row:
        """Make calls one after the other, and add a row about them."""
        row = Row(asked)
        self.rows.append(row)
        for call in calls:
            row.of += 1
            try:
                completion = await self._complete(row, call, self._server.key if key is None else key)
            except FleetError as error:
                row.told.append(type(error).__name__)
                row.failures.append(f"{type(error).__name__}: {error}")
                continue
            row.good += judge(completion)
            row.input_tokens += completion.usage.input_tokens
            row.output_tokens += completion.usage.output_tokens
            row.told += [completion.finish_reason, *(f"without {name}" for name in completion.left_out)]
        return row

    async def _complete(self, row: Row, call: Call, key: str) -> Completion:
        for attempt in range(MOST_TRIES):
            row.calls += 1
            try:
                return await self._adapter.complete(call, api_key=key)
            except Relearnt as error:
                row.told.append(str(error).partition(": ")[2])
                if attempt == MOST_TRIES - 1:
                    raise
        raise AssertionError("a try returns or raises")


async def probe(server: Server, adapter: Provider, *, questions: int) -> list[Row]:
    """Ask a server everything, and return the rows of the table."""
    probes = Probes(server, adapter)
    call = probes.call
    await probes.ask("an answer", [call("Name a colour.")], lambda one: bool(one.text))
    await probes.ask("cut at 5 tokens", [call("Tell a long story.", room=5)], lambda one: one.finish_reason == "length")
    schema = compiled(SCHEMA)
    about = [f"Describe the city of {CITIES[n % len(CITIES)]} as JSON." for n in range(questions)]

    def fits(one: Completion) -> bool:
        return not read(one.text, schema)[1]

    told = f"\n\n{rules(schema, 4000)}"
    by_prompt = [call(text + told, temperature=0, room=JSON_ROOM) for text in about]
    by_wire = [call(text, wishes=Wishes(schema=schema), temperature=0, room=JSON_ROOM) for text in about]
    await probes.ask("JSON, told in the prompt", by_prompt, fits)
    await probes.ask("JSON, told by the wire", by_wire, fits)
    forced = Wishes(tools=(TOOL,), tool_choice="required")
    weather = "What is the weather in Paris? Use get_weather."
    await probes.ask("a tool's call", [call(weather, wishes=forced)], _calls_well)
    for name, wishes in (
        ("effort low", Wishes(effort="low")),
        ("seed, top_p, stop", Wishes(seed=7, top_p=0.9, stop=("###",))),
        ("two answers (n)", Wishes(n=2)),
        ("tier flex", Wishes(tier="flex")),
    ):
        await probes.ask(name, [call("Name a colour.", wishes=wishes)], lambda one: bool(one.text))
    long = call("word " * server.too_long_words)
    await probes.ask("a prompt too long", [long], lambda one: bool(one.text))
    wrong = replace(call("Hello"), model="no-such-model-9")
    await probes.ask("a model that isn't there", [wrong], lambda one: bool(one.text))
    await probes.ask("a wrong key", [call("Hello")], lambda one: bool(one.text), key="wrong-key")
    return probes.rows


def _calls_well(one: Completion) -> bool:
    try:
        return bool(one.tool_calls) and isinstance(json.loads(one.tool_calls[0].arguments), dict)
    except ValueError:
        return False


async def look_at(server: Server, *, questions: int) -> list[Row]:
    """Ask a server everything by an adapter of its own."""
    settings = ProviderSettings.model_validate({"kind": server.kind})
    adapter = make_provider(settings, base_url=server.url)
    try:
        return await probe(server, adapter, questions=questions)
    finally:
        await adapter.close()


@click.command()
@click.option("--url", help="A server that runs: the root of its API, with /v1 where it has one.")
@click.option("--kind", type=click.Choice(["openai", "anthropic"]), default="openai", show_default=True)
@click.option("--model", default="simulated-1", show_default=True, help="Which of its models to ask.")
@click.option("--key", default="test-key", show_default=True, help="Its key; local servers mostly take any.")
@click.option("--gguf", type=click.Path(exists=True, path_type=Path), help="Start llama.cpp's server with this model.")
@click.option("--llama-server", "llama", default="llama-server", show_default=True, help="Its program.")
@click.option("--litellm", "lite", is_flag=True, help="Start LiteLLM's proxy in front of the simulator.")
@click.option("--litellm-program", default="litellm", show_default=True, help="Its program, in a venv of its own.")
@click.option("--questions", default=6, show_default=True, help="Questions with a schema, each way.")
def main(
    *,
    url: str | None,
    kind: str,
    model: str,
    key: str,
    gguf: Path | None,
    llama: str,
    lite: bool,
    litellm_program: str,
    questions: int,
) -> None:
    """Ask a real server everything that Fleet can ask, and print what came."""
    with ExitStack() as stack:
        if url:
            server = Server("the server", url, kind, model, key)
        elif gguf:
            server = stack.enter_context(llama_server(llama, gguf))
        elif lite:
            server = stack.enter_context(litellm(litellm_program))
        else:
            server = stack.enter_context(simulator(kind))
        rows = asyncio.run(look_at(server, questions=questions))
    columns = ["asked", "good", "calls", "tokens in", "tokens out", "what came"]
    print_table(f"{server.name}, {server.kind}, model {server.model}", columns, [row.cells() for row in rows])
    for row in rows:
        for told in dict.fromkeys(row.failures):
            click.echo(f"{row.asked}: {told}")


if __name__ == "__main__":
    main()
