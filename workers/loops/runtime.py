"""An asyncio loop in a daemon thread of its own, and the ways into it from other threads.

A worker has one for its data plane, one for its leases, and one for `async def` functions of its users. It knows
nothing of tasks or bots: what runs on the loop is the caller's business.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import logging
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fleet.workers.loops.patient_loop import PatientLoop

#: Seconds that `stop` gives cancelled coroutines to clean up.
STOP_TIMEOUT_S = 5.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Runtime:
    """One event loop and its thread.

    Submissions from other threads go through a deque; only the first one after the loop last looked wakes it. So a
    burst of submissions costs one write to the loop's wake-up pipe, not one each.

    Args:
        name: Name of the thread.
        make_loop: Makes the loop.
    """

    def __init__(self, name: str = "fleet-loop", make_loop: Callable[[], PatientLoop] = PatientLoop) -> None:
        self._name = name
        self._make_loop = make_loop
        self._loop: PatientLoop | None = None
        self._thread: threading.Thread | None = None
        self._inbox: collections.deque[tuple[Callable[..., Any], tuple[Any, ...]]] = collections.deque()
        self._woken = False
        self._gate = threading.RLock()  # nothing enters the inbox after `stop`; re-entrant, for signal handlers
        self._tasks: set[asyncio.Task[Any]] = set()  # asyncio itself keeps only weak references
        self._waiting: set[concurrent.futures.Future[Any]] = set()

    def start(self) -> None:
        """Start the loop. A second call does nothing."""
        if self._loop is not None:
            return
        self._loop = self._make_loop()
        self._thread = threading.Thread(target=_live, args=(self._loop,), name=self._name, daemon=True)
        self._thread.start()

    @property
    def beat_at(self) -> float | None:
        """Monotonic time (s) of the loop's last turn; None when it is not running. From any thread."""
        loop = self._loop
        return None if loop is None else loop.beat_at

    @property
    def thread_id(self) -> int | None:
        """Identity of the loop's thread."""
        return None if self._thread is None else self._thread.ident

    def call_soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have `function(*arguments)` called on the loop. From any thread; in the order of the calls.

        Raises:
            RuntimeError: When the loop is not running.
        """
        with self._gate:
            if self._loop is None:
                raise RuntimeError("expected a running loop, got none: start() was not called, or stop() was")
            self._leave(self._loop, function, arguments)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it: from any thread but the loop's own.

        Raises:
            concurrent.futures.CancelledError: When `stop` cut it short.
            RuntimeError: When the loop is not running, or is the caller's own.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("expected a call from another thread, got one on the loop: await the coroutine instead")
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._waiting.add(answer)
        try:
            self._submit(work, lambda task: _settle(answer, task))
            return answer.result()
        finally:
            self._waiting.discard(answer)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine in the background until it ends or the runtime stops. Its failure is logged.

        Raises:
            RuntimeError: When the loop is not running.
        """
        self._submit(work, _report)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Cancel everything on the loop, let it clean up, close the loop. A second call does nothing.

        Args:
            timeout_s: Seconds for the cleaning up; what takes longer is abandoned.
        """
        with self._gate:
            loop, self._loop = self._loop, None
            if loop is None or self._thread is None:
                return
            self._leave(loop, self._begin, (self._cancel_all(loop, timeout_s), _report))
        self._thread.join(2 * timeout_s)
        for answer in tuple(self._waiting):
            answer.cancel()
        if self._thread.is_alive():
            logger.warning("loop_abandoned after_s=%.1f hint=a_coroutine_blocks_its_thread", 2 * timeout_s)

    def _submit(self, work: Coroutine[Any, Any, T], on_end: Callable[[asyncio.Task[T]], None]) -> None:
        try:
            self.call_soon(self._begin, work, on_end)
        except RuntimeError:
            work.close()
            raise

    def _leave(self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._inbox.append((function, arguments))
        if not self._woken:
            self._woken = True
            loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """Take in what other threads left. The flag falls first: whoever appends after that wakes the loop again."""
        self._woken = False
        inbox = self._inbox
        while inbox:
            function, arguments = inbox.popleft()
            try:
                function(*arguments)
            except Exception as error:  # noqa: BLE001 - one bad callback must not eat those behind it
                logger.error("callback_failed error=%s", type(error).__name__)

    def _begin(self, work: Coroutine[Any, Any, T], on_end: Callable[[asyncio.Task[T]], None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(on_end)

    async def _cancel_all(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        deadline, cancelled = loop.time() + timeout_s, set[asyncio.Task[Any]]()
        while (others := asyncio.all_tasks() - {asyncio.current_task()}) and loop.time() < deadline:
            for task in others - cancelled:  # once each: a second time would cut its cleaning up
                task.cancel()
            cancelled |= others
            await asyncio.wait(others, timeout=deadline - loop.time())
        await asyncio.sleep(0)  # what ended just now still has to tell whoever waits for it
        await loop.shutdown_asyncgens()
        loop.stop()


def _live(loop: asyncio.AbstractEventLoop) -> None:
    """Body of the loop's thread. A task that raises SystemExit, which asyncio lets through, does not end the loop."""
    try:
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                logger.error("loop_goes_on after=%s raised_by=a_task", type(error).__name__)
            else:
                return
    finally:
        loop.close()


def _settle(answer: concurrent.futures.Future[T], task: asyncio.Task[T]) -> None:
    if answer.done():
        return  # abandoned by `stop`
    if task.cancelled():
        answer.cancel()
    elif error := task.exception():
        answer.set_exception(error)
    else:
        answer.set_result(task.result())


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("background_failed error=%s\n%s", type(error).__name__, frames)
