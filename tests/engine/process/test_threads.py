"""Threads for plain Celery tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from fleet.engine.process.threads import Threads

WAIT_S = 30


def test_jobs_run_side_by_side_and_one_that_fails_takes_no_thread_with_it() -> None:
    threads = Threads(2, "test")
    both, names = threading.Barrier(3), set()

    def job() -> None:
        names.add(threading.current_thread().name)
        both.wait(WAIT_S)

    threads.run(job)
    threads.run(job)
    both.wait(WAIT_S)  # passes only when both run at the same time
    done = threading.Event()
    threads.run(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    threads.run(done.set)
    assert done.wait(WAIT_S)
    assert names == {"test-1", "test-2"}


class Paused(SimpleQueue[Callable[[], None]]):
    """A queue whose reader stops, a job in its hand, until `go_on`."""

    def __init__(self) -> None:
        self.taken, self.go_on = threading.Event(), threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Callable[[], None]:
        job = super().get(block, timeout)
        self.taken.set()
        self.go_on.wait(WAIT_S)
        return job


def test_a_thread_that_has_just_taken_a_job_counts_as_busy() -> None:
    threads, jobs = Threads(2, "test"), Paused()
    threads._jobs = jobs
    first, release, beside = threading.Event(), threading.Event(), threading.Event()
    jobs.go_on.set()
    threads.run(first.set)
    assert first.wait(WAIT_S)
    jobs.taken.clear()
    jobs.go_on.clear()
    threads.run(lambda: _hold(release))
    assert jobs.taken.wait(WAIT_S)
    threads.run(beside.set)
    jobs.go_on.set()
    assert beside.wait(WAIT_S / 3)
    release.set()


def _hold(release: threading.Event) -> None:
    release.wait(WAIT_S)
