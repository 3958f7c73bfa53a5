"""Suspects run apart: the deadly are proven and buried, neighbours answer, and nothing is lost with any process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery

from fleet import config
from fleet.economy.bill.notes import lives
from fleet.economy.budgets import change_budget
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.models import BotResult
from fleet.signals.recorder import split_reports
from fleet.store import bill_keys, keys
from fleet.store.client import connect
from tests.every import every
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 120
#: A worker whose leases are short: these tests wait for them.
APP = """
from fleet.engine.transport import leases
leases.LEASE_S, leases.RENEW_EVERY_S = 2, 0.5
from fleet import app
from fleet.engine.process.suspects import apart
apart.LINGER_S = 1.0

@app.task(name="own.note")
def note(result, path):
    with open(path, "a") as out:
        out.write(result["answer"] + "\\n")

@app.task(name="own.pid")
def pid():
    import os
    return os.getpid()
"""
BOTS = """
import asyncio, os, pathlib, signal

async def bot(task, bot):
    what, _, where = task.prompt.partition(" ")
    with open("begun", "a") as out:
        out.write(f"{what} {os.getpid()}\\n")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "wait":
        while not pathlib.Path(where).exists():
            await asyncio.sleep(0.02)
    if what == "chat":
        while not pathlib.Path(where).exists():
            await bot.chat("What is 1+1?")
    return await bot.chat("What is 1+1?")
"""
TOML = """
[worker]
slots = 16
[simulator]
latency_ms = 20
[pools.p]
bots = 30
function = "deadly_bots:bot"
[prices."simulator/simulated-1"]
input_usd_per_mtok = 1
output_usd_per_mtok = 1
"""


class Stage:
    """A folder with a fleet's settings, its Redis, and the workers started there."""

    def __init__(self, folder: Path, client: redis.Redis) -> None:
        self.folder = folder
        self.client = client
        self.workers: list[WorkerProcess] = []

    def worker(self) -> WorkerProcess:
        self.workers.append(WorkerProcess(self.folder, app="quick_leases"))
        return self.workers[-1].wait_ready()

    def submit(self, *prompts: str) -> list[str]:
        return list(submit_many([{"prompt": prompt} for prompt in prompts]))

    def suspect_all(self) -> None:
        """Mark all that waits, as a sweep does after its worker's death."""
        for step in PRIORITY_STEPS:
            name = list_key(keys.queue("p"), step)
            for message in self.client.lrange(name, 0, -1):
                self.client.hset(keys.suspects(), hashlib.sha1(message).hexdigest(), f"gone {name}")

    def results(self, ids: Sequence[str]) -> list[BotResult]:
        wait_until(lambda: every(map(self.client.exists, map(keys.result, ids))), WAIT_S, "all have results")
        rows: list[Any] = self.client.mget([keys.result(task_id) for task_id in ids])
        return [BotResult.model_validate(json.loads(row)["result"]) for row in rows]

    def begun(self, what: str = "") -> list[int]:
        """Return the pids in which such tasks have begun."""
        path = self.folder / "begun"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(what)]

    def reserved_by(self) -> set[str]:
        """Return the ids of the processes that have reserved money."""
        found: Any = self.client.hvals(bill_keys.reservations())
        return {json.loads(text)[0] for text in found}

    def reporting(self) -> set[str]:
        """Return the ids of the processes that report."""
        found: Any = self.client.hgetall(keys.workers())
        return {report.process for report in split_reports(found, now_s=time.time())[0]}

    def is_quiet(self) -> bool:
        lists = [list_key(keys.queue("p"), step) for step in PRIORITY_STEPS]
        return not (self.client.exists(keys.unacked(), keys.unacked_index(), keys.suspects(), *lists))


