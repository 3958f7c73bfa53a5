"""What `benchmarks.roads` runs beside the adapters: requests of SDKs, in bot functions and without Fleet.

Limiter and breakers are of memory and grant at once, so that what is left is the road itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai

from fleet.models import BotTask
from fleet.workers.bot.elsewhere import LoopBotContext
from fleet.workers.limited.transport import LimitedTransport
from tests.workers.fakes import FakeLimiter
from tests.workers.frameworks.at_work import Work

#: Road -> kind of the provider, and how a request is made. The first is what the others stand beside.
FUNCTIONS = {
    "bot.chat()": ("openai", "chat"),
    "bot.openai()": ("openai", "openai"),
    "bot.openai(), streamed": ("openai", "streamed"),
    "bot.anthropic()": ("anthropic", "anthropic"),
    "bot.http_client()": ("openai", "http"),
}
SYSTEM = "You are an analytical bot."
#: Input and output tokens.
Tokens = tuple[int, int]


def told(number: int) -> list[Any]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"What is {number}+1?"}]


async def solve(task: BotTask, bot: LoopBotContext) -> str:
    """Make so many requests, so many at a time: the task's metadata says how."""
    way, calls, at_once = task.metadata["way"], task.metadata["calls"], task.metadata["at_once"]
    one = _way(str(way), bot)
    room = asyncio.Semaphore(at_once)

    async def ask(number: int) -> None:
        async with room:
            await one(number)

    await asyncio.gather(*map(ask, range(calls)))
    return "done"


def _way(way: str, bot: LoopBotContext) -> Callable[[int], Awaitable[object]]:
    if way == "chat":
        return lambda number: bot.chat(f"What is {number}+1?", max_output_tokens=64)
    if way == "http":
        http = bot.http_client()
        return lambda number: http.post(
            "https://any.invalid/v1/chat/completions", json={"model": "m", "max_tokens": 64, "messages": told(number)}
        )
    if way == "anthropic":
        claude = bot.anthropic()
        return lambda number: claude.messages.create(
            model="m", max_tokens=64, system=SYSTEM, messages=[{"role": "user", "content": f"What is {number}+1?"}]
        )
    gpt = bot.openai()
    if way == "openai":
        return lambda number: gpt.chat.completions.create(model="m", max_tokens=64, messages=told(number))

    async def streamed(number: int) -> None:
        async for _ in await gpt.chat.completions.create(model="m", max_tokens=64, messages=told(number), stream=True):
            pass

    return streamed


async def run_function(url: str, road: str, calls: int, at_once: int) -> Tokens:
    """Make the calls in one task of a bot function; return what they used."""
    kind, way = FUNCTIONS[road]
    asked = {"metadata": {"way": way, "calls": calls, "at_once": at_once}}
    outcome = await Work("benchmarks.sdk_roads:solve", kind=kind, task=asked, deadline_s=300.0).at(url)
    if outcome.status != "ok" or outcome.attempts != calls:
        raise SystemExit(f"{road}: expected {calls} answers, got {outcome.error or outcome.attempts}")
    return outcome.usage.input_tokens, outcome.usage.output_tokens


async def run_sdk(url: str, calls: int, at_once: int, *, limited: bool) -> Tokens:
    """Make the calls with OpenAI's SDK alone, or with the limiter under it."""
    inner: Any = httpx2.AsyncHTTPTransport()
    transport: Any = LimitedTransport(FakeLimiter(), "api", inner) if limited else inner
    room, used = asyncio.Semaphore(at_once), [0, 0]
    async with httpx2.AsyncClient(transport=transport) as http:
        gpt = openai.AsyncOpenAI(api_key="bench", base_url=f"{url}/v1", http_client=http, max_retries=0)

        async def ask(number: int) -> None:
            async with room:
                answer = await gpt.chat.completions.create(model="simulated-1", max_tokens=64, messages=told(number))
            if answer.usage is not None:
                used[0] += answer.usage.prompt_tokens
                used[1] += answer.usage.completion_tokens

        await asyncio.gather(*map(ask, range(calls)))
    return used[0], used[1]
