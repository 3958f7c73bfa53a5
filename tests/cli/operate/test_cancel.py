"""`fleet cancel`, and what `fleet why` and `fleet pools` say of what is parked or revoked, on a real Redis."""

from __future__ import annotations

import json
import time

import pytest
import redis

from fleet import config
from fleet.cli.run.collector import open_collector
from fleet.engine.messages import queues
from fleet.engine.transport.parking import parked
from fleet.store import keys
from fleet.store.client import run_script
from tests.cli.operate.test_dead import client, fleet

__all__ = ["client"]

RESEARCH = keys.queue("research")


def park(client: redis.Redis, task_id: str, *, in_s: float) -> None:
    message = json.dumps({"headers": {"id": task_id}, "properties": {}, "body": ""})
    place = queues.list_key(RESEARCH, 1)
    call = parked.publish_later_call(RESEARCH, place, 1, message, task_id=task_id, at=time.time() + in_s)
    run_script(client, parked.PUBLISH_LATER, *call)


def test_why_and_pools_tell_until_when_a_task_is_parked(client: redis.Redis) -> None:
    park(client, "later", in_s=600)
    story = json.loads(fleet("why", "later", "--json").stdout)
    assert (story["state"], story["pool"], story["priority"]) == ("parked", "research", "high")
    assert story["opens_at"] == pytest.approx(time.time() + 600, abs=30)
    assert story["cause"] == "time"
    assert "its producer gave it a later time" in story["lines"][-1]
    (row,) = (pool for pool in json.loads(fleet("pools", "--json").stdout)["pools"] if pool["pool"] == "research")
    assert row["parked"] == 1
    assert 500 < row["next_opens_s"] <= 601
    assert "PARKED" in fleet("pools").stdout
    stats = json.loads(fleet("stats", "--json").stdout)
    assert [pool["parked"] for pool in stats["pools"] if pool["pool"] == "research"] == [1]


def test_a_cancel_without_a_worker_ends_what_waits_and_leaves_a_result_alone(client: redis.Redis) -> None:
    park(client, "later", in_s=600)
    client.set(keys.result("done"), '{"status": "SUCCESS", "result": {"status": "ok"}}')
    answer = json.loads(fleet("cancel", "later", "done", "--json").stdout)
    assert answer == {"revoked": ["later", "done"], "ended": ["later"]}
    assert "1 of them waited" in fleet("cancel", "other", "done").stderr
    story = json.loads(fleet("why", "later", "--json").stdout)
    assert story["state"] == "revoked"
    assert client.get(keys.result("done")) == b'{"status": "SUCCESS", "result": {"status": "ok"}}'
    fleet("cancel", code=2)


def test_many_are_cancelled_at_once_but_those_that_a_worker_holds(client: redis.Redis) -> None:
    names = [f"t{number}" for number in range(50)]
    for task_id in names[:2]:
        message = json.dumps({"headers": {"id": task_id}, "properties": {}, "body": ""})
        client.hset(keys.unacked(), f"tag-{task_id}", f"{RESEARCH}\n{message}")
    answer = json.loads(fleet("cancel", *names, "--json").stdout)
    assert answer["ended"] == names[2:]
    assert not client.exists(keys.result("t0"))
    assert client.zcard(keys.revoked()) == 50


def test_the_line_of_a_revoked_task_is_a_failed_one_that_can_be_retried(client: redis.Redis) -> None:
    fleet("cancel", "mine")
    with open_collector(config.current()) as collector:
        found = collector.fetch(["mine"])
    assert (found["mine"]["status"], found["mine"]["error"]["type"]) == ("failed", "TaskRevokedError")
