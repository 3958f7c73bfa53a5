from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Iterator

import pytest

from fleet.workers.loops.runtime import Runtime
from tests.every import every
from tests.waiting import wait_until


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime()
    runtime.start()
    yield runtime
    runtime.stop()


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def fails() -> None:
    raise LookupError("no" + "thing")


def test_a_coroutine_runs_on_the_loop_and_its_result_comes_back(runtime: Runtime):
    assert runtime.run(where()) == "fleet-loop"


def test_its_exception_comes_back_too(runtime: Runtime):
    with pytest.raises(LookupError):
        runtime.run(fails())


def test_many_threads_at_once_each_get_their_own_result(runtime: Runtime):
    async def double(n: int) -> int:
        await asyncio.sleep(0.001)
        return 2 * n

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda n: runtime.run(double(n)), range(400))) == [2 * n for n in range(400)]


def test_calls_keep_their_order_and_a_broken_one_does_not_eat_those_behind_it(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
):
    got: list[int] = []
    for n in range(100):
        runtime.call_soon(got.append, n)
        if n == 50:
            runtime.call_soon(lambda: 1 / 0)
    wait_until(lambda: len(got) == 100)
    assert got == list(range(100)) and "callback_failed error=ZeroDivisionError" in caplog.text


def test_a_burst_of_submissions_wakes_the_loop_once(runtime: Runtime, monkeypatch: pytest.MonkeyPatch):
    loop, blocked, go_on, got = runtime.run(_loop()), threading.Event(), threading.Event(), []
    wakes = []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (wakes.append(1), wake(*args))[1])
    runtime.call_soon(lambda: (blocked.set(), go_on.wait(10)))
    blocked.wait(10)
    for n in range(1000):
        runtime.call_soon(got.append, n)
    go_on.set()
    wait_until(lambda: len(got) == 1000)
    assert len(wakes) <= 2


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_waiting_on_the_loop_for_the_loop_is_an_error_and_not_a_deadlock(runtime: Runtime):
    async def nested() -> str:
        return runtime.run(where())

    with pytest.raises(RuntimeError, match="await the coroutine instead"):
        runtime.run(nested())


def test_background_work_that_fails_is_logged_by_type_and_place(runtime: Runtime, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        runtime.spawn(fails())
        wait_until(lambda: "background_failed error=LookupError" in caplog.text)
    assert "in fails" in caplog.text and "nothing" not in caplog.text


def test_stopping_cancels_what_runs_and_lets_it_clean_up():
    runtime, cleaned, waiting = Runtime(), [], threading.Event()
    runtime.start()

    async def work() -> None:
        waiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(runtime.run, work())
        waiting.wait(10)
        runtime.stop()
        assert isinstance(answer.exception(10), concurrent.futures.CancelledError)
    assert cleaned == [True]


def test_a_stopped_runtime_refuses_work_and_can_be_started_again():
    runtime = Runtime()
    with pytest.raises(RuntimeError, match="expected a running loop"):
        runtime.run(where())
    runtime.start()
    runtime.start()
    runtime.stop()
    runtime.stop()
    with pytest.raises(RuntimeError, match="expected a running loop"):
        runtime.spawn(where())
    runtime.start()
    assert runtime.run(where()) == "fleet-loop"
    runtime.stop()


def test_stopping_while_other_threads_submit_leaves_none_of_them_waiting():
    for _ in range(10):
        runtime = Runtime()
        runtime.start()
        outcomes: list[object] = []

        def submit(runtime: Runtime = runtime, outcomes: list[object] = outcomes) -> None:
            for _ in range(200):
                try:
                    outcomes.append(runtime.run(where()))
                except (RuntimeError, concurrent.futures.CancelledError) as error:
                    outcomes.append(error)
                    return

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda outcomes=outcomes: len(outcomes) > 3)
        runtime.stop()
        for thread in threads:
            thread.join(10)
        assert every(not thread.is_alive() for thread in threads)


def test_a_coroutine_that_blocks_the_loop_is_abandoned_and_nobody_waits_for_it_any_more(
    caplog: pytest.LogCaptureFixture,
):
    runtime, blocked, go_on = Runtime(), threading.Event(), threading.Event()
    runtime.start()

    async def blocks() -> None:
        blocked.set()
        go_on.wait(10)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(runtime.run, blocks())
        blocked.wait(10)
        runtime.stop(timeout_s=0.02)
        assert isinstance(answer.exception(10), concurrent.futures.CancelledError)
        assert "loop_abandoned" in caplog.text
    go_on.set()
    wait_until(lambda: every(thread.name != "fleet-loop" for thread in threading.enumerate()))
