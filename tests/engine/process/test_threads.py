"""Threads for plain Celery tasks."""

from __future__ import annotations

import threading
from functools import partial

import pytest

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
    threads.run(lambda: 1 / 0)  # type: ignore[arg-type]
    threads.run(done.set)
    assert done.wait(WAIT_S)
    assert names == {"test-1", "test-2"}


def test_jobs_that_wait_hold_up_none_of_the_others() -> None:
    threads, release, held = Threads(60, "test"), threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        held.release()
        release.wait(WAIT_S)

    for _ in range(50):
        threads.run(hold)
    for _ in range(50):
        assert held.acquire(timeout=WAIT_S)
    beside = threading.Event()
    threads.run(beside.set)
    assert beside.wait(WAIT_S / 3)
    release.set()


@pytest.mark.parametrize("most", [1, 3])
def test_every_job_runs_however_they_come_and_those_of_one_thread_in_their_order(most: int) -> None:
    threads, ran, all_done = Threads(most, "test"), list[int](), threading.Event()

    def job(number: int) -> None:
        ran.append(number)
        if number % 7 == 0 and number < 2000:  # a job that brings one more
            threads.run(partial(job, number + 5001))
        if len(ran) == 2000 + 286:
            all_done.set()

    for number in range(2000):
        threads.run(partial(job, number))
    assert all_done.wait(WAIT_S)
    assert len(set(ran)) == len(ran)
    assert most > 1 or [number for number in ran if number < 2000] == list(range(2000))


def test_a_machine_without_room_for_more_threads_runs_the_jobs_with_those_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def hold() -> None:
        first.set()
        release.wait(WAIT_S)

    threads, first, release, second = Threads(5, "test"), threading.Event(), threading.Event(), threading.Event()
    threads.run(hold)
    assert first.wait(WAIT_S)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads.run(second.set)
    release.set()
    assert second.wait(WAIT_S)
    with pytest.raises(RuntimeError, match="can't start"):
        Threads(5, "none").run(second.set)
