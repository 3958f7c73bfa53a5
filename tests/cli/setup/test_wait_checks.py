"""What the doctor says of waiting tasks, read from a real Redis."""

from __future__ import annotations

import time

import pytest

from fleet.cli.setup.wait_checks import read_waits, wait_checks
from fleet.config import load
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.redis_server import RedisServer


def test_a_reason_that_does_not_pass_by_itself_is_one_finding_for_all_of_its_pools(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    with connect(redis_url) as client:
        (nothing,) = wait_checks(read_waits(load()))
        assert (nothing.level, nothing.name) == ("ok", "tasks: waiting")
        report = {"name": "w@h", "pid": 1, "cpu_percent": 1, "rss_mb": 1, "slots": 1, "busy": 0, "at": time.time()}
        client.hset(keys.workers(), mapping={"w@h": str(report).replace("'", '"')})
        for pool, wait in (
            ("research", Wait("key", time.time() + 60, "openai/gpt-5/default", "401")),
            ("writing", Wait("key", time.time() + 60, "openai/gpt-5/default", "401")),
            ("review", Wait("outage", time.time() + 1, "openai/gpt-5/default")),
        ):
            client.lpush(keys.queue(pool), "{}", "{}")
            client.set(keys.hold(keys.queue(pool)), wait.to_json(), px=60_000)
        (found,) = wait_checks(read_waits(load()))
    assert (found.level, found.name) == ("warn", "tasks: waiting for key")
    assert found.found.startswith("4 tasks of research, writing: openai/gpt-5/default: there is no key that")
    assert "Give the provider a key that works: `fleet keys rotate openai`" in found.advice


def test_a_redis_that_is_away_is_told_elsewhere(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", own_redis.url)
    own_redis.kill()
    assert list(wait_checks(read_waits(load()))) == []
