"""huey: a list, no acks: what a killed worker held is gone."""

from __future__ import annotations

import sys
from pathlib import Path

from huey import RedisHuey

from benchmarks.peers import work
from benchmarks.peers.work import URL, client

COMMAND = [
    str(Path(sys.executable).parent / "huey_consumer"), "benchmarks.peers.huey_app.huey", "-w", "8", "-k", "thread",
    "--quiet",
]  # fmt: skip

huey = RedisHuey("bench", url=URL, results=False)
tasks = {f.__name__: huey.task(name=f.__name__)(f) for f in (work.noop, work.incr, work.hold)}


def submit(task: str, count: int) -> None:
    for number in range(count):
        tasks[task](number)


def waiting() -> int:
    return int(client.llen("huey.redis.bench"))
