"""What crosses from one loop to another: results, exceptions, context variables, cancellations."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from fleet.workers.loops.crossing import Crossing
from fleet.workers.loops.runtime import Runtime

WHO: ContextVar[str] = ContextVar("who", default="nobody")


@pytest.fixture
def there() -> Iterator[asyncio.AbstractEventLoop]:
    runtime = Runtime("far-loop")
    runtime.start()
    yield runtime.run(_loop())
    runtime.stop()


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(work(), 10)

    return asyncio.run(main())


def test_the_work_runs_there_in_a_copy_of_our_context_and_its_result_comes_here(
    there: asyncio.AbstractEventLoop,
) -> None:
    async def work() -> tuple[str, str]:
        found = threading.current_thread().name, WHO.get()
        WHO.set("changed there")
        return found

    async def main() -> tuple[tuple[str, str], str]:
        WHO.set("me")
        return await Crossing(work()).over(there), WHO.get()

    assert run(main) == (("far-loop", "me"), "me")


def test_its_exception_comes_here_with_the_line_that_raised_it(there: asyncio.AbstractEventLoop) -> None:
    async def breaks() -> None:
        raise LookupError("there")

    async def main() -> None:
        await Crossing(breaks()).over(there)

    with pytest.raises(LookupError) as caught:
        run(main)
    assert caught.traceback[-1].name == "breaks"


def test_a_cancellation_reaches_the_work_and_waits_until_it_has_cleaned_up(there: asyncio.AbstractEventLoop) -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    async def main() -> bool:
        job = asyncio.ensure_future(Crossing(slow()).over(there))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        job.cancel()
        await asyncio.wait({job})
        return job.cancelled() and cleaned.is_set()

    assert run(main)


def test_a_timeout_around_it_is_a_timeout_here(there: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        async with asyncio.timeout(0.05):
            await Crossing(asyncio.sleep(60)).over(there)

    with pytest.raises(TimeoutError):
        run(main)


def test_work_that_was_cancelled_there_is_cancelled_here(there: asyncio.AbstractEventLoop) -> None:
    async def gives_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        await Crossing(gives_up()).over(there)

    with pytest.raises(asyncio.CancelledError):
        run(main)


def test_a_loop_that_is_closed_is_an_error_and_the_work_is_thrown_away() -> None:
    closed = asyncio.new_event_loop()
    closed.close()

    async def main() -> None:
        await Crossing(asyncio.sleep(0)).over(closed)

    with pytest.raises(RuntimeError):
        run(main)
