"""One process of the limiter's benchmark: bots in a closed loop that wait, call the simulator, and write down when."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import aiohttp

from benchmarks.limiter_candidates import CANDIDATES, Candidate, Shape

#: Tokens of a call beside its words: two overheads of the chat format and one of answer.
FRAME_TOKENS = 8


class Worker:
    """The callers of one process.

    Args:
        plan: As `benchmarks.limiter` writes it: candidate, shape, bots (a name for each caller), urgent (names),
            share (smallest used share of a reservation), seconds, provider, redis.
        start: When to begin (Unix time).
    """

    def __init__(self, plan: dict[str, Any], start: float) -> None:
        self._plan = plan
        self._start = start
        self._candidate: Candidate = CANDIDATES[plan["candidate"]](plan["redis"], Shape(**plan["shape"]))
        #: (bot, asked at, sent at, tokens, urgent) of answered calls, and the times of 429s.
        self.sent: list[tuple[str, float, float, int, bool]] = []
        self.refused: list[float] = []

    async def run(self) -> dict[str, Any]:
        plan = self._plan
        end = self._start + plan["seconds"]
        await asyncio.sleep(max(0.0, self._start - time.time()))
        cpu = time.process_time()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer bench"}) as session:
            tasks = [asyncio.ensure_future(self._bot(session, bot, end)) for bot in plan["bots"]]
            report = asyncio.ensure_future(self._stream()) if plan.get("stream") else None
            await asyncio.sleep(max(0.0, end - time.time()))
            cpu = time.process_time() - cpu
            waiting = [task for task in tasks if not task.done()]
            for task in waiting:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome
            if report:
                report.cancel()
        counts = self._candidate.counts
        await self._candidate.close()
        return {
            "sent": self.sent, "refused": self.refused, "cpu_s": cpu, "acquired": counts.acquired,
            "questions": counts.questions, "round_trips": counts.round_trips,
        }  # fmt: skip

    async def _bot(self, session: aiohttp.ClientSession, bot: str, end: float) -> None:
        urgent = bot in self._plan["urgent"]
        draw = random.Random(f"{bot}{id(asyncio.current_task())}")
        while time.time() < end:
            reserved = draw.randint(200, 1200)
            used = max(FRAME_TOKENS + 1, round(reserved * draw.uniform(self._plan["share"], 1.0)))
            await self._call(session, bot, reserved, used, urgent)

    async def _call(self, session: aiohttp.ClientSession, bot: str, reserved: int, used: int, urgent: bool) -> None:
        body = {
            "model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a " * (used - FRAME_TOKENS)}],
        }  # fmt: skip
        asked = time.time()
        tried: Any = None
        while True:
            handle = await self._candidate.acquire(bot, reserved, urgent=urgent)
            if isinstance(handle, list) and tried is not None:
                handle = tried
            sent = time.time()
            async with session.post(self._plan["provider"] + "/v1/chat/completions", json=body) as response:
                if response.status == 429:
                    self.refused.append(time.time())
                    tried = handle
                    await self._candidate.refused(handle, float(response.headers["retry-after"]))
                    continue
                answer = await response.json()
            tokens = answer["usage"]["total_tokens"]
            self._candidate.settle(handle, tokens)
            self.sent.append((bot, asked, sent, tokens, urgent))
            return

    async def _stream(self) -> None:
        """Write calls as they are answered: for runs in which this process is killed."""
        done = 0
        while True:
            await asyncio.sleep(0.1)
            print(json.dumps({"sent": self.sent[done:]}), flush=True)
            done = len(self.sent)


async def main() -> None:
    plan = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    worker = Worker(plan, float(sys.stdin.readline()))
    print(json.dumps(await worker.run()), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
