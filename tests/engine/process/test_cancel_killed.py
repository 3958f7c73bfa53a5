"""A worker is killed (SIGKILL) while it stops a cancelled task: nothing runs anew, and what is known counts once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery.exceptions import TaskRevokedError
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from tests.cli.operate.test_cancel import bring_back
from tests.counted import all_counted
from tests.every import every
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

#: Generous: the machine may be slow.
WAIT_S = 60.0
#: Where a worker kills itself, and how often what its task has cost is known by then: else its calls are lost with it.
STEPS = {"heard": 0, "counted": 1}
DOOMED = """
import os, signal
from fleet import app
from fleet.engine.outcomes.completion import Finisher
from fleet.engine.process.slot import Slot

STEP, finish, terminate = os.environ["DIES_AT"], Finisher.finish, Slot.terminate

def die(step):
    if step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)

async def finished(self, end):
    stands = await finish(self, end)
    if end.revoked is not None:
        die("counted")
    return stands

def terminated(self, signal):
    die("heard")
    terminate(self, signal)

Finisher.finish, Slot.terminate = finished, terminated
"""
LONG = """
import asyncio, pathlib
async def long(task, bot):
    with open("begun", "a") as file:
        file.write(bot.pool + "\\n")
    await bot.chat(task.prompt)
    pathlib.Path("called-" + bot.pool).touch()
    await asyncio.sleep(600)
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def test_a_worker_that_is_killed_while_it_stops_a_cancelled_task_leaves_it_cancelled_and_counted_once(
    fleet_env: None, client: redis.Redis, tmp_path: Path
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "long.py").write_text(LONG)
    (tmp_path / "doomed.py").write_text(DOOMED)
    pool = 'bots = 3\nprovider = "simulator"\nmodel = "sim-small"\n'
    pools = "".join(f'[pools.{name}]\nfunction = "long:long"\n{pool}' for name in STEPS)
    (tmp_path / "fleet.toml").write_text(f"{pools}[pools.other]\n{pool}")
    config.current.cache_clear()
    workers = {name: WorkerProcess(tmp_path, "-Q", name, env={"DIES_AT": name}, app="doomed") for name in STEPS}
    survivor = WorkerProcess(tmp_path, "-Q", "other")
    try:
        tasks = {name: submit_task.delay("What is 1+1?", pool=name, metadata={"job": "night"}) for name in STEPS}
        for name in STEPS:
            wait_until((tmp_path / f"called-{name}").exists, WAIT_S, lambda n=name: f"it works: {workers[n].log}")  # type: ignore[misc]
        command = ["cancel", "--metadata", "job=night", "--running", "--yes", "--json"]
        told = json.loads(CliRunner().invoke(main, command).stdout)
        assert sorted(told["held"]) == sorted(task.id for task in tasks.values())
        wait_until(lambda: every(not worker.alive for worker in workers.values()), WAIT_S, "all are killed")
        bring_back(client)  # unless a sweep of the other worker has done so
        again = json.loads(CliRunner().invoke(main, command).stdout)  # the same command finishes what nobody has yet
        assert again["held"] == []
        for task in tasks.values():
            with pytest.raises(TaskRevokedError):
                task.get(timeout=WAIT_S)
        survivor.wait_ready()
        for name in STEPS:
            submit_task.app.control.add_consumer(name, destination=[survivor.name], reply=True, timeout=WAIT_S, limit=1)
        fresh = submit_task.delay("What is 1+1?", pool="other")
        assert fresh.get(timeout=WAIT_S).answer == "2"
        assert sorted((tmp_path / "begun").read_text().split()) == sorted(STEPS)  # each once
        totals = all_counted(client)
        known = sum(STEPS.values())
        assert totals.get(catalogue.ATTEMPTS.name) == known + 1  # the fresh one's
        wait_until(lambda: not client.exists(keys.unacked(), keys.parked()), WAIT_S, "all is acknowledged")
        assert every(task.state == "REVOKED" for task in tasks.values())
    finally:
        for worker in (*workers.values(), survivor):
            worker.kill()
