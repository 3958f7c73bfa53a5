"""Producers of every kind on one worker: forked ones, ones that never read a result, and asyncio."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError

import fleet  # its names are looked up inside tests: pytest looks into everything here, which would find a Redis
from fleet import config
from fleet.engine.local_simulator import stop_simulator
from fleet.engine.messages.broker import broker
from fleet.errors import InvalidTask
from fleet.models import BotResult, BotTask
from fleet.store import keys
from fleet.store.client import connect
from tests.forks import in_child
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

#: The pool of the worker, and one that nobody serves.
TOML = """
[redis]
url = "{url}"

[pools.quick]
bots = 20

[pools.never]
bots = 1

[simulator]
latency_ms = 5

[worker]
slots = 20
"""


@pytest.fixture(scope="module")
def fleet_folder(
    tmp_path_factory: pytest.TempPathFactory, redis_process: RedisServer
) -> Iterator[tuple[Path, RedisServer]]:
    """A worker for all tests here, on the one Redis that this process's Celery app knows."""
    folder, server = tmp_path_factory.mktemp("producers"), redis_process
    with connect(server.url) as client:
        client.flushall()
    (folder / "fleet.toml").write_text(TOML.format(url=server.url))
    worker = WorkerProcess(folder, "-Q", "celery,fleet.quick", env={"FLEET_HOME": str(folder / ".fleet")})
    try:
        worker.wait_ready()
        yield folder, server
    finally:
        worker.kill()
        stop_simulator(folder / ".fleet")


