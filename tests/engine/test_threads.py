"""Threads for plain Celery tasks."""

from __future__ import annotations

import threading

from fleet.engine.threads import Threads

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
