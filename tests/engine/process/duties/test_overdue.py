"""What is over while it waits, with a real worker: behind a closed gate, parked, in thousands."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery, chord
from celery.exceptions import TaskRevokedError
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.config import PoolSettings
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import BEFORE, fresh_envelope, task_body
from fleet.engine.messages.producer import submit_many
from fleet.engine.outcomes.results import Done
from fleet.engine.process.duties import overdue
from fleet.engine.process.duties.overdue import Overdue
from fleet.engine.transport.parking import parked
from fleet.errors import FleetError
from fleet.models import BotTask
from fleet.outcome import Before
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect, run_script
from fleet.usage import Usage
from tests.counted import counted
from tests.engine.conftest import StartWorker
from tests.engine.process.test_canvas import app, own
from tests.waiting import wait_until

__all__ = ["app", "own"]

#: Generous: the machine may be slow.
WAIT_S = 60.0
QUEUE = keys.queue("research")
LIST = queues.list_key(QUEUE, 2)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


async def refuse(task_id: str, error: FleetError, headers: Mapping[str, Any], body: bytes) -> Done:
    raise NotImplementedError


def total(client: redis.Redis, counter: catalogue.Counter) -> int:
    return counted(client, counter.name)


def test_what_is_over_behind_a_closed_gate_ends_in_bulk_and_what_is_not_waits_on(
    own: None, start_worker: StartWorker, app: object, client: redis.Redis, redis_url: str
) -> None:
    from fleet.engine.tasks import submit_task

    client.set(keys.gate(QUEUE), -1)
    plain = Celery(broker=redis_url, backend=redis_url)
    foreign = [plain.send_task("fleet.submit_task", ["x"], queue=QUEUE, expires=seconds) for seconds in (1, 3, 600)]
    ours = app.send_task("own.count", [[]], queue=QUEUE, expires=2)  # type: ignore[attr-defined]
    why = lambda: CliRunner().invoke(main, ["why", foreign[0].id]).output  # noqa: E731
    wait_until(lambda: "it has expired" in why(), WAIT_S, why)
    worker = start_worker("-I", "own")
    soon = time.time() + 2
    many = list(submit_many({"prompt": "x", "pool": "research", "expires_at": soon} for _ in range(1000)))
    waits = submit_task.delay("What is 1+1?", pool="research", expires_at=time.time() + 600)
    began_before = submit_task.delay("x", pool="research", expires_at=soon)  # it comes back after a call, and is parked
    text = client.lpop(LIST)
    assert isinstance(text, bytes)
    message = json.loads(text)
    before = Before(attempts=2, failed={"ProviderUnavailable": 1}, usage=Usage(input_tokens=50), parked=1)
    message["headers"][BEFORE] = before.model_dump(mode="json")
    call = parked.publish_later_call(
        QUEUE, LIST, 2, json.dumps(message), task_id=began_before.id, at=time.time() + 3600
    )
    run_script(client, parked.PUBLISH_LATER, *call)
    option = submit_task.apply_async(("x",), {"pool": "research"}, countdown=3600,
                                     expires=datetime.fromtimestamp(soon, UTC))  # fmt: skip
    revoked = submit_task.delay("x", pool="research")
    member = submit_task.si("x", pool="research")
    whole = chord([member, submit_task.si("y", pool="review")], app.signature("own.count")).apply_async()  # type: ignore[attr-defined]
    revoked.revoke()
    in_chord = next(child for child in whole.parent.children if child.id != whole.id)
    in_chord.revoke()
    for task in (option, began_before, submit_task.AsyncResult(many[0]), submit_task.AsyncResult(many[-1])):
        result = task.get(timeout=WAIT_S)
        assert (result.status, result.error.type) == ("failed", "Expired"), worker.log
        assert "expected a worker before" in result.error.message
    for result in (one.get(timeout=WAIT_S) for one in foreign[:2]):
        assert (result["status"], result["error"]["type"]) == ("failed", "Expired"), worker.log
    with pytest.raises(TaskRevokedError, match="expired"):
        ours.get(timeout=WAIT_S)
    ended = began_before.get(timeout=5)
    assert (ended.attempts, ended.usage.input_tokens, ended.parked) == (2, 50, 1)
    wait_until(
        lambda: client.llen(LIST) == 1 and client.llen(QUEUE) == 1,
        WAIT_S,
        lambda: f"only one waits on; log:\n{worker.log[-3000:]}",
    )
    with pytest.raises(TaskRevokedError):
        revoked.get(timeout=WAIT_S)
    wait_until(whole.ready, WAIT_S, lambda: f"its chord hears of it; log:\n{worker.log[-3000:]}")
    assert whole.state == "FAILURE"
    assert client.exists(*map(keys.result, many)) == 1000
    assert client.hlen(keys.parked()) == 0
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "all is acknowledged")
    assert total(client, catalogue.ATTEMPTS) >= 2
    assert waits.state == "PENDING"
    client.delete(keys.gate(QUEUE))
    client.xadd(keys.bell(), {"x": 1})
    assert waits.get(timeout=WAIT_S).answer == "2"
    attempts, late = total(client, catalogue.ATTEMPTS), [uuid.uuid4().hex for _ in range(600)]
    body, ended = task_body(BotTask(prompt="x"), "research"), time.time() - 30
    client.lpush(LIST, *(
        fresh_envelope(task_id=task_id, queue=QUEUE, priority=2, body=body, queued_at=ended, expires_at=ended)
        for task_id in late
    ))  # fmt: skip
    fresh = submit_task.delay("What is 2+2?", pool="research")  # in an open queue, behind all that is over
    assert fresh.get(timeout=WAIT_S).answer == "4"
    wait_until(lambda: client.exists(*map(keys.result, late)) == 600, WAIT_S, lambda: f"all ended; log:\n{worker.log}")
    for task_id in (late[0], late[-1]):
        assert submit_task.AsyncResult(task_id).get(timeout=5).error.type == "Expired"
    assert total(client, catalogue.ATTEMPTS) == attempts + 1  # nothing was sent for them
    wait_until(lambda: "ended expired tasks=" in worker.log, WAIT_S, "the log tells, after the last of them")
    wait_until(lambda: client.hlen(keys.unacked()) == client.llen(keys.over()) == 0, WAIT_S, "all is acknowledged")
    assert worker.alive


def test_ends_are_sought_in_shut_queues_for_a_moment_and_the_next_worker_goes_on_with_the_others(
    fleet_env: None, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {name: PoolSettings(bots=1) for name in ("full", "gated", "held", "open", "unserved")}
    settings = config.current().model_copy(update={"pools": pools})
    client.set(keys.gate(keys.queue("gated")), 1)
    client.set(keys.hold(keys.queue("held")), "{}")
    client.set(keys.unserved(), json.dumps(["unserved"]))
    client.set(keys.room(keys.queue("full")), "x")
    client.zadd(keys.parked_order(keys.queue("full")), {"later": time.time() + 600})
    sought: list[str] = []

    def look(_: redis.Redis, queue: str) -> Iterator[bool]:
        for _ in range(3):
            sought.append(queue)
            yield False

    monkeypatch.setattr(overdue, "seek_end", look)
    monkeypatch.setattr(overdue, "SEEK_FOR_S", 0.0)
    for _ in range(6):
        Overdue(settings, refuse)._seek(client)
        Overdue(settings, refuse)._seek(client)  # not its turn
        client.delete(keys.turn("ends"))
    assert sought == [keys.queue(pool) for pool in ("gated", "held", "unserved")] * 2, "one step each, in turn"
    assert client.ttl(keys.turn("ends:place")) > 0
