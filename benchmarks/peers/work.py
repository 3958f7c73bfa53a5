"""What the tasks do, and where they count. On the Redis of BENCH_BROKER, as the queues."""

from __future__ import annotations

import os
import time

import redis

URL = os.environ["BENCH_BROKER"]
#: String: how often `incr` ran. Hash, task -> count: how often `hold` began.
RUNS, BEGUN = "bench:runs", "bench:begun"
#: Seconds that `hold` takes: it is still running when its worker is killed.
HOLD_S = 25.0

client = redis.Redis.from_url(URL)


def noop(number: int) -> None:
    """Do nothing."""


def incr(number: int) -> None:
    """Count in Redis."""
    client.incr(RUNS)


def hold(number: int) -> None:
    """Say that it began, then take its time."""
    client.hincrby(BEGUN, str(number), 1)
    time.sleep(HOLD_S)
