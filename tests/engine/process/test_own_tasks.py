"""Plain Celery tasks beside the bots: they run in threads and keep all that Celery promises them."""

from __future__ import annotations

import datetime
import signal
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from celery import Celery

from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until

WAIT_S = 30
TASKS = """
import datetime, time, uuid
from celery.exceptions import Reject
from fleet import app
seen = []

@app.task(name="own.typed")
def typed(when, ident):
    return [type(when).__name__, type(ident).__name__, when.year]

@app.task(name="own.fails")
def fails():
    raise ValueError("as it should")

@app.task(name="own.exits")
def exits():
    raise SystemExit(1)

@app.task(name="own.retries", bind=True)
def retries(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries

@app.task(name="own.rejects", bind=True)
def rejects(self):
    seen.append(self.request.id)
    if len(seen) == 1:
        raise Reject("not here", requeue=True)
    return len(seen)

@app.task(name="own.early", acks_late=False)
def early():
    return "early"

@app.task(name="own.sleeps")
def sleeps(path):
    import pathlib
    pathlib.Path(path + ".begun").touch()
    while not pathlib.Path(path).exists():
        time.sleep(0.05)
"""


def test_own_tasks_return_fail_retry_reject_and_are_seen_by_inspect_and_events(
    start_worker: StartWorker, redis_url: str, plain: Celery, tmp_path: Path
) -> None:
    (tmp_path / "with_tasks.py").write_text(TASKS)
    worker = start_worker("-E", app="with_tasks")
    events: list[str] = []

    def send(name: str, *args: object):  # type: ignore[no-untyped-def]
        return plain.send_task(name, args=args)

    with plain.connection() as connection:
        receiver = plain.events.Receiver(connection, handlers={"*": lambda event: events.append(event["type"])})
        with receiver.consumer_context() as (context, _, _):

            def heard(*wanted: str) -> bool:
                with suppress(TimeoutError):
                    context.drain_events(timeout=1)
                return set(wanted) <= set(events)

            wait_until(lambda: heard("worker-heartbeat"), WAIT_S, "the first event")
            typed = send("own.typed", datetime.datetime(2026, 1, 2), uuid.uuid4())
            assert typed.get(timeout=WAIT_S) == ["datetime", "UUID", 2026], worker.log
            with pytest.raises(ValueError, match="as it should"):
                send("own.fails").get(timeout=WAIT_S)
            with pytest.raises(RuntimeError, match="return or to raise an Exception, got SystemExit"):
                send("own.exits").get(timeout=WAIT_S)
            assert send("own.retries").get(timeout=WAIT_S) == 2
            assert send("own.rejects").get(timeout=WAIT_S) == 2
            assert send("own.early").get(timeout=WAIT_S) == "early"
            kinds = [f"task-{kind}" for kind in ("received", "started", "succeeded", "failed", "retried", "rejected")]
            wait_until(lambda: heard(*kinds), WAIT_S, f"{kinds}; got {set(events)}")
    release = tmp_path / "release"
    sleeping = send("own.sleeps", str(release))

    def active() -> list[str]:
        replies = plain.control.inspect(timeout=2, limit=1).active() or {}
        return [task["id"] for tasks in replies.values() for task in tasks]

    wait_until(lambda: active() == [sleeping.id], WAIT_S, "the sleeping task is active")
    release.touch()
    sleeping.get(timeout=WAIT_S)
    with connect(redis_url) as redis:
        wait_until(lambda: redis.hlen("fleet:unacked") == 0, WAIT_S, "everything is acknowledged")
    assert worker.alive


def test_a_task_that_ends_while_the_worker_stops_is_acknowledged_at_once_not_with_the_last_one(
    start_worker: StartWorker, redis_url: str, plain: Celery, tmp_path: Path
) -> None:
    (tmp_path / "with_tasks.py").write_text(TASKS)
    worker = start_worker(app="with_tasks")
    early, late = tmp_path / "early", tmp_path / "late"
    tasks = [plain.send_task("own.sleeps", args=[str(path)]) for path in (early, late)]
    begun = [path.with_suffix(".begun") for path in (early, late)]
    wait_until(lambda: every(path.exists() for path in begun), WAIT_S, "both have begun")
    with connect(redis_url) as redis:
        worker.send(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.log, WAIT_S, "the worker stops")
        early.touch()
        wait_until(lambda: redis.hlen("fleet:unacked") == 1, WAIT_S, "the one that ended is acknowledged")
        assert worker.alive
        late.touch()
        assert worker.wait() == 0
        assert redis.hlen("fleet:unacked") == 0
        assert [task.get(timeout=WAIT_S) for task in tasks] == [None, None]
