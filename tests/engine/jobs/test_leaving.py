"""However a member leaves the system, its job learns of it: none stays open for a task that will never end."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import config
from fleet.engine.jobs.job import FleetJob, submit_job
from fleet.engine.messages.broker import broker
from fleet.engine.operations.erasure.forgetting import Eraser
from fleet.engine.outcomes.cancelling import Canceller, Selection
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.engine.outcomes.follow_ups import FollowUps
from fleet.engine.process.duties import uncounted
from fleet.engine.process.duties.uncounted import Uncounted
from fleet.signals import catalogue
from fleet.store import job_keys, keys
from fleet.store.client import Store, connect
from fleet.store.private.embedded import state_url
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

WAIT_S = 60
BOT = """\
async def answer(task, context):
    if task.prompt == "bad":
        raise ValueError("it is broken")
    return "done"
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url, timeout_s=5) as one:
        yield one


@pytest.fixture(autouse=True)
def own_bot(fleet_env: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of bots of one's own, whose workers can import them."""
    (tmp_path / "own_bot.py").write_text(BOT)
    (tmp_path / "fleet.toml").write_text('[pools.own]\nbots = 8\nfunction = "own_bot:answer"\n')
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    config.current.cache_clear()
    return tmp_path


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is nowhere is given no time to turn up."""
    monkeypatch.setattr(uncounted, "NOWHERE_S", 0.0)


def look(times: int = 2) -> None:
    """Do what a worker does for members that nobody else counts; the first look only sees which jobs stand."""

    async def run() -> None:
        settings = config.current()
        state, messages = Store(state_url(settings)), Store(broker().url)
        try:
            duty = Uncounted(settings, state, messages)
            for _ in range(times):
                await duty.look()
        finally:
            await state.close()
            await messages.close()

    asyncio.run(run())


def office() -> DeadLetterOffice:
    return DeadLetterOffice(broker().client, broker().client, config.current())


def canceller(client: redis.Redis) -> Canceller:
    from fleet.engine.app import app

    return Canceller(client, client, config.current(), FollowUps(app))


def ends(job: FleetJob) -> tuple[str, int, int]:
    state = job.state
    return state.word, state.ended, state.cancelled


def test_members_of_a_purged_queue_end_as_cancelled_and_say_why(client: redis.Redis, soon: None) -> None:
    from fleet.engine.app import app

    job = submit_job(["a"] * 30, then="all")
    with app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge(keys.queue("own")) == 30
    look(1)
    assert ends(job) == ("sealed", 0, 0)
    look()
    assert ends(job) == ("done", 30, 30)
    told = {one.error.message for one in job if one.error}
    assert told == {uncounted.LOST}
    assert client.zcard(job_keys.due()) == 1, "what follows it follows it"
    assert client.zcard(job_keys.lost()) == 0
    [event] = [
        one for _, one in client.xrange(keys.events()) if one[b"event"] == catalogue.JOB_MEMBERS_LOST.name.encode()
    ]
    assert (event[b"job"], event[b"tasks"]) == (job.id.encode(), b"30")


def test_members_whose_redis_was_emptied_beside_the_jobs_end_too(client: redis.Redis, soon: None) -> None:
    job = submit_job(["a"] * 3)
    for name in (*client.scan_iter("*own*"), *map(keys.submitted, map(job.task_id, range(3)))):
        client.delete(name)
    look()
    assert ends(job) == ("done", 3, 3)


def test_a_member_that_is_nowhere_gets_a_minute_to_turn_up(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit_job(["a", "b"])
    [messages] = [client.lrange(name, 0, -1) for name in client.scan_iter("*") if client.type(name) == b"list"]
    [place] = [name for name in client.scan_iter("*") if client.type(name) == b"list"]
    client.delete(place)
    look()
    assert client.zcard(job_keys.lost()) == 2
    assert ends(job) == ("sealed", 0, 0)
    client.lpush(place, *messages)  # it turns up again
    look()
    monkeypatch.setattr(uncounted, "NOWHERE_S", 0.0)
    assert client.zcard(job_keys.lost()) == 0
    look()
    assert ends(job) == ("sealed", 0, 0)


def test_more_members_than_one_look_takes_are_lost_and_end(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncounted, "LOOKED_AT", 7)
    job = submit_job(["a"] * 50)
    broker().client.delete(*[name for name in broker().client.scan_iter("*") if broker().client.type(name) == b"list"])
    look(3)
    assert ends(job) == ("done", 50, 50)


def test_a_member_that_waits_is_held_or_parked_is_not_lost(
    client: redis.Redis, soon: None, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "own_bot.py").write_text(
        "import asyncio\nfrom pathlib import Path\n\n"
        "async def answer(task, context):\n"
        "    while not Path('over').exists():\n        await asyncio.sleep(0.05)\n    return 'done'\n"
    )
    job = submit_job(["a"] * 40)
    look()
    assert ends(job) == ("sealed", 0, 0)
    start_worker()
    wait_until(lambda: client.hlen(keys.unacked()) > 5, WAIT_S, "some are held")
    look(4)
    assert (ends(job), client.zcard(job_keys.lost())) == (("sealed", 0, 0), 0)
    (tmp_path / "over").touch()
    assert Counter(one.status for one in job) == {"ok": 40}


def test_a_dead_letter_purged_right_when_it_was_to_be_queued_again_leaves_no_job_open(
    client: redis.Redis, soon: None, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker()
    job = submit_job(["a", "bad"])
    assert Counter(one.status for one in job) == {"ok": 1, "failed": 1}

    def dies(*args: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DeadLetterOffice, "_queue", dies)
        with pytest.raises(KeyboardInterrupt):
            job.replay()
    assert ends(job) == ("sealed", 1, 0)
    assert office().purge(job.task_id(1))
    look()
    assert ends(job) == ("done", 2, 1)


def test_a_purged_dead_letter_of_a_member_that_has_ended_changes_nothing(start_worker: StartWorker) -> None:
    start_worker()
    job = submit_job(["a", "bad"])
    list(job)
    assert office().purge(job.task_id(1))
    assert ends(job) == ("done", 2, 0)
    assert job.replay() == {"unknown": 1}
    assert ends(job) == ("done", 2, 0)


def _cancel_tenant(client: redis.Redis, job: FleetJob) -> None:
    canceller(client).cancel(Selection(tenant="acme"))


def _forget_tenant(client: redis.Redis, job: FleetJob) -> None:
    eraser = Eraser(client, client, config.current(), canceller(client))
    eraser.erase(Selection(tenant="acme"), stop=None, wait_s=0.0, by="test")


def _revoke(client: redis.Redis, job: FleetJob) -> None:
    from fleet.engine.app import app

    app.control.revoke([job.task_id(position) for position in range(4)])


@pytest.mark.parametrize("leave", [_cancel_tenant, _forget_tenant, _revoke])
def test_members_that_are_cancelled_forgotten_or_revoked_end(
    leave: Callable[[redis.Redis, FleetJob], None], client: redis.Redis
) -> None:
    job = submit_job([{"prompt": "a", "tenant": "acme"}] * 4, then="all")
    leave(client, job)
    assert ends(job) == ("done", 4, 4)
    assert client.zcard(job_keys.due()) == 1


def test_members_that_expire_while_they_wait_end(start_worker: StartWorker) -> None:
    end_s = time.time() + 0.2
    job = submit_job([{"prompt": "a", "expires_at": end_s}] * 4)
    wait_until(lambda: time.time() > end_s, WAIT_S, "their end has passed")
    start_worker()
    assert {one.error.type for one in job if one.error} == {"Expired"}
    assert ends(job)[:2] == ("done", 4)
