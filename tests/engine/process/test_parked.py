"""ETA and countdown tasks, and revoked ones, with real workers: what waits is nobody's; a mark holds without any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError

from fleet import config
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import counted
from tests.engine.conftest import StartWorker
from tests.engine.transport.test_parked import ripen
from tests.waiting import wait_until

WAIT_S = 60
TASKS = """
import pathlib
import time
from fleet import app

@app.task(name="own.touch", bind=True)
def touch(self, folder, name):
    (pathlib.Path(folder) / name).touch()
    return [time.time(), self.request.retries]

@app.task(name="own.again", bind=True)
def again(self, folder):
    pathlib.Path(folder, f"life-{self.request.retries}").touch()
    if self.request.retries < 1:
        raise self.retry(countdown=0.5)
    return self.request.retries
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def test_countdowns_survive_three_kills_of_the_only_worker_and_start_on_the_next_one(
    start_worker: StartWorker, plain: Celery, client: redis.Redis, tmp_path: Path
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "with_tasks.py").write_text(TASKS)
    worker = start_worker(app="with_tasks")
    later, prompts = {"countdown": 3600}, [f"What is {n}+1?" for n in range(50)]
    ours = [submit_task.apply_async((prompt,), {"pool": "research"}, **later) for prompt in prompts]
    theirs = [plain.send_task("fleet.submit_task", [prompt], {"pool": "research"}, **later) for prompt in prompts[:10]]
    own = [plain.send_task("own.touch", [str(tmp_path), f"own-{n}"], **later) for n in range(10)]
    wait_until(lambda: client.hlen(keys.parked()) == 70, WAIT_S, "all are parked")
    for _ in range(3):
        assert client.hlen(keys.unacked()) == client.zcard(keys.unacked_index()) == 0  # nobody renews anything
        worker.kill()
        worker = start_worker(app="with_tasks")
    listed = plain.control.inspect(timeout=10, limit=1).scheduled() or {}
    told = {row["request"]["id"]: row["request"] for rows in listed.values() for row in rows}
    assert set(told) == {task.id for task in (*ours, *theirs, *own)}, worker.log
    assert {row["args"] for row in told.values() if row["name"] != "own.touch"} == {"()"}  # no prompt is shown
    ripen(client, *(task.id for task in ours), queue=keys.queue("research"))
    ripen(client, *(task.id for task in (*theirs, *own)), queue="celery")
    results = [task.get(timeout=WAIT_S) for task in ours]
    assert [result.answer for result in results] == [str(n + 1) for n in range(50)]
    assert {result.attempts for result in results} == {1}
    assert {task.get(timeout=WAIT_S)["status"] for task in theirs} == {"ok"}
    assert [task.get(timeout=WAIT_S)[1] for task in own] == [0] * 10
    assert len(list(tmp_path.glob("own-*"))) == 10
    assert client.llen(keys.poison()) == 0
    assert counted(client, catalogue.COMPLETIONS.name) == 60


def test_a_task_revoked_while_no_worker_lives_never_starts_and_one_submitted_again_does(
    start_worker: StartWorker, plain: Celery, client: redis.Redis, tmp_path: Path
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "with_tasks.py").write_text(TASKS)
    queued = submit_task.delay("What is 1+1?", pool="research")
    later = submit_task.apply_async(("What is 1+2?",), {"pool": "research"}, countdown=3600)
    keyed = submit_task.delay("What is 1+3?", pool="research", idempotency_key="k")
    own = plain.send_task("own.touch", [str(tmp_path), "revoked"])
    other = submit_task.delay("What is 1+4?", pool="research")
    for task in (queued, later, keyed):
        task.revoke()
    submit_task.AsyncResult(own.id).revoke()
    for task in (queued, later, keyed, own):  # told at once: nobody works on them
        assert task.state == "REVOKED"
        with pytest.raises(TaskRevokedError):
            task.get(timeout=5)
    mistyped = submit_task.AsyncResult(f"{queued.id}x")
    mistyped.revoke()
    assert mistyped.state == "PENDING"  # as with Celery: nobody knows it
    assert client.zscore(keys.revoked(), mistyped.id) is not None
    again = submit_task.delay("What is 1+3?", pool="research", idempotency_key="k")
    assert again.id == keyed.id
    assert again.state == "PENDING"  # what its first submission came to is forgotten
    start_worker(app="with_tasks")
    assert other.get(timeout=WAIT_S).answer == "5"
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "all are met")
    wait_until(lambda: again.state == "SUCCESS", WAIT_S, "the one submitted again is answered")
    assert not (tmp_path / "revoked").exists()
    assert {task.state for task in (queued, later, own)} == {"REVOKED"}
    assert counted(client, catalogue.COMPLETIONS.name) == 2
    retried = plain.send_task("own.again", [str(tmp_path)])
    assert retried.get(timeout=WAIT_S) == 1
    doomed = plain.send_task("own.touch", [str(tmp_path), "doomed"], countdown=2)
    wait_until(lambda: client.hexists(keys.parked(), doomed.id), WAIT_S, "a plain client's task is parked")
    doomed.revoke()  # a broadcast that the worker hears and writes down
    wait_until(lambda: client.zscore(keys.revoked(), doomed.id) is not None, WAIT_S, "the mark")
    with pytest.raises(TaskRevokedError):
        doomed.get(timeout=WAIT_S)
    assert not (tmp_path / "doomed").exists()


def test_what_a_stopped_task_has_used_is_counted_and_its_bot_is_free_again(
    start_worker: StartWorker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "long.py").write_text(
        "import asyncio, pathlib\n"
        "async def long(task, bot):\n"
        "    await bot.chat(task.prompt)\n"
        "    pathlib.Path('called').touch()\n"
        "    await asyncio.sleep(600)\n"
    )
    (tmp_path / "fleet.toml").write_text(
        '[pools.slow]\nbots = 2\nprovider = "simulator"\nmodel = "sim-small"\nfunction = "long:long"\n'
    )
    config.current.cache_clear()
    worker = start_worker()
    task = submit_task.delay("What is 1+2?", pool="slow")
    totals: Callable[[str], int] = lambda name: counted(client, name)  # noqa: E731
    wait_until((tmp_path / "called").exists, WAIT_S, lambda: f"its first call is answered; log:\n{worker.log}")
    task.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        task.get(timeout=WAIT_S)
    wait_until(lambda: totals(catalogue.REVOKED.name) == 1, WAIT_S, "its end is counted")
    assert (totals(catalogue.ATTEMPTS.name), totals(catalogue.COMPLETIONS.name)) == (1, 0)
    assert totals(catalogue.INPUT_TOKENS.name) > 0
    wait_until(lambda: client.zcard(keys.bot_leases("slow")) == 0, WAIT_S, "its bot is free")
    wait_until(lambda: client.hlen(keys.unacked()) == 0, WAIT_S, "it is acknowledged")
    assert client.hlen(keys.dead_letters()) == 0
    assert worker.alive
