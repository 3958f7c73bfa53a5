"""Jobs from the outside: submitted, read as members end, cancelled, replayed, gone on with after a death."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.messages import queues
from fleet.errors import GiveUp, InvalidTask
from fleet.models import BotResult
from fleet.store import job_keys, keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES

WAIT_S = 60
BOT = """\
import asyncio
from pathlib import Path

async def answer(task, context):
    with open("calls", "a") as calls:
        calls.write(task.prompt + "\\n")
    await asyncio.sleep(0.01)
    if Path("broken").exists() and task.prompt in ("1", "3"):
        raise ValueError("it is broken")
    return f"{task.prompt} is done"
"""


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return connect(redis_url)


@pytest.fixture
def own_bot(fleet_env: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool whose bots write each call down, and fail two of them while a file `broken` is there."""
    (tmp_path / "own_bot.py").write_text(BOT)
    (tmp_path / "fleet.toml").write_text('[pools.own]\nbots = 8\nfunction = "own_bot:answer"\n')
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    config.current.cache_clear()
    return tmp_path


def waiting_ids(client: redis.Redis) -> list[str]:
    lists = [queues.list_key(keys.queue(pool), priority) for pool in config.current().pools for priority in range(5)]
    return [json.loads(one)["headers"]["id"] for name in lists for one in client.lrange(name, 0, -1)]


def calls_in(folder: Path) -> Counter[str]:
    return Counter((folder / "calls").read_text().split())


def result_of(task_id: str) -> BotResult | None:
    from fleet.engine.tasks import submit_task

    result = submit_task.AsyncResult(task_id)
    return result.get(timeout=WAIT_S) if result.ready() else None


def test_results_come_as_members_end_and_one_task_follows_them(
    own_bot: Path, start_worker: StartWorker, client: redis.Redis
) -> None:
    from fleet.engine.jobs.job import find_job, submit_job

    start_worker()
    job = submit_job((str(number) for number in range(30)), key="nightly", then="all")
    results = list(job)
    assert sorted(job.position(one.task_id) for one in results) == list(range(30))
    assert [one.answer for one in results] == [f"{job.position(one.task_id)} is done" for one in results]
    assert [one.finished_at for one in results] == sorted(one.finished_at for one in results)
    wait_until(lambda: result_of(job.then_id), WAIT_S, "what follows has ended")
    followed = result_of(job.then_id)
    assert followed is not None and (followed.answer, followed.metadata) == ("all is done", {"job": job.id})
    state = find_job("nightly").state
    assert (state.word, state.total, state.ended, state.ok) == ("done", 30, 30, 30)
    assert list(submit_job(iter(["never read"]), key="nightly")) == results
    assert calls_in(own_bot) == Counter({"all": 1, **{str(number): 1 for number in range(30)}})


def test_an_open_job_is_read_while_it_grows_and_a_reader_goes_on_where_one_was(
    own_bot: Path, start_worker: StartWorker
) -> None:
    from fleet.engine.jobs.job import open_job

    start_worker()
    job = open_job()
    assert job.add(["0", "1"]) == 2
    reading = job.results()
    first = [next(reading), next(reading)]
    assert job.state.word == "open"

    def grow() -> None:
        job.add(["2", "3"])
        job.seal()

    growing = threading.Timer(0.3, grow)
    growing.start()

    async def read() -> list[BotResult]:
        return [one async for one in job.results(after=reading.cursor)]

    rest = asyncio.run(read())
    growing.join()
    assert [len(first), len(rest)] == [2, 2]
    assert {one.answer for one in [*first, *rest]} == {f"{number} is done" for number in range(4)}
    with pytest.raises(GiveUp, match="open job"):
        job.add(["4"])


def test_a_cancelled_job_ends_without_what_follows_and_its_results_say_so(own_bot: Path, client: redis.Redis) -> None:
    from fleet.engine.jobs.job import submit_job

    other = submit_job(["0", "1"], key="other")
    job = submit_job([str(number) for number in range(10)], then="all")
    assert job.cancel().waiting == 10
    results = list(job)
    assert [one.error.type if one.error else "" for one in results] == ["TaskRevokedError"] * 10
    state = job.state
    assert (state.word, state.cancelled, state.ended) == ("cancelled", 10, 10)
    assert sorted(waiting_ids(client)) == sorted(other.task_id(position) for position in (0, 1))
    assert client.zcard(job_keys.due()) == 0


def test_failed_members_are_replayed_and_the_job_ends_anew_without_a_second_call_of_what_follows(
    own_bot: Path, start_worker: StartWorker
) -> None:
    from fleet.engine.jobs.job import submit_job

    (own_bot / "broken").touch()
    start_worker()
    job = submit_job([str(number) for number in range(5)], then="all")
    assert Counter(one.status for one in job) == {"ok": 3, "failed": 2}
    wait_until(lambda: result_of(job.then_id), WAIT_S, "what follows has ended")
    (own_bot / "broken").unlink()
    assert job.replay() == {"queued": 2}
    assert Counter(one.status for one in job) == {"ok": 5}
    state = job.state
    assert (state.word, state.ok, state.failed, state.ended) == ("done", 5, 0, 5)
    assert calls_in(own_bot)["all"] == 1
    assert job.replay() == {}


