"""A Redis that answers but takes no writes any more, because its disk is full."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.errors import StoreUnavailable
from fleet.store import keys
from fleet.store.client import connect
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import REPO, WorkerProcess

WAIT_S = 40
#: Submits one task when told to, and prints what came of it.
_PRODUCER = """
from fleet import submit_task
submit_task.delay("What is 1+1?", pool="research")
input()
try:
    submit_task.apply_async(("a secret",), {"pool": "research"}, retry=False)
except Exception as error:
    print(type(error).__name__, error)
"""
TASKS = 60


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A Redis that takes no writes once a snapshot has failed, and settings that name it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    server = RedisServer(folder, "--stop-writes-on-bgsave-error", "yes")
    monkeypatch.setenv("FLEET_REDIS__URL", server.url)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "300")
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "10")
    config.current.cache_clear()
    yield server
    server.stop()


def fill_disk(client: redis.Redis, folder: Path) -> None:
    """Let a snapshot fail: the same error reply as a full disk under an append-only file."""
    client.config_set("save", "3600 1000000")
    shutil.rmtree(folder)
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "the snapshot has failed")


def free_disk(client: redis.Redis) -> None:
    client.config_set("stop-writes-on-bgsave-error", "no")


def test_a_full_disk_is_a_clear_error_for_producers_workers_wait_and_nothing_is_lost(
    broker: RedisServer, tmp_path: Path
) -> None:
    ids = list(submit_many(f"What is {number}+1?" for number in range(TASKS)))
    producer = subprocess.Popen(
        [sys.executable, "-c", _PRODUCER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO
    )
    worker = WorkerProcess(tmp_path).wait_ready()
    try:
        with connect(broker.url) as client:

            def done() -> list[str]:
                rows: list[bytes | None] = client.mget(map(keys.result, ids))  # type: ignore[assignment]
                return [json.loads(row)["result"]["status"] for row in rows if row]

            wait_until(lambda: len(done()) >= TASKS / 4, WAIT_S, "work is under way")
            fill_disk(client, tmp_path / "disk")
            with pytest.raises(StoreUnavailable, match="MISCONF"):
                list(submit_many(["refused"]))
            said, _ = producer.communicate("now\n", timeout=WAIT_S)
            assert said.startswith("OperationalError") and "MISCONF" in said, said
            assert "a secret" not in said and b64encode(b"a secret").decode()[:8] not in said
            wait_until(lambda: "MISCONF" in worker.log, WAIT_S, "the worker says why it waits")
            assert len(done()) < TASKS
            free_disk(client)
            wait_until(lambda: len(done()) == TASKS, WAIT_S, "all tasks have results")
            assert set(done()) == {"ok"}
            assert worker.alive, worker.log
    finally:
        producer.kill()
        producer.communicate()
        worker.kill()
