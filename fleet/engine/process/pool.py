"""The worker's pool of slots: bot tasks are coroutines on one loop, other Celery tasks run in threads.

A slot costs no thread while its bot waits for the network. Whatever ends is handed back to the consumer's thread,
which settles all that ended since its last turn in one go; so kombu's channel is only ever used by that thread.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import gc
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from celery.concurrency.base import BasePool
from celery.exceptions import CPendingDeprecationWarning, Ignore, Reject
from celery.utils import log
from celery.utils.log import get_logger

from fleet import config
from fleet.engine.celery_options import give_up
from fleet.engine.messages.envelope import canvas_of
from fleet.engine.process.duties.stall_watch import MAIN_THREAD, StallWatch
from fleet.engine.process.farewell import Farewell
from fleet.engine.process.request import decoded, send_signals, tag_of
from fleet.engine.process.slot import Slot
from fleet.engine.process.threads import Threads, as_failure, exception_info
from fleet.engine.process.wiring import PROCESS
from fleet.engine.transport import leases
from fleet.engine.transport.waker import Waker
from fleet.errors import ConfigurationError
from fleet.quoting import quote

logger = get_logger("fleet.pool")

#: Seconds between two signs of life of Celery's main thread.
BEAT_EVERY_S = 1.0
#: Threads for Celery tasks that are not Fleet's (count).
THREADS_AT_MOST = 256
#: Seconds that cancelled coroutines get to clean up at a shutdown.
CANCEL_S = 5.0
#: Seconds that a shutdown waits for what ended before it looks again whether all slots are free.
DRAIN_STEP_S = 0.2
#: New containers (count) between two looks of Python for garbage that refers to itself; its own default is 700. The
#: tasks of 100 slots hold some 10,000 at a time: a look then finds those, and no garbage.
GARBAGE_EVERY = 50_000


class SlotPool(BasePool):
    """`worker_pool` of the Celery app. Grows and shrinks by a number; `--autoscale` works.

    Celery's time limits do not reach a slot: a bot task carries its own deadline, which cancels its coroutine.
    """

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tasks = self.app.tasks  # the registry itself: asking the app for it costs a lock each time
        self.name: str = self.options["initargs"][1]  # the worker's name as Celery has it: w1@host
        self._ended: collections.deque[Callable[[], None]] = collections.deque()
        self._waker = Waker()
        self._woken = False
        self._threads = Threads(THREADS_AT_MOST, "fleet-task")
        self._in_slots: dict[str, Slot] = {}
        self.beat_at: float | None = None  # Unix time of the main thread's last turn; None: none is due
        self.queues = self.app.amqp.queues.consume_from  # as -Q and -X said, and as remote control has it now
        self._in_threads = 0
        self.most_slots: int | None = None  # told by the autoscaler, where there is one
        self._is_cancelling = self._closed = False
        self._farewell = Farewell()
        self._stall_watch = StallWatch(self.name, lambda: {MAIN_THREAD: self.beat_at, **PROCESS.beats()})

    # -- life

    def on_start(self) -> None:
        # Celery's own lines for a task quote its arguments and its result; ours (fleet.worker) name who answered.
        logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
        self._does_debug = False
        # Repeated with each reconnect; what it warns of does not happen with our transport.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        try:
            PROCESS.start(self)
        except ConfigurationError as error:
            give_up(error)
        settle_down()
        leases.watch(self)
        self._farewell.listen()
        self.beat()  # from here on its first turn is due
        self._stall_watch.start()
        atexit.register(self._acknowledge_last)

    def register_with_event_loop(self, loop: Any) -> None:
        loop.add_reader(self._waker.fileno(), self._on_wake)
        loop.call_repeatedly(BEAT_EVERY_S, self.beat)

    def stop(self) -> None:
        """Stop, unless a signal's handler asks: Celery's for a second Ctrl-C does, and stops the pool later as well.

        The code that a handler has interrupted may hold a lock, such as the log's, that what is waited for needs.
        """
        if not log._in_sighandler:
            super().stop()

    def on_stop(self) -> None:
        """Warm shutdown: let what runs end within the grace time, hand back the rest, tell the broker what is done.

        After `cancel_all` nothing is worth that time.
        """
        self.beat_at = None  # the main thread waits here on purpose
        self._stall_watch.stop()
        self._farewell.begin()
        self._drain(CANCEL_S if self._is_cancelling else config.current().worker.grace_s)
        self._hand_back_running()
        self._close()

    def on_terminate(self) -> None:
        """Cold shutdown: hand back what runs, at once."""
        self.beat_at = None
        self._stall_watch.stop()
        self._hand_back_running()
        self._close()

    def cut_short(self) -> None:
        """Second Ctrl-C, or SIGQUIT: nothing gets time to end. Safe in a signal handler."""
        self._farewell.cut_short()
        self.cancel_all()

    def cancel_all(self) -> None:
        """Cancel what runs, at once, and take no more; Celery hands it back to its queue. Safe in a signal handler."""
        self._is_cancelling = True
        for holdings in leases.all_holdings():
            holdings.closed = True
        for slot in tuple(self._in_slots.values()):
            slot.cancel(Reject("worker stopped", requeue=True))

    def beat(self) -> None:
        """Show that Celery's main thread turns: a worker whose thread stands still is replaced."""
        self.beat_at = time.time()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Do nothing: all slots share a process. Celery also calls `Slot.terminate`, which ends the one task."""

    def _drain(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.busy and time.monotonic() < end:
            self._settle_and_say_so()
            time.sleep(DRAIN_STEP_S if not self._ended else 0)
        self._settle_and_say_so()

    def _settle_and_say_so(self) -> None:
        """Settle what ended and tell the broker: nobody renews its lease, and no take will tell while we stop."""
        self.settle_ended()
        with suppress(redis.RedisError):  # said again, and complained about, in `_close`
            leases.flush_all_acks()

    def _hand_back_running(self) -> None:
        """Cancel what still runs: unacknowledged, it returns to its queue and another worker runs it."""
        if not self._closed:
            self.cancel_all()
            self._drain(CANCEL_S)

    def lose(self, tags: Sequence[str]) -> None:
        """Stop work on tasks that another worker may have by now. From any thread."""
        for tag in tags:
            slot = self._in_slots.get(tag)
            if slot is not None:
                logger.warning("lease lost task=%s: stopping, another worker has it", slot.task_id)
                slot.cancel(Ignore())

    def _close(self) -> None:
        if self._closed:  # Celery may terminate a pool twice
            return
        self._closed = True
        leases.unwatch(self)
        PROCESS.stop()
        try:
            leases.flush_all_acks()
        except redis.RedisError as error:
            logger.warning("acks not sent error=%s; the tasks have results and will not be paid twice", error)
        self._farewell.say()

    def _acknowledge_last(self) -> None:
        """Tell the broker what ended before the Ctrl-C that ended this thread wherever it stood.

        Else those tasks are taken again once their leases are over; their next worker finds the results. Further ones
        are not heard meanwhile: for no longer than a socket waits (`redis.socket_timeout_s`).
        """
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        with suppress(Exception):  # what was interrupted may be in any state
            self.settle_ended()
        with suppress(Exception):
            leases.flush_all_acks()

    # -- size

    @property
    def slots(self) -> int:
        """Number of slots, in use or not."""
        return int(self.limit)

    @property
    def busy(self) -> int:
        """Number of slots in use."""
        return len(self._in_slots) + self._in_threads

    def grow(self, n: int = 1) -> None:
        self.limit += n

    def shrink(self, n: int = 1) -> None:
        """Take n slots away. What runs in them ends first; the consumer's prefetch count keeps them empty."""
        if self.limit - n < 1:
            raise ValueError(f"expected to keep at least 1 slot, got shrink({n}) with {self.limit} slots")
        self.limit -= n

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "max-concurrency": self.limit, "busy": self.busy}

    def forgo(self, queues: Collection[str]) -> None:
        """Take from these queues no more. Before the consumer starts."""
        self.app.amqp.queues.deselect(queues)
        self.queues = self.app.amqp.queues.consume_from

    # -- work

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        **__: Any,
    ) -> Slot | None:
        task = self._tasks.get(args[0]) if args else None
        if task is None or not hasattr(task, "work"):
            self._apply_in_thread(
                target, args, kwargs, callback or _nothing, accept_callback, error_callback or _nothing
            )
            return None
        _, task_id, request, body, *_ = args
        request.update(canvas_of(body))
        tag = tag_of(request)
        slot = Slot(
            task, task_id, tag or task_id, request, time.monotonic(), callback or _nothing, error_callback or _nothing
        )
        if leases.is_lost(tag):
            self._fail(slot, Ignore())
            return slot
        if accept_callback:
            accept_callback(os.getpid(), slot.started)
        if self._is_cancelling:  # a second Ctrl-C came while messages were handed out
            self._fail(slot, Reject("worker stopped", requeue=True))
            return slot
        self._in_slots[slot.tag] = slot
        if self._is_cancelling:  # it came right before this line, and has not seen the slot
            slot.cancel(Reject("worker stopped", requeue=True))
        PROCESS.runtime.call_soon(self._begin, slot)
        return slot

    def run_soon(self, work: Any, then: Callable[[], None], otherwise: Callable[[BaseException], None]) -> None:
        """Run a coroutine on the loop, then `then()` in the consumer's thread, or `otherwise(error)` when it failed."""
        self._in_threads += 1

        def ended(job: asyncio.Future[Any]) -> None:
            self._in_threads -= 1
            if job.cancelled():  # the worker stops: the message's lease runs out
                return
            error = job.exception()
            then() if error is None else otherwise(error)

        PROCESS.runtime.call_soon(
            lambda: asyncio.ensure_future(work).add_done_callback(lambda job: self._hand_back(partial(ended, job)))
        )

    def _begin(self, slot: Slot) -> None:
        work = PROCESS.apart.work if leases.is_suspect(slot.tag) else slot.task.work
        slot.job = asyncio.get_running_loop().create_task(work(slot.task_id, slot.request))
        slot.job.add_done_callback(lambda job: self._hand_back(lambda: self._end(slot, job)))
        if slot.is_cancelled:
            slot.job.cancel()

    def _hand_back(self, ended: Callable[[], None]) -> None:
        self._ended.append(ended)
        if not self._woken:  # one write wakes the consumer for all that end until it looks
            self._woken = True
            self._waker.wake()

    def _on_wake(self) -> None:
        if self._waker.drain():
            self._woken = False
            self.settle_ended()

    def settle_ended(self) -> None:
        """Call back into Celery for everything that ended. Only from the consumer's thread."""
        while self._ended:
            try:
                self._ended.popleft()()
            except Exception as error:  # noqa: BLE001 - the task boundary: what one task's end raises stops no worker
                logger.error("end of a task failed error=%s: %s", type(error).__name__, quote(error))

    def _end(self, slot: Slot, job: asyncio.Future[Any]) -> None:
        """Tell Celery how a slot's task ended."""
        self._in_slots.pop(slot.tag, None)
        if job.cancelled() or slot.is_revoked:
            if slot.if_cancelled is not None:
                self._fail(slot, slot.if_cancelled)
            return
        error = job.exception()
        runtime_s = time.monotonic() - slot.started
        if error is not None:
            self._fail(slot, error)
            return
        done = job.result()
        if done.result is not None:
            send_signals(slot.task, slot.task_id, slot.request, done.result)
        self._farewell.finished += done.result is not None  # else it was passed on, or done before
        slot.callback((0, done.summary, runtime_s))

    def _fail(self, slot: Slot, error: BaseException) -> None:
        """Tell Celery that a slot's task has no result: it hands it back, forgets it, or stores a failure."""
        try:
            slot.error_callback(exception_info(error))
        except redis.RedisError as trouble:
            self._farewell.stranded += self._is_cancelling
            logger.warning("not handed back task=%s error=%s: its lease runs out", slot.task_id, trouble)

    def _apply_in_thread(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        callback: Callable[..., Any],
        accept_callback: Callable[..., Any] | None,
        error_callback: Callable[..., Any],
    ) -> None:
        self._in_threads += 1
        tag = tag_of(args[2]) if len(args) > 2 else None

        def ended(then: Callable[..., Any], value: Any) -> None:
            self._in_threads -= 1
            self._farewell.finished += then is callback
            then(value)

        def run() -> None:
            if self._closed:  # it had not begun: its message is handed back
                return
            try:
                if leases.is_lost(tag):
                    raise Ignore()
                if accept_callback:
                    accept_callback(os.getpid(), time.monotonic())
                end = partial(ended, callback, target(*decoded(args), **(kwargs or {})))
            except BaseException as error:  # noqa: BLE001 - the task boundary: no task ends a thread or the worker
                end = partial(ended, error_callback, exception_info(as_failure(error)))
            self._hand_back(end)

        async def run_apart() -> None:
            try:
                module = type(self._tasks[args[0]]).__module__
                end = partial(ended, callback, await PROCESS.apart.run(str(tag), module, args))
            except Exception as error:  # noqa: BLE001 - the task boundary: Celery hears of it
                end = partial(ended, error_callback, exception_info(error))
            self._hand_back(end)

        if not leases.is_suspect(tag):
            self._threads.run(run)
            return
        if accept_callback:
            accept_callback(os.getpid(), time.monotonic())
        PROCESS.runtime.spawn(run_apart())


def _nothing(*_: Any, **__: Any) -> None:
    """Stand in for a callback that Celery did not give."""


def settle_down() -> None:
    """Have Python never look again for garbage among what a worker keeps for life: code, settings, connections.

    Each such look stops all slots for tens of milliseconds, and they took a tenth of a busy worker's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY)
