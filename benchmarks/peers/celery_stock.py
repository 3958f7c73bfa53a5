"""Celery on kombu's own Redis transport, with its best settings; or on Fleet's, when BENCH_TRANSPORT names it."""

from __future__ import annotations

import os
import sys

from celery import Celery

from benchmarks.peers import celery_messages, work
from benchmarks.peers.work import URL, client

COMMAND = [
    sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery_stock", "worker", "--loglevel", "WARNING",
    "-P", "threads", "-c", "100", "--without-gossip", "--without-mingle",
]  # fmt: skip
#: Seconds. Stock kombu counts them from the take, and runs every task that lasts longer twice.
VISIBILITY_TIMEOUT_S = 20

app = Celery("bench", broker=URL)
app.conf.update(
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    broker_transport=os.environ.get("BENCH_TRANSPORT"),
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_S, "unacked_restore_interval": 2, "unacked_restore_throttle": 1,
    },
    task_acks_late=True,
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
    worker_disable_rate_limits=True,
    worker_prefetch_multiplier=1,
)  # fmt: skip
for _function in (work.noop, work.incr, work.hold):
    app.task(name=_function.__name__)(_function)


def submit(task: str, count: int) -> None:
    celery_messages.push(task, count, queue="celery", place="celery", client=client)


def waiting() -> int:
    with client.pipeline(transaction=False) as pipe:
        pipe.llen("celery").hlen("unacked").hlen("fleet:unacked")
        return sum(pipe.execute())
