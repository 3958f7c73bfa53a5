"""Celery messages pushed by hand: filling a queue must not take longer than draining it."""

from __future__ import annotations

import json
import uuid

from benchmarks.peers.work import client
from fleet.engine.messages.envelope import NO_CANVAS, envelope, task_headers


def push(task: str, count: int, *, queue: str, place: str) -> None:
    """Queue `count` messages for a task that takes a number."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.lpush(place, message(task, number, queue))
        pipe.execute()


def message(task: str, number: int, queue: str) -> bytes:
    """Return one message as kombu writes it."""
    task_id = str(uuid.uuid4())
    headers = task_headers(task_id) | {"task": task, "ignore_result": True}
    body = json.dumps([[number], {}, NO_CANVAS]).encode()
    return envelope(task_id=task_id, queue=queue, priority=0, headers=headers, body=body)
