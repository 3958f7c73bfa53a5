"""Fleet's Celery app as it is: transport, slot pool and data plane, with plain Celery tasks beside its own."""

from __future__ import annotations

import sys

from benchmarks.peers import celery_messages, work
from benchmarks.peers.work import client
from fleet import app
from fleet.engine.messages.queues import list_key
from fleet.models import Priority

COMMAND = [
    sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery_fleet", "worker", "--loglevel", "WARNING",
    "-c", "100",
]  # fmt: skip
_PLACE = list_key("celery", Priority.NORMAL)

for _function in (work.noop, work.incr, work.hold):
    app.task(name=_function.__name__, ignore_result=True)(_function)


def submit(task: str, count: int) -> None:
    celery_messages.push(task, count, queue="celery", place=_PLACE, client=client)


def waiting() -> int:
    with client.pipeline(transaction=False) as pipe:
        pipe.llen(_PLACE).hlen("fleet:unacked")
        return sum(pipe.execute())
