"""What Flower learns of tasks that ended where they waited, without an event of a worker; on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from flower.events import EventsState

from fleet import config
from fleet.dashboard.late_ends import LateEnds
from fleet.engine.outcomes.stored import result_meta, revoked_meta
from fleet.models import BotResult, TaskError
from fleet.store import keys
from fleet.store.client import connect


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    with connect(redis_url) as opened:
        yield opened


def test_tasks_that_ended_where_they_waited_are_told_and_no_others(client: redis.Redis) -> None:
    state: Any = EventsState()
    for number, name in enumerate(("cancelled", "expired", "strict", "waits", "runs")):
        told = {"uuid": name, "hostname": "w1@h", "timestamp": 1.0, "local_received": 1.0, "clock": number}
        state.event({**told, "type": "task-received", "name": "fleet.submit_task"})
        if name != "runs":
            state.event({**told, "type": "task-retried", "exception": "waits: api: the provider fails"})
    error = TaskError(type="Expired", message="expected it to begin in time")
    late = BotResult(task_id="expired", status="failed", error=error, finished_at=2.0)
    client.set(keys.result("cancelled"), revoked_meta("cancelled", reason="revoked", at=2.0))
    client.set(keys.result("runs"), revoked_meta("runs", reason="revoked", at=2.0))
    client.set(keys.result("expired"), result_meta(late))
    client.set(keys.result("strict"), result_meta(late.model_copy(update={"task_id": "strict"}), strict=True))
    beats = len(state.workers["w1@h"].heartbeats)
    asyncio.run(LateEnds(SimpleNamespace(state=state), config.current()).look())  # type: ignore[arg-type]
    seen = {name: (task.state, task.exception, task.result) for name, task in state.tasks.items()}
    assert seen == {
        "cancelled": ("REVOKED", None, None),
        "expired": ("SUCCESS", None, "failed: Expired in 0 ms"),
        "strict": ("FAILURE", "Expired", None),
        "waits": ("RETRY", "waits: api: the provider fails", None),
        "runs": ("RECEIVED", None, None),
    }
    assert len(state.workers["w1@h"].heartbeats) == beats  # nobody is livelier for it
    client.close()


def test_a_redis_that_is_away_is_said_and_leaves_flower_as_it_is(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    state: Any = EventsState()
    told = {"uuid": "waits", "hostname": "w1@h", "timestamp": 1.0, "local_received": 1.0, "clock": 1}
    state.event({**told, "type": "task-retried", "exception": "waits"})
    monkeypatch.setenv("FLEET_REDIS__STATE_URL", "redis://127.0.0.1:9")
    config.current.cache_clear()
    asyncio.run(LateEnds(SimpleNamespace(state=state), config.current()).look())  # type: ignore[arg-type]
    assert state.tasks["waits"].state == "RETRY"
    assert "ends not looked for" in caplog.text
