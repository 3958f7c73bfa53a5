"""The bare loop of `benchmarks.agents`: the same agent in plain asyncio, the SDK's retries, a token bucket before it.

    python -m benchmarks.agents_peer '{"url": ..., "model": ..., "tasks": 200, "slots": 100, "rpm": 1500}'

The bucket is the best that one process can have: it knows the provider's own limit, and nobody else sends. Prints JSON
of how its runs ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from pydantic_ai import UsageLimits
from pydantic_ai.exceptions import AgentRunError, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks.agents_bots import agent

#: Times that the SDK tries a call again: enough that 15% errors end no run.
RETRIES = 20
#: Share of a minute that the bucket lets go at once: what Fleet's limiter is given, too.
BURST = 0.02
#: Calls of one run at most: pydantic-ai's own default.
MOST_CALLS = 50


@dataclass
class Bucket:
    """A token bucket: calls wait their turn in order."""

    per_s: float
    burst: float
    at: float = 0.0

    async def take(self) -> None:
        """Wait until a call may go."""
        now = time.monotonic()
        self.at = max(self.at, now - self.burst / self.per_s) + 1 / self.per_s
        if self.at > now:
            await asyncio.sleep(self.at - now)


class Paced(httpx2.AsyncBaseTransport):
    """A transport behind a bucket."""

    def __init__(self, bucket: Bucket, slots: int) -> None:
        self._bucket = bucket
        limits = httpx2.Limits(max_connections=slots, max_keepalive_connections=slots)
        self._inner = httpx2.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await self._bucket.take()
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _run(model: str, prompts: list[str], plan: dict[str, Any]) -> Counter[str]:
    bucket = Bucket(plan["rpm"] / 60, plan["rpm"] * BURST)
    slots, ends = asyncio.Semaphore(plan["slots"]), Counter[str]()
    http = httpx2.AsyncClient(transport=Paced(bucket, plan["slots"]), timeout=60)
    async with openai.AsyncOpenAI(
        base_url=f"{plan['url']}/v1", api_key=plan["key"], max_retries=RETRIES, http_client=http
    ) as client:
        mind = OpenAIChatModel(model, provider=OpenAIProvider(openai_client=client))

        async def one(prompt: str) -> None:
            async with slots:
                try:
                    await agent.run(prompt, model=mind, usage_limits=UsageLimits(request_limit=MOST_CALLS))
                    ends["good"] += 1
                except UsageLimitExceeded:
                    ends["stopped by a count of calls"] += 1
                except AgentRunError as error:
                    ends[type(error).__name__] += 1

        await asyncio.gather(*map(one, prompts))
    return ends


def main() -> None:
    """Run it."""
    plan = json.loads(sys.argv[1])
    print("ready", flush=True)
    ends = asyncio.run(_run(plan["model"], plan["prompts"], plan))
    print(json.dumps({"ends": ends}), flush=True)


if __name__ == "__main__":
    main()
