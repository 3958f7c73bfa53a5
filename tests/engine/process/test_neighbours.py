"""What workers tell each other as they start: those of 0.2 know of revoked tasks, which they keep in their memories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker.consumer.mingle import Mingle

from fleet.engine.admission.gates import open_gate, set_gate
from fleet.engine.messages.producer import submit_many
from fleet.engine.process.remote_control import hear_neighbours
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

WAIT_S = 60.0


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def test_what_a_worker_of_0_2_tells_as_it_starts_or_is_asked_stays_revoked_when_it_is_gone(
    start_worker: StartWorker, client: redis.Redis, plain: Celery
) -> None:
    set_gate(client, keys.queue("research"), lowest=-1)
    told, heard, other = submit_many({"prompt": f"{n}", "pool": "research"} for n in range(3))
    worker = start_worker()
    replies = plain.control.inspect(timeout=5.0, destination=[worker.name]).hello("old@elsewhere", [told])
    assert replies[worker.name]["revoked"] == [], "what is revoked lies in Redis"
    step = Mingle(Namespace(app=plain))
    hear_neighbours([step])
    step.sync_with_node(Namespace(app=plain), clock=1, revoked=[heard])
    assert {task_id for task_id in (told, heard, other) if client.zscore(keys.revoked(), task_id)} == {told, heard}
    open_gate(client, keys.queue("research"))
    wait_until(lambda: client.exists(*map(keys.result, (told, heard, other))) == 3, WAIT_S, "all have ended")
    states: list[Any] = [json.loads(client.get(keys.result(one)) or b"")["status"] for one in (told, heard, other)]
    assert states == ["REVOKED", "REVOKED", "SUCCESS"]
