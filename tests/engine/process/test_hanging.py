"""An API that accepts calls and answers none, with a real worker, the real simulator and its ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.admission.gates import read_gates
from fleet.store import keys
from fleet.workers.silence.under_way import FEWEST_ANSWERS
from tests.engine.conftest import StartWorker
from tests.engine.process.staged_api import Api, use
from tests.every import every
from tests.waiting import wait_until

WAIT_S = 90.0
SLOTS = 8
#: A worker that is killed once its breaker is open, before a pool is held for it.
DOOMED = """
import os, signal
from fleet import app
from fleet.engine.process.duties.silence import SilenceWatch

async def die(self, wait):
    os.kill(os.getpid(), signal.SIGKILL)

SilenceWatch._hold_pools = die
"""


@pytest.fixture
def apis(fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Api]]:
    found = {"sick": Api(), "well": Api()}
    monkeypatch.setenv("FLEET_WORKER__SLOTS", str(SLOTS))
    use(monkeypatch, found, timeout_s=120)
    yield found
    for api in found.values():
        api.stop()


def test_an_api_that_hangs_keeps_no_other_pool_from_working_and_its_tasks_wait_behind_a_gate_until_it_answers(
    apis: dict[str, Api], start_worker: StartWorker, redis_url: str
) -> None:
    from fleet.engine.tasks import submit_task

    sick, well = apis["sick"], apis["well"]
    worker = start_worker()
    client = redis.Redis.from_url(redis_url)
    first = [submit_task.delay(f"What is {n}+1?", pool="sick") for n in range(FEWEST_ANSWERS)]
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in first), worker.log
    sick.change(hang_rate=1.0)
    before = sick.calls["calls"]
    tasks = [submit_task.delay(f"What is {n}+2?", pool="sick") for n in range(3 * SLOTS)]
    wait_until(lambda: sick.calls["hung"] == SLOTS, WAIT_S, lambda: f"all slots hang; log:\n{worker.log}")

    others = [submit_task.delay(f"What is {n}+3?", pool="well") for n in range(10 * SLOTS)]
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in others), worker.log
    assert not [task for task in tasks if task.ready()], "they are neither failed nor given up"

    queue = keys.queue("sick")
    wait_until(lambda: read_gates(client, [queue])[0].hold is not None, WAIT_S, lambda: f"a hold; log:\n{worker.log}")
    (gate,) = read_gates(client, [queue])
    assert gate.hold is not None
    assert (gate.hold.cause, gate.hold.about) == ("outage", "sick/m-1/default")
    assert "had no answer for" in gate.hold.told
    assert gate.hold.opens_at is not None
    others = [submit_task.delay(f"What is {n}+4?", pool="well") for n in range(5 * SLOTS)]
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in others), worker.log

    wait_until(lambda: sick.calls["hung"] >= SLOTS + 2, WAIT_S, lambda: f"two probes hang; log:\n{worker.log}")
    assert sick.calls["calls"] - before < 2 * SLOTS, "its breaker lets only probes through"
    sick.change(hang_rate=0.0)
    wait_until(
        lambda: sum(task.ready() for task in tasks) >= len(tasks) - 2 * SLOTS, WAIT_S,
        lambda: f"what was not sent is answered; log:\n{worker.log}",
    )  # fmt: skip
    hung = sick.calls["hung"]
    wait_until(lambda: sum(task.ready() for task in tasks) == len(tasks) - hung, WAIT_S, lambda: worker.log)
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in tasks if task.ready()), worker.log
    assert sick.calls["calls"] - before == len(tasks), "each was sent once"
    assert read_gates(client, [queue])[0].hold is None
    assert well.calls["calls"] == 15 * SLOTS
    client.close()


def test_a_worker_that_is_killed_between_its_breaker_and_the_hold_leaves_the_hold_to_another_one(
    apis: dict[str, Api], start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    from fleet.engine.tasks import submit_task

    sick = apis["sick"]
    (tmp_path / "doomed.py").write_text(DOOMED)
    doomed = start_worker(app="doomed")
    client = redis.Redis.from_url(redis_url)
    first = [submit_task.delay(f"What is {n}+1?", pool="sick") for n in range(FEWEST_ANSWERS)]
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in first), doomed.log
    sick.change(hang_rate=1.0)
    tasks = [submit_task.delay(f"What is {n}+2?", pool="sick") for n in range(3 * SLOTS)]
    wait_until(lambda: not doomed.alive, WAIT_S, lambda: f"it dies; log:\n{doomed.log}")
    assert client.exists(keys.breaker("sick/m-1/default"))
    queue = keys.queue("sick")
    assert read_gates(client, [queue])[0].hold is None

    before = sick.calls["calls"]
    worker = start_worker()
    wait_until(lambda: read_gates(client, [queue])[0].hold is not None, WAIT_S, lambda: f"a hold; log:\n{worker.log}")
    assert sick.calls["calls"] - before < SLOTS, "it went by the breaker, not by hanging calls of its own"
    sick.change(hang_rate=0.0)
    wait_until(lambda: sum(task.ready() for task in tasks) > 2 * SLOTS, 2 * WAIT_S, lambda: worker.log)
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in tasks if task.ready()), worker.log
    client.close()


def test_calls_wait_while_nothing_is_answered_long_before_the_breaker_opens_and_each_is_sent_once(
    apis: dict[str, Api], start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    sick, slots = apis["sick"], 40
    monkeypatch.setenv("FLEET_WORKER__SLOTS", str(slots))
    config.current.cache_clear()
    worker = start_worker()
    first = [submit_task.delay(f"What is {n}+1?", pool="sick") for n in range(5 * FEWEST_ANSWERS)]
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in first), worker.log
    sick.change(hang_rate=1.0)
    before, tasks = sick.calls["calls"], []
    while "calls_doubted" not in worker.log:
        tasks.append(submit_task.delay(f"What is {len(tasks)}+2?", pool="sick"))
        wait_until(
            lambda: sick.calls["hung"] == len(tasks) or "calls_doubted" in worker.log, WAIT_S, lambda: worker.log
        )
    tasks += [submit_task.delay(f"What is {n}+3?", pool="sick") for n in range(2 * slots)]
    hung = sick.calls["hung"]
    wait_until(lambda: sick.calls["hung"] >= hung + 2, WAIT_S, lambda: f"one tries now and then; log:\n{worker.log}")
    assert sick.calls["hung"] < slots, "not all slots hang"
    assert "breaker_opened" not in worker.log
    sick.change(hang_rate=0.0)
    hung = sick.calls["hung"]
    wait_until(lambda: sum(task.ready() for task in tasks) >= len(tasks) - hung - 1, WAIT_S, lambda: worker.log)
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in tasks if task.ready()), worker.log
    assert sick.calls["calls"] - before == len(tasks), "each was sent once"


def test_a_limit_of_two_calls_at_once_whose_both_calls_hang_has_a_place_for_probes_and_goes_on_when_the_api_is_back(
    apis: dict[str, Api], start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    sick, most = apis["sick"], 2
    monkeypatch.setenv("FLEET_LIMITS", json.dumps({"sick/m-1": {"rpm": 100_000, "in_flight": most}}))
    config.current.cache_clear()
    worker = start_worker()
    client = redis.Redis.from_url(redis_url)
    first = [submit_task.delay(f"What is {n}+1?", pool="sick") for n in range(2 * FEWEST_ANSWERS)]
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in first), worker.log
    sick.change(hang_rate=1.0)
    before = sick.calls["calls"]
    tasks = [submit_task.delay(f"What is {n}+2?", pool="sick") for n in range(20)]
    queue = keys.queue("sick")
    wait_until(lambda: read_gates(client, [queue])[0].hold is not None, WAIT_S, lambda: f"a hold; log:\n{worker.log}")
    assert sick.calls["calls"] - before == most, "no more at once than its limit says"
    probes = most + 4
    wait_until(lambda: sick.calls["hung"] >= probes, WAIT_S, lambda: f"probes go, one by one; log:\n{worker.log}")
    sick.change(hang_rate=0.0)
    done = len(tasks) - most
    wait_until(lambda: sum(task.ready() for task in tasks) >= done, WAIT_S, lambda: f"they go on; log:\n{worker.log}")
    assert every(task.get(timeout=WAIT_S).status == "ok" for task in tasks if task.ready()), worker.log
    client.close()
