"""python -m benchmarks.roads: one model over all roads, our own adapter, pydantic-ai's, and SDKs in bot functions.

The same prompts to the same simulator (in a process of its own, free and instant), so many calls at once. "CPU" is this
process alone. The roads take turns, round by round, so that both meet the same machine; the tokens must agree.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

import click
import psutil

from benchmarks.bench import cpu_s, print_table, private_home
from benchmarks.sdk_roads import FUNCTIONS, run_function, run_sdk
from fleet.config import ProviderSettings, Settings
from fleet.conversation import Message
from fleet.engine.local_simulator import ensure_simulator
from fleet.workers.calls import Call
from fleet.workers.ports import Provider
from fleet.workers.providers import make_provider

#: Road -> kind of the provider, and the model as that kind spells it.
ROADS = {
    "native: openai": ("openai", "simulated-1"),
    "native: anthropic": ("anthropic", "simulated-1"),
    "pydantic-ai: openai-chat": ("pydantic-ai", "openai-chat:simulated-1"),
    "pydantic-ai: anthropic": ("pydantic-ai", "anthropic:claude-haiku-4-5"),
}
#: OpenAI's SDK without a bot: with the limiter under it, and with nothing.
LIMITED, BARE = "openai SDK, limited transport", "openai SDK, bare"
#: Limits that never bind.
FREE = {"rpm": 100_000_000, "tpm": 1_000_000_000_000, "latency_ms": 0.0}
#: Seconds for one call; a machine that does other work meanwhile is slow.
TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Run:
    """What one round over one road showed."""

    calls_per_s: float
    cpu_ms: float
    tokens: tuple[int, int]


async def run_road(provider: Provider, model: str, calls: int, at_once: int) -> Run:
    """Make so many calls, so many at a time."""
    room = asyncio.Semaphore(at_once)
    us = psutil.Process()

    async def one(number: int) -> tuple[int, int]:
        messages = (
            Message(role="system", content="You are an analytical bot."),
            Message(role="user", content=f"What is {number}+1?"),
        )
        async with room:
            call = Call(model, messages, 0.7, 64, TIMEOUT_S)
            used = (await provider.complete(call, api_key="bench")).usage
        return used.input_tokens, used.output_tokens

    await one(0)  # imports, connections
    started, before = time.perf_counter(), cpu_s(us)
    used = await asyncio.gather(*map(one, range(calls)))
    seconds, cpu = time.perf_counter() - started, cpu_s(us) - before
    return Run(calls / seconds, cpu * 1000 / calls, (sum(i for i, _ in used), sum(o for _, o in used)))


async def run_other(url: str, road: str, calls: int, at_once: int) -> Run:
    """Make so many calls with an SDK, or in a bot function."""
    us = psutil.Process()

    async def all_of(calls: int) -> tuple[int, int]:
        if road in FUNCTIONS:
            return await run_function(url, road, calls, at_once)
        return await run_sdk(url, calls, at_once, limited=road == LIMITED)

    await all_of(1)  # imports
    started, before = time.perf_counter(), cpu_s(us)
    used = await all_of(calls)
    seconds, cpu = time.perf_counter() - started, cpu_s(us) - before
    return Run(calls / seconds, cpu * 1000 / calls, used)


async def measure(url: str, calls: int, at_once: int, rounds: int) -> dict[str, list[Run]]:
    """Let the roads take turns."""
    found: dict[str, list[Run]] = {road: [] for road in (*ROADS, *FUNCTIONS, LIMITED, BARE)}
    for _ in range(rounds):
        for road, (kind, model) in ROADS.items():
            provider = make_provider(ProviderSettings.model_validate({"kind": kind, "base_url": url}))
            try:
                found[road].append(await run_road(provider, model, calls, at_once))
            finally:
                await provider.close()
        for road in (*FUNCTIONS, LIMITED, BARE):
            found[road].append(await run_other(url, road, calls, at_once))
    return found


def rows(found: dict[str, list[Run]]) -> list[list[str]]:
    """Return the table's rows; the first road is what the others are compared with."""
    medians = {
        road: (statistics.median(r.calls_per_s for r in runs), statistics.median(r.cpu_ms for r in runs))
        for road, runs in found.items()
    }
    first = next(iter(medians.values()))
    return [
        [road, f"{rate:,.0f}", f"{rate / first[0]:.2f}", f"{cpu:.2f}", f"{cpu / first[1]:.1f}",
         " + ".join(f"{tokens:,}" for tokens in found[road][-1].tokens)]
        for road, (rate, cpu) in medians.items()
    ]  # fmt: skip


@click.command(help=__doc__)
@click.option("--calls", default=300, show_default=True, help="Calls per road and round.")
@click.option("--at-once", default=50, show_default=True, help="Calls in flight.")
@click.option("--rounds", default=3, show_default=True)
def main(calls: int, at_once: int, rounds: int) -> None:
    with private_home() as home:
        settings = Settings.model_validate({"simulator": FREE})
        found = asyncio.run(measure(ensure_simulator(settings, home).url, calls, at_once, rounds))
    print_table(
        f"{calls} calls, {at_once} at once, median of {rounds} rounds",
        ["road", "calls/s", "of native", "CPU ms/call", "times native", "tokens in + out"],
        rows(found),
    )
    if len({runs[-1].tokens for road, runs in found.items() if "openai" in road and "bot" not in road}) > 1:
        raise SystemExit("expected equal tokens on both roads to one wire, got different ones")


if __name__ == "__main__":
    main()
