"""Celery's result backend as Fleet changes it: chords whose worker died, cancelled tasks, typed results."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, chord
from celery.app.task import Context
from celery.exceptions import TaskRevokedError

from fleet.engine.outcomes.backend import BACKENDS, BotResults, ChordClaimed, never_wait
from fleet.engine.outcomes.stored import ending_in, read_result, result_meta, revoked_meta
from fleet.errors import BadAnswer
from fleet.models import BotResult, TaskError
from fleet.store import keys
from fleet.store.client import connect
from tests.waiting import wait_until

FAILED = BotResult(
    task_id="t", status="failed", error=TaskError(type="BadAnswer", message="no digits", blame="bot"), finished_at=1.0
)
# Celery's own call: redis-py would have another one.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds of the claim that Celery itself would leave behind.
TEN_MINUTES_S = 600


@pytest.fixture
def app(fleet_env: None, redis_url: str) -> Iterator[Celery]:
    celery = Celery("test", broker=redis_url, backend=redis_url, set_as_current=False)
    celery.loader.override_backends = BACKENDS
    yield celery
    close_backend(celery)
    celery.close()


def close_backend(celery: Celery) -> None:
    """Close this thread's connections: results that go later must find nothing to unsubscribe from."""
    consumer = celery.backend.result_consumer
    consumer.stop()
    consumer.subscribed_to.clear()
    celery.backend.client.connection_pool.disconnect()


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return connect(redis_url)


class Chord:
    """A chord of two members that has been submitted; its members are played by hand."""

    def __init__(self, celery: Celery, client: redis.Redis) -> None:
        self.celery, self.client = celery, client
        member = celery.signature("own.member")
        self.body = chord([member, member], celery.signature("own.body")).apply_async()
        messages = [json.loads(raw) for raw in client.lrange("celery", 0, -1)]  # type: ignore[union-attr]
        self.requests = [_request(message) for message in reversed(messages)]
        client.delete("celery")

    @property
    def claim(self) -> str:
        return f"celery-taskset-meta-{self.requests[0].group}.c"

    def end(self, position: int, state: str = "SUCCESS", value: Any = 1) -> None:
        self.celery.backend.on_chord_part_return(self.requests[position], state, value)

    def bodies(self) -> int:
        return int(self.client.llen("celery"))  # type: ignore[arg-type]


def _request(message: dict[str, Any]) -> Any:
    canvas = json.loads(base64.b64decode(message["body"]))[2]
    return Context({**message["headers"], **canvas}, called_directly=False, delivery_info={})


