"""What `get(timeout=)` and `aget` say of a task that has no result: in a process of its own, on a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.config import load
from fleet.engine.operations.no_result import why_no_result
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.redis_server import RedisServer

PRODUCER = """
import asyncio, json
from celery.exceptions import TimeoutError
from fleet import submit_task

def told(wait):
    try:
        wait()
    except TimeoutError as error:
        return str(error)

task = submit_task.delay("a secret question", pool="review")
waits = (lambda: task.get(timeout=0.3), lambda: asyncio.run(task.aget(timeout=0.3)), lambda: task.get(timeout=0.01))
print(json.dumps([told(wait) for wait in waits]))
"""


def test_who_waits_in_vain_is_told_the_reason_and_the_time(redis_url: str, tmp_path: Path) -> None:
    with connect(redis_url) as client:
        wait = Wait("hold", time.time() + 445, "openai/gpt-5/default", "429, Retry-After 400 s")
        client.set(keys.hold("fleet.review"), wait.to_json(), px=445_000)
        report = {
            "name": "w@h",
            "pid": 1,
            "cpu_percent": 1,
            "rss_mb": 1,
            "slots": 1,
            "busy": 0,
            "at": time.time() + 50,
        }  # a slow start is no silence
        client.hset(keys.workers(), "w@h", json.dumps(report))
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER], env=os.environ | {"FLEET_REDIS__URL": redis_url}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    *told, short = json.loads(done.stdout)
    for message in told:
        assert message.startswith("no result within 0.3 s: it is queued, pool review: it waits because")
        assert "429, Retry-After 400 s" in message and "UTC, in 7 min" in message
        assert "secret" not in message
    assert short == "no result within 0.01 s"  # who polls is told nothing that costs a look


def test_a_task_that_nobody_knows_and_a_redis_that_is_away_are_told_too(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", own_redis.url)
    assert "it was never submitted, its result has expired" in why_no_result("nobody", load())
    own_redis.kill()
    assert "Redis did not answer" in why_no_result("nobody", load())
