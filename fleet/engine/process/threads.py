"""Threads for Celery tasks that are not Fleet's: started when they are needed, kept until the process ends.

`concurrent.futures` makes a future, a condition and a work item for every task, which cost more than a short task
itself; nobody here waits for a future.

A thread that ends a job takes the next one itself, and only one thread at a time is being woken for what is left: it
wakes the next one as it begins. Python runs one thread at a time, so to wake one for each job makes short jobs wait for
each other and the worker's own thread for all of them: a queue of no-ops was drained at 28% of a core. Jobs that wait
for something still run side by side, because who waits lets the woken one go on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from billiard.einfo import ExceptionInfo

logger = logging.getLogger("fleet.pool")

Job = Callable[[], None]


class Threads:
    """Runs jobs, in the order in which they came.

    The threads are daemons: a task that outlives the grace time of a shutdown ends with the process, its message
    unacknowledged.

    Args:
        most: Threads at most (count).
        name: Prefix of their names.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        #: What each thread without a job sleeps on, the latest last: it is woken first.
        self._idle: list[threading.Lock] = []
        self._started = 0
        #: A thread was woken or started, and has not looked for a job yet.
        self._is_waking = False

    def run(self, job: Job) -> None:
        """Run a job as soon as a thread is free; a new one when none is."""
        with self._lock:
            self._jobs.append(job)
            self._wake_one()

    def _wake_one(self) -> None:
        """Have one more thread look for a job, if one waits and none is on its way. Only under the lock."""
        if self._is_waking or not self._jobs:
            return
        if self._idle:
            self._is_waking = True
            self._idle.pop().release()
        elif self._started < self._most:
            self._start_one()

    def _start_one(self) -> None:
        """Start a thread; where the machine has no room for one, those that there are run all jobs."""
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._started + 1}", daemon=True).start()
        except RuntimeError as error:
            if not self._started:
                self._jobs.pop()
                raise
            logger.warning("no thread started=%d: jobs wait for these: %s", self._started, error)
            return
        self._is_waking = True
        self._started += 1

    def _work(self) -> None:
        bed = threading.Lock()
        bed.acquire()
        job = self._next(bed, was_woken=True)
        while True:
            if job is None:
                bed.acquire()
                job = self._next(bed, was_woken=True)
                continue
            try:
                job()
            except BaseException:
                logger.exception("a job of a thread failed")
            job = self._next(bed, was_woken=False)

    def _next(self, bed: threading.Lock, *, was_woken: bool) -> Job | None:
        """Return the job that has waited longest; None: there is none, and who asks sleeps until `bed` is free."""
        with self._lock:
            if was_woken:
                self._is_waking = False
            if not self._jobs:
                self._idle.append(bed)
                return None
            job = self._jobs.popleft()
            self._wake_one()
            return job


def as_failure(error: BaseException) -> Exception:
    """Return what Celery is told about a task that raised: it does not settle what is meant to end a process."""
    if isinstance(error, Exception) and not isinstance(error, MemoryError):
        return error
    return RuntimeError(f"expected the task to return or to raise an Exception, got {type(error).__name__}")


def exception_info(error: BaseException) -> ExceptionInfo:
    """Return an exception as Celery takes it."""
    try:
        raise error
    except BaseException:  # noqa: BLE001 - re-raised only to give billiard a traceback to read
        return ExceptionInfo()
