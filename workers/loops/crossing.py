"""A coroutine that runs on one event loop while a coroutine on another one waits for it.

Its result, its exception and its context variables cross as if it were awaited in place; so does a cancellation,
which waits until the other side has cleaned up. `asyncio.run_coroutine_threadsafe` does not wait for that, and costs
a second future each time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Crossing(Generic[T]):
    """One such coroutine. Made on the loop of whoever waits.

    Args:
        work: What runs on the other side.

    Attributes:
        answer: Gets the result, on this side.
        task: Its task on the other side; None: it has not begun.
        context: What it runs in: a copy of the context of whoever waits.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.context: Context = copy_context()
        self.task: asyncio.Task[T] | None = None
        self._work = work
        self._here = asyncio.get_running_loop()
        self._there: asyncio.AbstractEventLoop | None = None
        self._is_cancelled = False
        self._is_over = False
        self.answer: asyncio.Future[T] = self._here.create_future()

    async def over(self, there: asyncio.AbstractEventLoop) -> T:
        """Run it on the loop `there` and return what it returns.

        Raises:
            RuntimeError: When that loop is closed.
        """
        try:
            there.call_soon_threadsafe(self.begin, there)
        except RuntimeError:
            self._work.close()
            raise
        try:
            return await self.answer
        except asyncio.CancelledError:
            if not self._is_over:  # we were cancelled, not the work
                self.answer = self._here.create_future()
                self.cancel()
                await asyncio.wait({self.answer})
                self.drop()
            raise

    def begin(self, there: asyncio.AbstractEventLoop) -> None:
        """Start it. On the other side."""
        self._there = there  # before the look at the flag: `cancel` does it the other way round
        if self._is_cancelled:
            self._work.close()
            self._tell()
            return
        self.task = there.create_task(self._work, context=self.context)
        self.task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[T]) -> None:
        """Take the end of the task to this side. On the other one."""
        self._tell()

    def cancel(self) -> None:
        """Have it cancelled; one that has not begun will not."""
        self._is_cancelled = True
        if self._there is not None:
            with contextlib.suppress(RuntimeError):  # that loop is closed: it is over
                self._there.call_soon_threadsafe(self._cancel_task)

    def drop(self) -> None:
        """Forget its result: nobody waits for it any more."""
        if not self.answer.done():
            self.answer.cancel()
        elif not self.answer.cancelled():
            self.answer.exception()  # looked at

    def _cancel_task(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # our loop is closed: nobody waits any more
            self._here.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._is_over = True
        error = asyncio.CancelledError() if self.task is None else _error_of(self.task)
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            assert self.task is not None
            self.answer.set_result(self.task.result())


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """Return what a task that has ended raised, its cancellation included: with its traceback."""
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error
