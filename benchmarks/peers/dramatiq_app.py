"""dramatiq: Lua dispatch, acks, heartbeats of workers."""

from __future__ import annotations

import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import work
from benchmarks.peers.work import URL, client

COMMAND = [
    sys.executable, "-m", "dramatiq", "--processes", "1", "--threads", "8", "--skip-logging",
    "benchmarks.peers.dramatiq_app",
]  # fmt: skip

dramatiq.set_broker(RedisBroker(url=URL))
tasks = {f.__name__: dramatiq.actor(f, actor_name=f.__name__) for f in (work.noop, work.incr, work.hold)}


def submit(task: str, count: int) -> None:
    for number in range(count):
        tasks[task].send(number)


def waiting() -> int:
    return int(client.hlen("dramatiq:default.msgs"))
