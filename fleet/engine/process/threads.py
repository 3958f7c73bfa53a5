"""Threads for Celery tasks that are not Fleet's: started when they are needed, kept until the process ends.

`concurrent.futures` makes a future, a condition and a work item for every task, which cost more than a short task
itself; nobody here waits for a future.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

logger = logging.getLogger("fleet.pool")

Job = Callable[[], None]


class Threads:
    """Runs jobs. `run` belongs to one thread; what a job raises is its own affair and only logged.

    The threads are daemons: a task that outlives the grace time of a shutdown ends with the process, its message
    unacknowledged.

    Args:
        most: Threads at most (count).
        name: Prefix of their names.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0  # threads without a job, less the jobs that wait for one
        self._started = 0

    def run(self, job: Job) -> None:
        """Run a job as soon as a thread is free; a new one when none is."""
        self._jobs.put(job)
        with self._lock:
            self._free -= 1
            if self._free >= 0 or self._started == self._most:
                return
            self._free += 1
        self._started += 1
        threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except BaseException:
                logger.exception("a job of a thread failed")
            with self._lock:
                self._free += 1


def as_failure(error: BaseException) -> Exception:
    """Return what Celery is told about a task that raised: it does not settle what is meant to end a process."""
    if isinstance(error, Exception) and not isinstance(error, MemoryError):
        return error
    return RuntimeError(f"expected the task to return or to raise an Exception, got {type(error).__name__}")
