"""Chains, chords and links of bot tasks: what follows a task comes, once, whatever happens to its worker or to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from fleet.engine.outcomes.backend import BACKENDS
from fleet.engine.outcomes.follow_ups import has_canvas, request_of
from fleet.engine.process.canvas import without_canvas
from fleet.errors import InvalidTask
from fleet.models import BotResult
from fleet.signals.catalogue import ATTEMPTS, COMPLETIONS, DUPLICATES
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import counted
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

WAIT_S = 60
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Own tasks, and a worker that kills itself (-9) before it sends the first body of a chord that it has claimed.
OWN = """
import os, signal
from fleet import app
from fleet.engine.outcomes.backend import BotResults

@app.task(name="own.count")
def count(results): return len(results)
@app.task(name="own.note")
def note(result): return f"noted {result['answer']}"
@app.task(name="own.told")
def told(task_id): return task_id

if os.environ.get("DIES_WITH_A_CLAIM"):
    die = lambda **_: os.kill(os.getpid(), signal.SIGKILL)
    BotResults._chord_claim_extend_script = property(lambda backend: die)
"""
NEVER = datetime(2300, 1, 1, tzinfo=UTC)


@pytest.fixture
def own(fleet_env: None, tmp_path: Path) -> None:
    """Tasks of the user's own."""
    (tmp_path / "own.py").write_text(OWN)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return connect(redis_url)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """A client that reads results as Fleet's own app does, and knows of the tasks no more than their names."""
    celery = Celery(broker=redis_url, backend=redis_url, set_as_current=False)
    celery.loader.override_backends = BACKENDS
    yield celery
    consumer = celery.backend.result_consumer
    consumer.stop()
    consumer.subscribed_to.clear()
    celery.backend.client.connection_pool.disconnect()
    celery.close()


def bot(app: Celery, *args: Any, **kwargs: Any) -> Any:
    return app.signature("fleet.submit_task", args=args, kwargs=kwargs)


def total(client: redis.Redis, counter: str) -> int:
    return counted(client, counter)


def failure(result: AsyncResult) -> str:
    """Wait for a result that is a failure, and return the type of its error."""
    wait_until(result.ready, WAIT_S, f"the end of {result.id}")
    assert result.state in ("FAILURE", "REVOKED"), result.result
    return type(result.result).__name__


def test_a_chord_and_a_chain_go_on_when_their_worker_is_killed_with_a_claim_and_nothing_is_paid_twice(
    own: None, start_worker: StartWorker, app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "1")
    dies = start_worker("-I", "own", env={"DIES_WITH_A_CLAIM": "1"})
    later = chain(bot(app, "Which is larger?"), app.signature("own.note"))
    both = chord([bot(app, f"What is 2+{n}?") for n in range(3)], later).apply_async()
    dies.wait()
    one_more = chain(bot(app, "What is 2+2?"), bot(app, "Is this right?"), app.signature("own.note")).apply_async()
    for tag in client.zrange(keys.unacked_index(), 0, -1):  # type: ignore[union-attr]
        client.zadd(keys.unacked_index(), {tag: 0})  # their leases are over, without waiting for it
    lives = start_worker("-I", "own")
    for result in (both, one_more):
        wait_until(result.ready, WAIT_S, lambda: f"it went on; log:\n{lives.log[-3000:]}")
        assert str(result.result).startswith("noted ")
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "everything is acknowledged")
    assert [total(client, counter.name) for counter in (COMPLETIONS, DUPLICATES, ATTEMPTS)] == [6, 0, 6]


def test_members_that_are_refused_expired_poison_or_revoked_fail_their_chord_and_call_their_errbacks(
    own: None, start_worker: StartWorker, app: Celery, client: redis.Redis
) -> None:
    worker = start_worker("-I", "own")
    past = datetime.now(UTC) - timedelta(minutes=1)
    members = {
        "malformed": bot(app, "x", nonsense=1),
        "unknown": app.signature("fleet.unheard_of"),
        "never": bot(app, "x").set(eta=NEVER),
        "expired": bot(app, "x").set(expires=past),
        "revoked": bot(app, "x").set(countdown=3),
        "poison": bot(app, "x").set(queue="nobody-serves-it"),
    }
    told, bodies, ids = {}, {}, {}
    for name, member in members.items():
        told[name] = app.signature("own.told").set(task_id=f"told-{name}")
        member.link_error(told[name])
        bodies[name] = chord([bot(app, "What is 2+2?"), member], app.signature("own.count")).apply_async()
        ids[name] = bodies[name].parent.children[1].id
    app.control.revoke(ids["revoked"])
    poison = client.rpop("nobody-serves-it")
    assert isinstance(poison, bytes)
    client.lpush(keys.poison(), poison)
    assert {name: failure(body) for name, body in bodies.items()} == dict.fromkeys(members, "ChordError"), worker.log
    for name in members:
        assert app.AsyncResult(f"told-{name}").get(timeout=WAIT_S) == ids[name]
    for name in ("malformed", "unknown", "never", "expired", "poison"):
        result = app.AsyncResult(ids[name])
        assert (result.state, result.get(timeout=5).status) == ("SUCCESS", "failed")
    with pytest.raises(TaskRevokedError):
        app.AsyncResult(ids["revoked"]).get(timeout=5)


def test_results_have_one_type_on_every_road_and_what_cannot_follow_fails_at_once(
    own: None, start_worker: StartWorker, app: Celery
) -> None:
    worker = start_worker("-I", "own")
    many = group(bot(app, f"What is 2+{n}?") for n in range(2)).apply_async()
    called: list[Any] = []
    found = many.get(timeout=WAIT_S, callback=lambda task_id, value: called.append(value))
    one = many.children[0]
    assert found in (None, called)  # Celery hands them to the callback instead
    for value in (*called, *many.get(timeout=WAIT_S), one.get(timeout=5), one.result, app.AsyncResult(one.id).result):
        assert isinstance(value, BotResult)
    odd = chain(bot(app, "What is 2+2?"), bot(app, priority="urgent"), app.signature("own.note")).apply_async()
    assert failure(odd) == InvalidTask.__name__, worker.log
    assert odd.parent.get(timeout=WAIT_S).error.type == InvalidTask.__name__
    joined = chord([bot(app, "What is 2+2?"), bot(app, "What is 2+3?")], bot(app, "Add them.")).apply_async()
    assert joined.get(timeout=WAIT_S).status == "ok"


@pytest.mark.parametrize("body", [b"", b"{", b"5", b"[]", b'[[], {}, {"chain": [1]}]', b"\xff", b"[[], {}, 5]"])
def test_what_follows_is_read_from_any_message_and_left_out_of_what_is_queued_again(body: bytes) -> None:
    headers = {"id": "t", "group": "g"}
    request = request_of(headers, body)
    assert request["group"] == "g" and request.get("chain") in (None, [1])
    again = without_canvas(body)
    assert has_canvas(request_of(headers, again)) is False
    assert again == body or again.startswith(b"[[], {}")
