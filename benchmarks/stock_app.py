"""The peer: a Celery app on the stock Redis transport with its best settings, and a task that does nothing."""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery

url = os.environ["BENCH_BROKER"]
app = Celery("stock", broker=url, backend=url)
app.conf.update(
    accept_content=["json"],
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)
_client = redis.Redis.from_url(url)
_submitted = 0


@app.task(name="noop", ignore_result=True)
def noop(prompt: str) -> None:
    """Do nothing."""


@app.task(name="kept")
def kept(prompt: str) -> str:
    """Hand the prompt back."""
    return prompt


def submit(task: Any, count: int) -> None:
    """Queue `count` tasks."""
    global _submitted
    _submitted += count
    with app.connection() as connection, app.amqp.Producer(connection) as producer:
        for number in range(count):
            task.apply_async((f"What is {number} + 2?",), producer=producer)


def forget() -> None:
    """Start counting anew."""
    global _submitted
    _submitted = 0


def done() -> int:
    """Return how many tasks are neither waiting nor unacknowledged any more."""
    return _submitted - int(_client.llen("celery")) - int(_client.hlen("unacked"))