def in_thread_that_never_waits(celery: Celery, work: Any) -> list[BaseException]:
    """Run work as a thread does that sends what follows bot tasks; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        never_wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)
        close_backend(celery)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return raised


def test_a_chord_that_a_dead_worker_has_claimed_is_not_done_until_the_claim_is_free(
    app: Celery, client: redis.Redis
) -> None:
    one = Chord(app, client)
    one.end(0)
    client.set(one.claim, "a dead worker", ex=TEN_MINUTES_S)
    assert [type(error) for error in in_thread_that_never_waits(app, lambda: one.end(1))] == [ChordClaimed]
    assert one.bodies() == 0
    client.delete(one.claim)
    assert in_thread_that_never_waits(app, lambda: one.end(1)) == []
    assert (one.bodies(), client.get(one.claim)) == (1, b"done")
    assert in_thread_that_never_waits(app, lambda: one.end(1)) == []
    assert one.bodies() == 1


def test_a_chord_whose_body_the_other_worker_has_sent_is_done(app: Celery, client: redis.Redis) -> None:
    one = Chord(app, client)
    one.end(0)
    client.set(one.claim, "a living worker", ex=TEN_MINUTES_S)
    assert [type(error) for error in in_thread_that_never_waits(app, lambda: one.end(1))] == [ChordClaimed]
    client.set(one.claim, "done")
    assert in_thread_that_never_waits(app, lambda: one.end(1)) == []
    assert one.bodies() == 0


def test_a_users_own_task_waits_in_its_thread_for_a_claim_to_become_free(app: Celery, client: redis.Redis) -> None:
    one = Chord(app, client)
    one.end(0)
    client.set(one.claim, "a dead worker", ex=TEN_MINUTES_S)

    def run() -> None:
        one.end(1)
        close_backend(app)

    member = threading.Thread(target=run, daemon=True)
    member.start()
    wait_until(lambda: client.exists(f"celery-taskset-meta-{one.requests[0].group}.d"), 10, "its part is noted")
    assert member.is_alive() and one.bodies() == 0
    client.delete(one.claim)
    member.join(10)
    assert one.bodies() == 1 and not member.is_alive()


def test_a_claim_lives_seconds_so_that_the_next_worker_need_not_wait_ten_minutes(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Chord(app, client)
    one.end(0)
    lives: list[int] = []
    app.conf.task_publish_retry_policy = {"max_retries": 100, "interval_step": 0.2, "interval_max": 2.0}

    def publish(publish: Any, *args: Any, **kwargs: Any) -> Any:
        lives.append(int(client.ttl(one.claim)))  # type: ignore[arg-type]
        return publish(*args, **kwargs)

    monkeypatch.setattr(app.amqp, "_retry_publish", publish)
    one.end(1)
    assert one.bodies() == 1 and 0 < lives[0] <= 10


def test_a_cancelled_member_fails_its_chord_the_rest_of_its_chain_and_calls_its_errbacks(
    app: Celery, client: redis.Redis
) -> None:
    one = Chord(app, client)
    one.end(0)
    later = app.signature("own.body").set(task_id="later")
    told = app.signature("own.told").set(task_id="told")
    one.requests[1].chain, one.requests[1].errbacks = [dict(later)], [dict(told)]
    app.backend.mark_as_revoked(one.requests[1].id, "revoked", request=one.requests[1])
    for result in (app.AsyncResult(one.requests[1].id), app.AsyncResult("later")):
        assert result.state == "REVOKED"
        with pytest.raises(TaskRevokedError):
            result.get(timeout=5)
    assert app.AsyncResult(one.body.id).state == "FAILURE"
    assert [json.loads(raw)["headers"]["id"] for raw in client.lrange("celery", 0, -1)] == ["told"]  # type: ignore[union-attr]


def test_a_chord_with_a_group_in_its_header_fails_for_a_failed_bot_too(app: Celery, client: redis.Redis) -> None:
    one = Chord(app, client)
    group = app.GroupResult(one.requests[0].group, [app.AsyncResult(request.id) for request in one.requests])
    client.set(
        f"celery-taskset-meta-{group.id}", app.backend.encode({"result": app.GroupResult(group.id, [group]).as_tuple()})
    )
    good = BotResult(task_id=one.requests[0].id, status="ok", answer="4", finished_at=1.0)
    bad = FAILED.model_copy(update={"task_id": one.requests[1].id})
    for result in (good, bad):
        client.set(keys.result(result.task_id), result_meta(result))
    one.end(0, value=good.model_dump(mode="json"))
    one.end(1, "FAILURE", BadAnswer("no digits"))
    assert (app.AsyncResult(one.body.id).state, one.bodies()) == ("FAILURE", 0)


def test_results_of_bots_are_typed_on_every_road_of_the_backend_and_others_are_left_alone(
    app: Celery, client: redis.Redis
) -> None:
    client.set(keys.result("t"), result_meta(FAILED))
    assert isinstance(app.backend, BotResults)
    result = app.AsyncResult("t")
    assert (result.state, result.result, result.get(timeout=5), result.info) == ("SUCCESS", FAILED, FAILED, FAILED)
    app.backend.store_result("own", FAILED, "SUCCESS")
    assert app.AsyncResult("own").get(timeout=5) == FAILED.model_dump(mode="json")


def test_a_strict_failure_raises_its_typed_error_and_keeps_the_typed_result(app: Celery, client: redis.Redis) -> None:
    raw = result_meta(FAILED, strict=True)
    client.set(keys.result("t"), raw)
    with pytest.raises(BadAnswer, match="no digits"):
        app.AsyncResult("t").get(timeout=5)
    assert (app.AsyncResult("t").state, read_result(raw)) == ("FAILURE", FAILED)
    good = FAILED.model_copy(update={"status": "degraded", "error": None, "answer": "4"})
    assert result_meta(good, strict=True) == result_meta(good)


def test_a_cancelled_task_is_revoked_and_get_raises_that(app: Celery, client: redis.Redis) -> None:
    raw = revoked_meta("t", reason="by the operator", at=1.0)
    client.set(keys.result("t"), raw)
    assert app.AsyncResult("t").state == "REVOKED"
    with pytest.raises(TaskRevokedError, match="by the operator"):
        app.AsyncResult("t").get(timeout=5)
    assert str(getattr(ending_in(raw), "reason", None)) == "by the operator"
    assert read_result(raw) is None and ending_in(None) is None and ending_in(b"{") is None
