"""taskiq on a Redis list, its fastest broker: asyncio, no acks, so what a killed worker held is gone."""

from __future__ import annotations

import asyncio
import sys

import redis.asyncio
from taskiq_redis import ListQueueBroker

from benchmarks.peers import work
from benchmarks.peers.work import BEGUN, HOLD_S, RUNS, URL, client

COMMAND = [
    sys.executable, "-m", "taskiq", "worker", "--workers", "1", "--log-level", "ERROR",
    "benchmarks.peers.taskiq_app:broker",
]  # fmt: skip

broker = ListQueueBroker(URL)
_client = redis.asyncio.Redis.from_url(URL)


@broker.task(task_name="noop")
async def noop(number: int) -> None:
    work.noop(number)


@broker.task(task_name="incr")
async def incr(number: int) -> None:
    await _client.incr(RUNS)


@broker.task(task_name="hold")
async def hold(number: int) -> None:
    await _client.hincrby(BEGUN, str(number), 1)
    await asyncio.sleep(HOLD_S)


tasks = {"noop": noop, "incr": incr, "hold": hold}


def submit(task: str, count: int) -> None:
    async def kick() -> None:
        await broker.startup()
        for number in range(count):
            await tasks[task].kiq(number)
        await broker.shutdown()

    asyncio.run(kick())


def waiting() -> int:
    return int(client.llen("taskiq"))
