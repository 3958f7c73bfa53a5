"""`fleet cancel`, and what `fleet why` and `fleet pools` say of what is parked or revoked, on a real Redis."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from fleet import config
from fleet.cli.run.collector import open_collector
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import BEFORE, envelope, task_headers
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.producer import submit_many
from fleet.engine.outcomes import cancelling
from fleet.engine.outcomes.cancelling import Canceller
from fleet.engine.outcomes.stored import result_meta
from fleet.engine.transport.parking import parked
from fleet.engine.transport.purge import purge
from fleet.engine.transport.revoked import is_revoked
from fleet.models import BotResult
from fleet.outcome import Before
from fleet.signals import catalogue
from fleet.store import flow_keys, keys
from fleet.store.client import run_script
from fleet.usage import Usage
from tests.cli.operate.test_dead import client, fleet
from tests.counted import all_counted

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
    assert answer == {"revoked": ["later", "done"], "ended": ["later"], "unknown": []}
    (other,) = submit(1)
    assert "2 tasks revoked, 1 of them waited" in fleet("cancel", other, "done").stderr
    story = json.loads(fleet("why", "later", "--json").stdout)
    assert story["state"] == "revoked"
    assert client.get(keys.result("done")) == b'{"status": "SUCCESS", "result": {"status": "ok"}}'
    fleet("cancel", code=2)


def test_many_are_cancelled_at_once_but_those_that_a_worker_holds(client: redis.Redis) -> None:
    names = ["t0", "t1", *submit(48)]
    for task_id in names[:2]:
        message = json.dumps({"headers": {"id": task_id}, "properties": {}, "body": ""})
        client.hset(keys.unacked(), f"tag-{task_id}", f"{RESEARCH}\n{message}")
    answer = json.loads(fleet("cancel", *names, "--json").stdout)
    assert answer["ended"] == names[2:]
    assert not client.exists(keys.result("t0"))
    assert client.zcard(keys.revoked()) == 50


def test_the_line_of_a_revoked_task_is_a_failed_one_that_can_be_retried(client: redis.Redis) -> None:
    (mine,) = submit(1)
    fleet("cancel", mine)
    with open_collector(config.current()) as collector:
        found = collector.fetch([mine])
    assert (found[mine]["status"], found[mine]["error"]["type"]) == ("failed", "TaskRevokedError")


@pytest.mark.parametrize("is_known_by", ["its workers", "its producer"])
def test_a_task_of_a_pool_that_was_taken_out_of_the_settings_is_found_and_ends_when_it_is_cancelled(
    client: redis.Redis, is_known_by: str
) -> None:
    gone = keys.queue("gone")
    if is_known_by == "its workers":
        client.sadd(keys.binding("celery"), "\x06\x16".join((gone, "", gone)))
    else:
        client.zadd(keys.waiting(2), {gone: 0})
    names = ["a", "b", "c", "d", "e"]
    for name, place in zip(names, [queues.list_key(gone, 2)] * 4 + ["gone"], strict=True):
        message = envelope(
            task_id=name, queue=gone, priority=2, headers=task_headers(name), body=b'[[],{"prompt":"x"},{}]'
        )
        client.lpush(place, message)
    found = json.loads(fleet("tasks", "--state", "waiting", "--json").stdout)["tasks"]
    assert {one["task_id"]: one["pool"] for one in found} == dict.fromkeys(names, "gone")
    for ids in (["a"], names[1:]):  # a few are sought inside Redis, many are read
        answer = json.loads(fleet("cancel", *ids, "--json").stdout)
        assert answer == {"revoked": ids, "ended": ids, "unknown": []}
        assert b"REVOKED" in client.get(keys.result(ids[0]))  # type: ignore[operator]


@pytest.mark.parametrize("others", [0, 9])
def test_an_id_that_nobody_knows_is_told_and_does_not_count_but_what_is_on_its_way_under_it_does_not_start(
    client: redis.Redis, others: int
) -> None:
    waiting = submit(others)
    assert json.loads(fleet("cancel", "typo", "typo", *waiting, "--json", code=0 if others else 1).stdout) == {
        "revoked": waiting,
        "ended": waiting,
        "unknown": ["typo"],
    }
    assert not client.exists(keys.result("typo")) and is_revoked(client, "typo")
    said = fleet("cancel", *(f"typo-{n}" for n in range(8)), code=1).stderr
    assert (
        said.startswith("fleet: 8 tasks unknown, with no message and no result: 'typo-0', ") and "revoked" not in said
    )
    assert "on its way does not start" in said and "'typo-7'" not in said
    queued = {"headers": {"id": "slow"}, "properties": {}, "body": ""}
    client.lpush(keys.over(), json.dumps(queued))  # put aside: a worker has yet to end it
    assert json.loads(fleet("cancel", "slow", "--json").stdout)["unknown"] == []
    park(client, "parked", in_s=600)
    assert json.loads(fleet("cancel", "parked", "--json").stdout)["ended"] == ["parked"]


def submit(count: int, **fields: Any) -> list[str]:
    return list(submit_many({"prompt": "x", "pool": "research", **fields} for _ in range(count)))


def test_tasks_are_cancelled_by_what_they_are_and_nothing_else_is_touched(client: redis.Redis) -> None:
    from celery.exceptions import TaskRevokedError

    from fleet.engine.tasks import submit_task

    nightly = submit(300, tenant="acme", metadata={"job": "nightly", "n": 7})
    others = submit(5, tenant="acme") + submit(5, pool="review", tenant="other", metadata={"job": "nightly"})
    (held,) = submit(1, tenant="acme", priority="critical", metadata={"job": "nightly"})
    taken: Any = client.rpop(flow_keys.flow(flow_of("acme"), queues.list_key(RESEARCH, 0)))
    client.hset(keys.unacked(), "tag", RESEARCH.encode() + b"\n" + taken)
    later = submit_task.apply_async(("x",), {"pool": "research", "tenant": "acme", "metadata": {"job": "nightly"}},
                                    countdown=600)  # fmt: skip
    args = ("cancel", "--tenant", "acme", "--metadata", "job=nightly")
    assert json.loads(fleet(*args, "--dry-run", "--json").stdout) == {"waiting": 301, "held": [held], "stopped": False}
    assert "expected --yes to cancel 301 waiting tasks" in fleet(*args, code=2).stderr
    assert not client.exists(keys.result(nightly[0]))
    answer = json.loads(fleet(*args, "--yes", "--json").stdout)
    assert answer == {"waiting": 301, "held": [held], "stopped": False}
    (event,) = json.loads(fleet("events", "--name", "task_cancelled", "--json").stdout)["events"]
    assert event["fields"].items() >= {"chosen_by": "tenant+metadata", "ended": "301"}.items()
    assert "acme" not in str(event) and "nightly" not in str(event), "an event names nobody"
    assert [client.exists(keys.result(task_id)) for task_id in (*nightly, later.id)] == [1] * 301
    assert [client.exists(keys.result(task_id)) for task_id in (*others, held)] == [0] * 11
    with pytest.raises(TaskRevokedError):
        later.get(timeout=5)
    assert client.llen(queues.list_key(RESEARCH, 2)) == 5
    assert client.llen(queues.list_key(keys.queue("review"), 2)) == 5
    assert (client.hlen(keys.parked()), client.hlen(keys.unacked())) == (0, 1)
    assert is_revoked(client, held)
    assert "0 waiting tasks cancelled" in fleet("cancel", "--metadata", "n=8", "--yes").stderr
    assert "5 waiting tasks would be cancelled" in fleet("cancel", "--pool", "review", "--dry-run").stderr
    for wrong in (("--metadata", "job"), ("t1", "--pool", "research"), ("t1", "--dry-run")):
        fleet("cancel", *wrong, code=2)


def test_what_waits_for_a_pool_that_is_gone_or_in_a_queue_of_its_bare_name_is_cancelled_too(
    client: redis.Redis,
) -> None:
    ids = submit(4, tenant="acme")
    wanted = client.lrange(flow_keys.flow(flow_of("acme"), queues.list_key(RESEARCH, 2)), 0, -1)
    purge(client, RESEARCH, is_meant=True)
    gone = keys.queue("gone")
    client.lpush(
        queues.list_key(gone, 2), *(text.replace(b'"pool":"research"', b'"pool":"gone"') for text in wanted[:2])
    )  # type: ignore[index]
    client.zadd(keys.waiting(2), {gone: 0})
    client.lpush("research", wanted[2])  # type: ignore[index]
    client.lpush("research\x06\x169", wanted[3])  # type: ignore[index]
    fleet("cancel", "--pool", "nobody", "--yes", code=2)
    assert "4 waiting tasks would be cancelled" in fleet("cancel", "--tenant", "acme", "--dry-run").stderr
    assert "2 waiting tasks would be cancelled" in fleet("cancel", "--pool", "research", "--dry-run").stderr
    assert "2 waiting tasks cancelled" in fleet("cancel", "--pool", "gone", "--yes").stderr
    assert "2 waiting tasks cancelled" in fleet("cancel", "--tenant", "acme", "--yes").stderr
    assert client.exists(*map(keys.result, ids)) == 4
    assert not client.exists("research", "research\x06\x169", queues.list_key(gone, 2))


def test_a_pool_is_cancelled_in_bulk_and_its_keys_may_be_submitted_again(client: redis.Redis) -> None:
    ids = submit(2000)
    (keyed,) = submit_many([{"prompt": "x", "pool": "research"}], idempotency_keys=["k"])
    assert json.loads(fleet("cancel", "--pool", "research", "--yes", "--json").stdout)["waiting"] == 2001
    assert client.llen(queues.list_key(RESEARCH, 2)) == 0
    assert client.exists(*map(keys.result, ids)) == 2000
    (again,) = submit_many([{"prompt": "x", "pool": "research"}], idempotency_keys=["k"])
    assert again == keyed
    assert (client.exists(keys.result(keyed)), client.llen(queues.list_key(RESEARCH, 2))) == (0, 1)
    assert client.zcard(keys.revoked()) == 0


def park_paid(client: redis.Redis) -> str:
    """Park a task that three calls have cost something, and return its id."""
    (task_id,) = submit(1)
    place = queues.list_key(RESEARCH, 2)
    message = json.loads(client.rpop(place))  # type: ignore[arg-type]
    before = Before(attempts=3, failed={"ProviderUnavailable": 2}, usage=Usage(input_tokens=70), parked=2)
    message["headers"][BEFORE] = before.model_dump(mode="json")
    text = json.dumps(message)
    call = parked.publish_later_call(RESEARCH, place, 2, text, task_id=task_id, at=time.time() + 600)
    run_script(client, parked.PUBLISH_LATER, *call)
    return task_id


def counted(client: redis.Redis) -> tuple[int, int, int, int]:
    """Return attempts, tokens, revoked tasks and results."""
    totals = all_counted(client)
    counters = (catalogue.ATTEMPTS, catalogue.INPUT_TOKENS, catalogue.REVOKED, catalogue.COMPLETIONS)
    return tuple(totals.get(counter.name, 0) for counter in counters)  # type: ignore[return-value]


def bring_back(client: redis.Redis) -> None:
    """Put back what a process that has died held, as a sweep does."""
    for tag, entry in client.hgetall(keys.unacked()).items():  # type: ignore[union-attr]
        place, _, message = entry.partition(b"\n")
        client.rpush(place, message)
        client.hdel(keys.unacked(), tag)


@pytest.mark.parametrize("dies_at", ["", "_count", "_is_told", "acknowledge"])
def test_what_a_parked_task_has_cost_is_counted_once_wherever_the_cancel_dies(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    park_paid(client)

    def die(*_: object) -> None:
        raise SystemExit(137)

    if dies_at:
        with monkeypatch.context() as patch:
            patch.setattr(cancelling if dies_at == "acknowledge" else Canceller, dies_at, die)
            fleet("cancel", "--pool", "research", "--yes", code=137)
        assert client.hlen(keys.unacked()) == 1
        bring_back(client)
    fleet("cancel", "--pool", "research", "--yes")
    assert counted(client) == (3, 70, 1, 0)
    assert client.hlen(keys.unacked()) == 0


def test_what_a_task_has_cost_is_counted_when_its_id_was_revoked_before_it_is_met(client: redis.Redis) -> None:
    task_id = park_paid(client)
    assert json.loads(fleet("cancel", task_id, "--json").stdout)["ended"] == [task_id]
    assert counted(client) == (0, 0, 0, 0)
    fleet("cancel", "--pool", "research", "--yes")  # as a worker does with what is over
    assert counted(client) == (3, 70, 1, 0)


def test_what_a_task_has_cost_is_in_its_result_and_not_counted_beside_it(client: redis.Redis) -> None:
    task_id = park_paid(client)
    client.set(keys.result(task_id), result_meta(BotResult(task_id=task_id, status="ok", finished_at=1.0)))
    fleet("cancel", "--pool", "research", "--yes")  # its message came back after its worker died
    assert counted(client) == (0, 0, 0, 0)


def test_a_worker_counts_what_a_revoked_task_has_cost_before_its_message_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fleet.engine.process.request import CeleryRequest, Request

    done: list[str] = []
    request = Request.__new__(Request)
    request._request_dict = {"id": "t", BEFORE: {"attempts": 1}}
    task = SimpleNamespace(count_before=lambda task_id, headers: done.append(f"counted {task_id}"))
    monkeypatch.setattr(Request, "task", task, raising=False)
    monkeypatch.setattr(Request, "id", "t", raising=False)
    monkeypatch.setattr(CeleryRequest, "_announce_revoked", lambda *_: done.append("acknowledged"))
    monkeypatch.setattr("fleet.engine.process.request.free_key", lambda _: None)
    request._announce_revoked("revoked", False, None, False)
    assert done == ["counted t", "acknowledged"]