@pytest.fixture
def stage(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    (tmp_path / "quick_leases.py").write_text(APP)
    (tmp_path / "deadly_bots.py").write_text(BOTS)
    (tmp_path / "fleet.toml").write_text(TOML)
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    stage = Stage(tmp_path, connect(redis_url))
    yield stage
    for worker in stage.workers:
        worker.kill()


def children(worker: WorkerProcess) -> list[psutil.Process]:
    return [p for p in psutil.Process(worker.pid).children() if "fleet.engine.process.suspects.child" in p.cmdline()]


def test_the_deadly_among_suspects_is_proven_alone_and_all_others_answer(stage: Stage) -> None:
    ids = stage.submit("ok", "ok", "kill")
    stage.suspect_all()
    worker = stage.worker()
    *innocent, deadly = stage.results(ids)
    assert [result.status for result in innocent] == ["ok"] * 2
    assert deadly.error is not None and deadly.error.type == "Poison"
    assert "alone in a child process, which died by signal 9 (SIGKILL)" in deadly.error.message
    wait_until(stage.is_quiet, WAIT_S, "nothing is held and nothing is suspect")
    assert worker.alive and worker.pid not in stage.begun()
    wait_until(lambda: not children(worker), WAIT_S, "the children end when no suspect is left")


def test_kills_of_the_only_worker_bury_nobody_and_a_child_that_dies_with_its_parent_proves_nothing(
    stage: Stage,
) -> None:
    gate = stage.folder / "gate"
    ids = stage.submit(*[f"wait {gate}"] * 6)
    for death in range(2):
        worker = stage.worker()
        wait_until(lambda n=death: len(stage.begun()) >= 6 * (n + 1), WAIT_S, "all have begun")  # type: ignore[misc]
        mine = children(worker)
        assert len(mine) == (death > 0)  # from the first death on they run apart
        worker.kill()
        for child in mine:
            child.wait(10)  # it ends by itself when its parent is gone
    chatty = stage.submit(f"chat {gate}")
    stage.suspect_all()
    worker = stage.worker()
    wait_until(lambda: stage.begun("chat"), WAIT_S, "it talks")
    change_budget(stage.client, "fleet", {"usd_in_all": 100}, configured={})
    wait_until(lambda: stage.reserved_by(), WAIT_S, "a child hears of a budget that is set while it runs")
    assert every(
        lives(child, stage.reporting()) for child in stage.reserved_by()
    )  # and its money is charged only once its worker is missed
    gate.touch()
    assert [result.status for result in stage.results([*ids, *chatty])] == ["ok"] * 7
    wait_until(lambda: not stage.reserved_by(), WAIT_S, "all is settled")
    wait_until(stage.is_quiet, WAIT_S, "nothing is held and nothing is suspect")
    assert worker.pid not in stage.begun()


def test_in_a_child_all_works_as_in_a_slot_and_neither_a_kill_from_outside_nor_a_stop_is_a_proof(
    stage: Stage, redis_url: str
) -> None:
    gate, noted = stage.folder / "never", stage.folder / "noted"
    plain = Celery(broker=redis_url, backend=redis_url)  # the fleet's own app stays with the first Redis it has met

    def send(prompt: str, link: Any = None, **fields: Any) -> str:
        fields |= {"pool": "p"}
        return str(
            plain.send_task("fleet.submit_task", args=[prompt], kwargs=fields, queue=keys.queue("p"), link=link).id
        )

    linked = send("ok", metadata={"a": 1}, link=plain.signature("own.note", args=(str(noted),)))
    late = send(f"wait {gate}", deadline_s=1)
    own = plain.send_task("own.pid", queue=keys.queue("p"))
    revoked, stopped = (send(f"wait {gate}") for _ in range(2))
    stage.suspect_all()
    worker = stage.worker()
    first, second = stage.results([linked, late])
    assert (first.status, first.metadata) == ("ok", {"a": 1})
    assert second.error is not None and second.error.type == "DeadlineExceeded"
    assert own.get(timeout=WAIT_S) in stage.begun()  # the child's
    wait_until(noted.exists, WAIT_S, "the linked task ran")
    assert noted.read_text() == "2\n"
    plain.control.revoke(revoked, terminate=True)
    wait_until(lambda: stage.client.hlen(keys.unacked()) == 1, WAIT_S, "it was cancelled")

    tries = len(stage.begun())
    for death in range(2):  # the first one is not alone: others were there before
        os.kill(stage.begun()[-1], signal.SIGKILL)
        wait_until(lambda n=death: len(stage.begun()) == tries + n + 1, WAIT_S, "it is tried again")  # type: ignore[misc]
    assert not stage.client.exists(keys.result(stopped)) and worker.pid not in stage.begun()
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGQUIT)  # at once
    worker.wait()
    assert (stage.client.hlen(keys.suspects()), stage.client.hlen(keys.unacked())) == (1, 0)  # handed back as a suspect
