"""Celery messages pushed by hand: filling a queue must not take longer than draining it."""

from __future__ import annotations

import json
import uuid

import redis

from fleet.engine.messages.envelope import NO_CANVAS, envelope, task_headers


def push(task: str, count: int, *, queue: str, place: str, client: redis.Redis, text: str = "") -> None:
    """Queue `count` messages for a task that takes a number; or the same text each time."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.lpush(place, message(task, text or number, queue))
        pipe.execute()


def message(task: str, argument: int | str, queue: str) -> bytes:
    """Return one message as kombu writes it."""
    task_id = str(uuid.uuid4())
    headers = task_headers(task_id) | {"task": task, "ignore_result": True}
    body = json.dumps([[argument], {}, NO_CANVAS]).encode()
    return envelope(task_id=task_id, queue=queue, priority=0, headers=headers, body=body)
