"""A worker and producers on a Redis that Sentinels watch, whose master dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.errors import ConfigurationError, StoreUnavailable
from fleet.models import BotResult
from fleet.store import keys
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import broker_url
from tests.sentinels import SentinelStack
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 60


@pytest.fixture
def sentinels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SentinelStack]:
    """Master, replica and Sentinels, and settings that name them."""
    stack = SentinelStack(tmp_path)
    url, _, name = stack.url.partition("?master_name=")
    monkeypatch.setenv("FLEET_REDIS__URL", url)
    monkeypatch.setenv("FLEET_REDIS__MASTER_NAME", name)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "200")
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "20")
    config.current.cache_clear()
    yield stack
    stack.stop()


def submit(numbers: range) -> list[str]:
    """Queue tasks, again until the broker has confirmed them."""
    while True:
        try:
            tasks = (f"What is {number}+1?" for number in numbers)
            return list(submit_many(tasks, idempotency_keys=(f"task-{number}" for number in numbers)))
        except StoreUnavailable:
            continue


def a_plain_get() -> str:
    """Return an answer that Celery's own result backend got, in a producer of its own."""
    code = "from fleet import submit_task; print(submit_task.delay('What is 2+2?').get(timeout=30).answer)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_worker_and_producer_ride_out_a_failover_and_health_is_red_meanwhile(
    sentinels: SentinelStack, tmp_path: Path
) -> None:
    ids = submit(range(200))
    with connect(sentinels.url) as client:
        client.wait(1, 5000)  # what the replica does not have yet is lost by design: see docs/redis.md
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        with connect(sentinels.url) as client:
            wait_until(lambda: client.exists(*map(keys.result, ids)) > 20, WAIT_S, "work is under way")
        assert a_plain_get() == "4"
        sentinels.master.kill()
        with pytest.raises(ConfigurationError, match=r"redis\.url: expected a Redis that answers"):
            broker_url(config.current())  # what every command asks first, `fleet stats` and `fleet doctor` too
        ids += submit(range(200, 300))

        def stored() -> list[bytes]:
            try:
                with connect(sentinels.url) as client, store_errors(sentinels.url):
                    return [row for row in client.mget(map(keys.result, ids)) if row]  # type: ignore[union-attr]
            except StoreUnavailable:
                return []

        wait_until(lambda: len(stored()) == len(ids), WAIT_S, "all tasks have results")
        results = [BotResult.model_validate(json.loads(row)["result"]) for row in stored()]
        assert {result.status for result in results} == {"ok"}
        with connect(sentinels.url) as client:
            wait_until(lambda: not client.hlen(keys.unacked()), WAIT_S, "everything is acknowledged")
        assert worker.alive, worker.log
    finally:
        worker.kill()