@pytest.fixture(autouse=True)
def producer(fleet_folder: tuple[Path, RedisServer], monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """Let this process be a producer of that worker."""
    folder, server = fleet_folder
    monkeypatch.setenv("FLEET_CONFIG", str(folder / "fleet.toml"))
    config.current.cache_clear()
    return server


def ask(numbers: range) -> int:
    """Submit and get; return how many answers were right."""
    sent = ((n, fleet.submit_task.delay(f"What is {n}+1?", pool="quick")) for n in numbers)
    return sum(result.get(timeout=30).answer == str(n + 1) for n, result in sent)


def test_results_arrive_in_parent_and_children_after_a_fork() -> None:
    sent_before = fleet.submit_task.delay("What is 40+2?", pool="quick")
    assert ask(range(2)) == 2
    stop = threading.Event()
    busy = [threading.Thread(target=_keep_asking, args=(stop,)) for _ in range(2)]
    for thread in busy:
        thread.start()
    answers = [in_child(lambda: (ask(range(5)), sent_before.get(timeout=30).answer)) for _ in range(3)]
    assert ask(range(5)) == 5
    assert [answer() for answer in answers] == ["(5, '42')"] * 3
    stop.set()
    for thread in busy:
        thread.join()
    assert ask(range(2)) == 2


def _keep_asking(stop: threading.Event) -> None:
    while not stop.is_set():
        assert ask(range(1)) == 1


def _bulk(tasks: int) -> int:
    return len(list(fleet.submit_many([BotTask(prompt="What is 1+1?", pool="quick")] * tasks))) + ask(range(2))


def test_a_pool_of_forked_processes_submits_in_bulk_beside_its_parent() -> None:
    assert _bulk(10) == 12
    with multiprocessing.get_context("fork").Pool(3) as pool:
        under_way = pool.map_async(_bulk, [30] * 3)
        assert _bulk(30) == 32
        assert under_way.get(60) == [32] * 3


def channels(server: RedisServer) -> set[Any]:
    """Return the results that somebody is subscribed to."""
    with connect(server.url) as client:
        return set(client.pubsub_channels(keys.result("*")))  # type: ignore[arg-type]


def test_a_producer_that_reads_no_results_subscribes_to_none(producer: RedisServer) -> None:
    assert ask(range(1)) == 1  # everything is connected
    before, others = _listener_bytes(producer), channels(producer)
    kept = [fleet.submit_task.delay("What is 1+1?", pool="never") for _ in range(300)]
    groups = [celery.group(fleet.submit_task.s("What is 1+1?", pool="never") for _ in range(3))() for _ in range(20)]
    assert channels(producer) == others
    waiting, unread = fleet.submit_task.app.backend._pending_results
    assert not {result.id for result in kept} & {*waiting}
    with pytest.raises(CeleryTimeoutError):
        kept[0].get(timeout=0.1)
    assert len(channels(producer) - others) == 1  # it may be asked for again
    kept.clear()
    groups.clear()
    gc.collect()
    assert channels(producer) == others
    assert not [task_id for task_id, waiters in unread.items() if waiters]
    assert _listener_bytes(producer) <= before + 1024


def _listener_bytes(server: RedisServer) -> int:
    rows: Any = connect(server.url).client_list(_type="pubsub")
    return sum(int(row.get("tot-mem", 0)) for row in rows)


def test_many_wait_for_one_result_and_groups_get_all_of_theirs(producer: RedisServer) -> None:
    others = channels(producer)
    slow = fleet.submit_task.delay("What is 3+4?", pool="quick")
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.append(slow.get(timeout=30).answer)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["7"] * 4
    rows = celery.group(fleet.submit_task.s(f"What is {n}+1?", pool="quick") for n in range(20))().get(timeout=30)
    assert [_answer(row) for row in rows] == [str(n + 1) for n in range(20)]
    assert channels(producer) == others


def _answer(row: Any) -> str:
    return str(row["answer"] if isinstance(row, dict) else row.answer)


# -- asyncio


class Heartbeat:
    """The longest time that a loop was kept from its other work."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def beat(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.longest_s, last = max(self.longest_s, now - last), now


def test_a_web_handler_submits_and_awaits_without_a_thread_and_without_blocking_its_loop() -> None:
    async def handler(number: int) -> str:
        result = await fleet.submit_task.adelay(f"What is {number}+1?", pool="quick", priority="high")
        return str((await result).answer)

    async def main() -> float:
        assert await handler(1) == "2"  # finds Redis, on a thread of its own
        heart, threads = Heartbeat(), threading.active_count()
        beating = asyncio.create_task(heart.beat())
        assert await asyncio.gather(*map(handler, range(200))) == [str(n + 1) for n in range(200)]
        assert threading.active_count() == threads
        beating.cancel()
        return heart.longest_s

    assert asyncio.run(main()) < 0.5  # 200 requests at once; each takes a fraction of a millisecond of the loop


def test_many_tasks_are_queued_from_asyncio_and_invalid_ones_are_named(producer: RedisServer) -> None:
    async def main() -> tuple[list[str], list[str], float]:
        heart = Heartbeat()
        beating = asyncio.create_task(heart.beat())
        prompts = [f"What is {n}+1?" for n in range(2000)]
        ids = await fleet.asubmit_many([BotTask(prompt=prompt, pool="never") for prompt in prompts])
        again = [await fleet.asubmit_many(["What is 1+1?"], idempotency_keys=["only once"]) for _ in range(2)]
        with pytest.raises(InvalidTask, match=r"^task 1: pol: unknown field"):
            await fleet.asubmit_many(["What is 1+1?", {"prompt": "What is 1+1?", "pol": "quick"}])
        beating.cancel()
        assert again[0] == again[1]
        return ids, again[0], heart.longest_s

    ids, _, longest_s = asyncio.run(main())
    assert len(set(ids)) == 2000
    assert longest_s < 0.25


def test_celery_options_hold_in_asyncio_too_and_a_bad_task_raises_at_the_call() -> None:
    async def main() -> BotResult:
        with pytest.raises(InvalidTask, match="priority"):
            await fleet.submit_task.adelay("What is 1+1?", priority="urgent")
        with pytest.raises(InvalidTask, match=r"^pool: expected one of quick, never"):
            await fleet.submit_task.adelay("What is 1+1?", pool="quik")
        late = {"expires": -5, "task_id": "late-1"}
        expired = await fleet.submit_task.aapply_async(("What is 1+1?",), {"pool": "quick"}, **late)
        assert (await expired).error.type == "Expired"
        return await expired.aget(timeout=5)

    assert asyncio.run(main()).status == "failed"


def test_a_wait_ends_at_its_timeout_or_by_cancelling_and_the_task_can_be_awaited_again(producer: RedisServer) -> None:
    async def main() -> None:
        result = await fleet.submit_task.adelay("What is 1+1?", pool="never")
        with pytest.raises(CeleryTimeoutError, match=r"no result within 0\.05 s"):
            await result.aget(timeout=0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(result, 0.05)
        waits = asyncio.ensure_future(result)
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        await asyncio.to_thread(wait_until, lambda: channels(producer) == others)

    others = channels(producer)
    asyncio.run(main())


def test_loops_one_after_another_and_a_forked_process_have_connections_of_their_own(producer: RedisServer) -> None:
    before = _stores(producer)

    async def ask_once() -> str:
        return str((await (await fleet.submit_task.adelay("What is 2+2?", pool="quick"))).answer)

    assert [asyncio.run(ask_once()) for _ in range(4)] == ["4"] * 4

    async def main() -> list[str]:
        answers = [await ask_once()]
        child = in_child(lambda: _in_a_fresh_loop(ask_once))
        answers += await asyncio.gather(ask_once(), ask_once())
        return [*answers, await asyncio.to_thread(child)]

    assert asyncio.run(main()) == ["4"] * 4
    assert _stores(producer) == before  # each loop has closed what it had opened


def _stores(server: RedisServer) -> int:
    with connect(server.url) as client:
        return [row["name"] for row in client.client_list()].count(f"fleet-{os.getpid()}")  # type: ignore[union-attr]


def _in_a_fresh_loop(work: Any) -> str:
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(work())))  # this thread's loop is the parent's
    thread.start()
    thread.join()
    return answers[0]


def test_who_awaits_gets_the_result_although_the_listening_connection_was_cut(producer: RedisServer) -> None:
    async def main() -> str:
        result = await fleet.submit_task.aapply_async(("What is 2+2?",), {"pool": "quick"}, countdown=1)
        others = channels(producer)
        waits = asyncio.ensure_future(result)
        while channels(producer) == others:
            await asyncio.sleep(0.01)
        connect(producer.url).execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "no")
        return str((await waits).answer)

    assert asyncio.run(main()) == "4"
    assert broker().client.ping()
