"""The pool's slots, without a worker around them."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest
from celery.exceptions import Ignore

from fleet.engine.app import app
from fleet.engine.process.pool import GARBAGE_EVERY, Slot, SlotPool, settle_down
from fleet.engine.process.wiring import PROCESS
from fleet.engine.transport import leases
from fleet.store import keys
from fleet.store.client import connect
from fleet.workers.loops.runtime import Runtime
from tests.waiting import wait_until


def make_pool() -> SlotPool:
    pool = SlotPool(1, app=app, initargs=(app, "w1@test"))
    pool._woken = True  # nobody is to be woken
    return pool


def test_a_slot_that_was_cancelled_before_it_began_does_no_work() -> None:
    worked = []

    class Task:
        async def work(self, task_id: str, request: dict[str, Any]) -> None:
            worked.append(task_id)

    pool = make_pool()
    slot = Slot(Task(), "id", "tag", {}, 0.0, print, print, is_cancelled=True)

    async def begin() -> None:
        pool._begin(slot)
        assert slot.job is not None
        await asyncio.wait([slot.job])

    asyncio.run(begin())
    assert slot.job is not None and slot.job.cancelled()
    assert worked == []


@pytest.mark.parametrize("name", ["fleet.submit_task", "own.task"])
def test_a_task_whose_lease_was_lost_before_it_began_does_not_begin(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holdings = leases.Holdings()
    holdings.held["kept"] = None
    monkeypatch.setattr(leases, "_HOLDINGS", {"broker": holdings})
    pool, ended, begun = make_pool(), [], []
    args = (name, "id", {"properties": {"delivery_tag": "lost"}}, b"[[], {}, {}]", "application/json", "utf-8")
    pool.on_apply(
        lambda *_: begun.append("work"), args,
        accept_callback=lambda *_: begun.append("accepted"), error_callback=ended.append,
    )  # fmt: skip

    def has_ended() -> bool:
        pool.settle_ended()
        return bool(ended)

    wait_until(has_ended, 10, "Celery hears of it")
    assert isinstance(ended[0].exception.exc, Ignore)
    assert begun == [] and pool.busy == 0


def test_what_follows_work_on_the_loop_is_not_done_when_the_work_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise ValueError("odd")

    async def succeed() -> None:
        pass

    runtime = Runtime()
    runtime.start()
    monkeypatch.setattr(PROCESS, "_runtime", runtime)
    pool, followed = make_pool(), []
    for number, work in enumerate((fail(), succeed())):
        pool.run_soon(work, lambda n=number: followed.append((n, None)), lambda e, n=number: followed.append((n, e)))

    def all_followed() -> bool:
        pool.settle_ended()
        return pool.busy == 0

    wait_until(all_followed, 10, "both have ended")
    runtime.stop()
    assert [(number, type(error)) for number, error in sorted(followed, key=lambda pair: pair[0])] == [
        (0, ValueError),
        (1, type(None)),
    ]


def test_what_is_acknowledged_while_others_still_run_is_told_to_the_broker_at_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a warm stop with one task that ended and one that runs on, when the worker is killed, the first is done.

    Nobody renews its lease meanwhile and no take tells of its ack: untold, it would be run, and paid for, again.
    """
    client, holdings, pool = connect(redis_url), leases.Holdings(), make_pool()
    monkeypatch.setattr(leases, "_HOLDINGS", {"broker": holdings})
    holdings.client = client
    for tag in ("ended", "runs"):
        holdings.held[tag] = None
        client.hset(keys.unacked(), tag, "message")
        client.zadd(keys.unacked_index(), {tag: time.time()})
    pool._in_slots["runs"] = Slot(None, "id", "runs", {}, 0.0, print, print)
    pool._hand_back(lambda: holdings.ack("ended"))

    pool._drain(0.0)  # the grace is over; `runs` still runs, and the pool is not closed yet

    assert client.hkeys(keys.unacked()) == [b"runs"]
    assert pool.busy == 1


def test_what_is_acknowledged_last_is_told_to_the_broker_as_the_pool_closes(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, holdings, pool = connect(redis_url), leases.Holdings(), make_pool()
    monkeypatch.setattr(leases, "_HOLDINGS", {"broker": holdings})
    holdings.client = client
    holdings.held["late"] = None
    client.hset(keys.unacked(), "late", "message")
    holdings.ack("late")

    pool._close()

    assert client.hlen(keys.unacked()) == 0


def test_a_worker_has_python_look_for_garbage_among_new_objects_only() -> None:
    before = gc.get_threshold()
    try:
        settle_down()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] == GARBAGE_EVERY
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