def test_what_is_no_task_or_no_key_is_refused_and_names_its_place(own_bot: Path, client: redis.Redis) -> None:
    from fleet.engine.jobs.job import find_job, open_job, submit_job

    with pytest.raises(InvalidTask, match="task 1: "):
        submit_job(["0", {"prmpt": "1"}], key="mended later")
    with pytest.raises(InvalidTask, match="task 0: expected no idempotency_key"):
        submit_job([{"prompt": "0", "idempotency_key": "a"}])
    with pytest.raises(InvalidTask, match="key: expected"):
        open_job(key="")
    with pytest.raises(GiveUp, match="fleet job list"):
        find_job("unheard of")
    assert submit_job(["0", "1"], key="mended later").state.total == 2
    assert len(waiting_ids(client)) == 2


def test_tasks_that_are_added_behind_a_producers_death_or_beside_another_one_are_all_queued(
    own_bot: Path, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.jobs import job as jobs
    from fleet.engine.jobs import joining

    monkeypatch.setattr(joining, "PIECE", 4)
    crawl = jobs.open_job(key="crawl")
    crawl.add(["0", "1"])
    with monkeypatch.context() as patch:  # as if it had died between queueing and the note of it
        patch.setattr(jobs.JobLedger, "note_queued", lambda self, job_id, queued, now_s: crawl.state)
        crawl.add(["2", "3", "4"])
    assert crawl.state.queued == 2
    with pytest.raises(InvalidTask, match="task 6: "):
        crawl.add(["5", "6", "7", "8", {"prmpt": "9"}])
    adders = [threading.Thread(target=crawl.add, args=([f"{who}"] * 30,)) for who in (100, 200, 300)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    prompts = Counter(
        json.loads(base64.b64decode(json.loads(one)["body"]))[1]["prompt"]
        for pool in config.current().pools for one in client.lrange(queues.list_key(keys.queue(pool), 2), 0, -1)
    )  # fmt: skip
    assert prompts == Counter({**{str(number): 1 for number in range(9)}, "100": 30, "200": 30, "300": 30})
    ids = waiting_ids(client)
    assert sorted(map(crawl.position, ids)) == list(range(99)), "each has a place of its own, and none is left out"
    crawl.seal()
    assert crawl.state.total == 99


PRODUCER = """\
import os, signal, sys
from fleet.engine.jobs import job, joining

joining.PIECE = 50
die_at, where = int(sys.argv[1]), sys.argv[2]

def tasks():
    for number in range(500):
        yield str(number)

really_enqueue, really_note = joining.enqueue, job.JobLedger.note_queued
batches = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def enqueue(*args, **kwargs):
    global batches
    batches += 1
    if batches == die_at and where == "before":
        die()
    queued = really_enqueue(*args, **kwargs)
    if batches == die_at and where == "between":
        die()
    return queued

def note(*args):
    state = really_note(*args)
    if batches == die_at and where == "after":
        die()
    return state

joining.enqueue, job.JobLedger.note_queued = enqueue, note
job.submit_job(tasks(), key="nightly", then="all")
"""


def produce(folder: Path, die_at: int, where: str) -> int:
    """Submit the job in a process of its own that kills itself; return its exit code."""
    command = [sys.executable, "-c", PRODUCER, str(die_at), where]
    return subprocess.run(command, cwd=folder, timeout=WAIT_S, check=False).returncode


def test_a_producer_that_is_killed_anywhere_goes_on_by_its_key_without_a_double(
    own_bot: Path, client: redis.Redis
) -> None:
    from fleet.engine.jobs.job import find_job

    for die_at, where in ((1, "before"), (2, "between"), (2, "after"), (3, "between")):
        assert produce(own_bot, die_at, where) == -signal.SIGKILL
        assert find_job("nightly").state.word == "open"
    assert produce(own_bot, 0, "never") == 0
    job = find_job("nightly")
    ids = waiting_ids(client)
    assert sorted(ids) == sorted(job.task_id(position) for position in range(500))
    assert (job.state.word, job.state.total) == ("sealed", 500)


def test_every_member_ends_once_and_one_task_follows_when_workers_and_producer_are_killed(
    own_bot: Path, start_worker: StartWorker, client: redis.Redis
) -> None:
    from fleet.engine.jobs.job import find_job

    worker = start_worker(app=QUICK_LEASES)
    assert produce(own_bot, 4, "between") == -signal.SIGKILL
    job = find_job("nightly")
    wait_until(lambda: job.state.ended > 40, WAIT_S, "some have ended")
    worker.kill()
    worker = start_worker(app=QUICK_LEASES)
    assert produce(own_bot, 0, "never") == 0
    wait_until(lambda: job.state.ended > 250, WAIT_S, "half of them have ended")
    worker.kill()
    start_worker(app=QUICK_LEASES)
    results = list(job)
    assert sorted(job.position(one.task_id) for one in results) == list(range(500))
    assert {one.status for one in results} == {"ok"}
    wait_until(lambda: result_of(job.then_id), WAIT_S, "what follows has ended")
    state = job.state
    assert (state.word, state.ended, state.ok) == ("done", 500, 500)
    entries = [int(fields[b"m"]) for _, fields in client.xrange(job_keys.order(job.id))]
    assert sorted(entries) == list(range(500)), "each is counted once"
    assert calls_in(own_bot)["all"] == 1
