"""A real worker that has as many slots as are wanted of it: it grows, drains as it shrinks, and dies in between."""

from __future__ import annotations

import signal

import pytest

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.scaling import Decision
from fleet.scaling.wanted import WantedSlots, alone
from fleet.signals.catalogue import COMPLETIONS, DUPLICATES
from fleet.signals.recorder import WorkerReport
from fleet.store import keys, schedule_keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.engine.process.test_worker import results, total
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES

WAIT_S = 40


def publish(redis_url: str, slots: int) -> None:
    """Say what is wanted, as a decider does."""
    with connect(redis_url) as client:
        at = float(client.time()[0])  # type: ignore[index]
        decision = Decision(at=at, slots=slots, workers=1, reason="a test wants it")
        wanted = WantedSlots(decision=decision, crew=1, slots=0, each=slots)
        client.set(schedule_keys.wanted(), wanted.model_dump_json(), ex=60)


def report(redis_url: str) -> WorkerReport:
    with connect(redis_url) as client:
        rows = [WorkerReport.read(row) for row in client.hvals(keys.workers())]  # type: ignore[union-attr]
        nobody = WorkerReport(name="nobody", pid=0, cpu_percent=0, rss_mb=0, slots=0, busy=0, at=0)
        return max(rows, key=lambda one: one.at, default=nobody)


def test_a_worker_has_its_share_of_what_is_wanted_within_its_bounds(start_worker: StartWorker, redis_url: str) -> None:
    publish(redis_url, 8)
    worker = start_worker("--autoscale", "12,3")
    wait_until(lambda: report(redis_url).slots == 8, WAIT_S, lambda: f"eight slots; log:\n{worker.log}")
    assert report(redis_url).most_slots == 12, "so others know that its slots follow"
    publish(redis_url, 500)
    wait_until(lambda: report(redis_url).slots == 12, WAIT_S, "as many as it may have")
    publish(redis_url, 0)
    wait_until(lambda: report(redis_url).slots == 3, WAIT_S, "as few as it may have")


def test_a_worker_killed_in_the_middle_of_scaling_in_loses_nothing(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "8000")
    config.current.cache_clear()
    publish(redis_url, 10)
    worker = start_worker("--autoscale", "10,1", app=QUICK_LEASES)
    wait_until(lambda: report(redis_url).slots == 10, WAIT_S, lambda: f"ten slots; log:\n{worker.log}")
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(25)))
    wait_until(lambda: report(redis_url).busy == 10, WAIT_S, "all of them busy")
    publish(redis_url, 2)
    wait_until(lambda: report(redis_url).slots == 2, WAIT_S, "two are left")
    assert report(redis_url).busy > 2, "what runs in the others ends first"
    worker.send(signal.SIGKILL)
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "20")
    publish(redis_url, 10)
    start_worker("--autoscale", "10,1", app=QUICK_LEASES)
    wait_until(lambda: len(results(redis_url, ids)) == 25, 90, "every task has its result")
    assert total(redis_url, COMPLETIONS.name) - total(redis_url, DUPLICATES.name) == 25


def test_a_worker_that_hears_no_decision_goes_by_its_own_tasks() -> None:
    assert [alone(busy) for busy in (0, 1, 4, 10, 100)] == [0, 3, 7, 16, 130]
