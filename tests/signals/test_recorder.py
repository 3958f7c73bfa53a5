"""Resource reports on a real Redis."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis

from fleet.signals.recorder import (
    SILENT_S,
    STALE_S,
    Recorder,
    WorkerReport,
    forget_gone_workers,
    report_worker,
    split_reports,
)
from fleet.store import keys
from fleet.store.client import Store, connect


def report_of(name: str, at: float) -> WorkerReport:
    return WorkerReport(name=name, pid=1, cpu_percent=10, rss_mb=60, slots=60, busy=3, at=at)


def with_store(url: str, work: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store(url)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def test_a_worker_reports_its_own_resources(redis_url: str, client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        await Recorder(store, name="w@here").report(slots=60, busy=7)

    with_store(redis_url, work)
    report = WorkerReport.model_validate_json(client.hget(keys.workers(), "w@here"))
    assert (report.pid, report.slots, report.busy) == (os.getpid(), 60, 7)
    assert 5 < report.rss_mb < 4000
    assert abs(report.at - time.time()) < 60
    assert 0 < client.ttl(keys.workers()) <= keys.STATE_TTL_S


def test_cpu_is_measured_since_the_last_report(redis_url: str) -> None:
    async def work(store: Store) -> None:
        recorder = Recorder(store, name="w")
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        assert recorder.measure(slots=1, busy=1).cpu_percent > 5

    with_store(redis_url, work)


def test_the_last_report_of_a_worker_replaces_the_one_before(redis_url: str, client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        recorder = Recorder(store, name="w")
        await recorder.report(slots=60, busy=7)
        await recorder.report(slots=60, busy=8)

    with_store(redis_url, work)
    assert [WorkerReport.model_validate_json(row).busy for row in client.hvals(keys.workers())] == [8]


def test_workers_that_went_silent_are_removed_and_the_others_stay(redis_url: str, client: redis.Redis) -> None:
    async def work(store: Store) -> None:
        await report_worker(store, report_of("silent", at=1000 - STALE_S - 1))
        await report_worker(store, report_of("alive", at=1000 - STALE_S + 1))
        await forget_gone_workers(store, now_s=1000)

    with_store(redis_url, work)
    assert client.hkeys(keys.workers()) == [b"alive"]


def test_a_silent_worker_is_told_as_lost_once_and_before_it_is_given_up(redis_url: str, client: redis.Redis) -> None:
    def lost() -> list[bytes]:
        return [fields[b"worker"] for _, fields in client.xrange(keys.events()) if fields[b"event"] == b"worker_lost"]  # type: ignore[union-attr]

    async def work(store: Store) -> None:
        await report_worker(store, report_of("silent", at=1000 - SILENT_S - 1))
        await report_worker(store, report_of("alive", at=1000 - SILENT_S + 1))
        await forget_gone_workers(store, now_s=1000)  # of who could not write itself until now
        assert lost() == []
        await forget_gone_workers(store, now_s=1000, tells_silent=True)
        await forget_gone_workers(store, now_s=1001.5, tells_silent=True)
        await forget_gone_workers(store, now_s=1000 + STALE_S - SILENT_S, tells_silent=True)

    with_store(redis_url, work)
    assert lost() == [b"silent", b"alive"]
    assert client.hkeys(keys.workers()) == [b"alive"]


def test_a_reporting_worker_removes_the_rows_of_dead_ones(redis_url: str, client: redis.Redis) -> None:
    client.hset(keys.workers(), "dead", report_of("dead", at=1.0).model_dump_json())

    async def work(store: Store) -> None:
        await Recorder(store, name="w").report(slots=1, busy=0)

    with_store(redis_url, work)
    assert client.hkeys(keys.workers()) == [b"w"]


def test_a_row_of_another_version_counts_as_gone() -> None:
    good = report_of("good", at=1000.0)
    rows = {b"good": good.model_dump_json().encode(), b"odd": b'{"name": "odd"}', b"bad": b"\xff"}
    assert split_reports(rows, now_s=1000.0) == ([good], [b"bad", b"odd"])
