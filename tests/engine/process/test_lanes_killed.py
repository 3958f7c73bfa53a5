"""A worker that is killed while its tasks are in a batch: another one goes on, and nothing is paid twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.store import lane_keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.engine.process.test_lanes import BATCHES, CONFIG, WAIT_S
from tests.every import every
from tests.waiting import wait_until
from tests.workers.simulator.running import running, total

TASKS = 30


def test_a_killed_worker_leaves_a_batch_that_another_one_takes_on(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.app import app

    monkeypatch.setenv("LANE_KEY", "test-key")
    with running(clock_speed=10_000.0, batch_median_s=30_000.0, batch_p95_s=40_000.0) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url) + BATCHES)
        config.current.cache_clear()
        first = start_worker()
        asked = ({"prompt": f"What is {n} + {n}?", "pool": "work", "kind": "sum", "by_s": 90_000} for n in range(TASKS))
        ids = list(submit_many(asked))
        wait_until(lambda: "batch_made" in first.log, WAIT_S, lambda: first.log)
        first.send(signal.SIGKILL)
        first.wait()
        with connect(redis_url) as client:
            client.delete(lane_keys.lane_turn("openai/gpt-sim/default"))  # which ends by itself within 15 s
        second = start_worker()
        found = [app.AsyncResult(task_id).get(timeout=WAIT_S) for task_id in ids]
        assert every(one.status == "ok" and one.served_by == "batch" for one in found), second.log
        assert total(url)["served"] == TASKS == sum(one.attempts for one in found)
