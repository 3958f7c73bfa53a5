"""All jobs of a simulator, and what runs them: whoever looks at a job, or at the ledger, first has all run that is due.

So nothing runs in between, nobody's timer wakes up, and what a job has cost is the same however often it is polled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from fleet.workers.simulator.batch.answering import Answerer, LaterCall, answer_later
from fleet.workers.simulator.batch.clock import Clock
from fleet.workers.simulator.batch.jobs import BatchJob

#: Items that run before other calls get their turn: about 10 ms.
SLICE = 50


class JobBook:
    """Use it from one event loop.

    Args:
        provider: Answers and bills.
        clock: Its time.
    """

    def __init__(self, provider: Answerer, clock: Clock) -> None:
        self._provider, self._clock = provider, clock
        self._jobs: dict[str, BatchJob] = {}
        self._open: dict[str, Callable[[BatchJob], None]] = {}
        self._running = asyncio.Lock()

    def add(self, job: BatchJob, ended: Callable[[BatchJob], None]) -> None:
        """Take a job; `ended` is called once, when it has ended."""
        self._jobs[job.id] = job
        self._open[job.id] = ended

    def find(self, key: str, job_id: str) -> BatchJob | None:
        """Return a job of a key's own."""
        found = self._jobs.get(job_id)
        return found if found is not None and found.key == key else None

    def is_open(self, job: BatchJob) -> bool:
        """True until it has ended."""
        return job.id in self._open

    def of(self, key: str, prefix: str) -> Iterator[BatchJob]:
        """Yield the jobs of a key whose ids begin so, newest first."""
        return (job for job_id, job in reversed(self._jobs.items()) if job.key == key and job_id.startswith(prefix))

    def drop(self, job: BatchJob) -> None:
        """Forget a job."""
        self._jobs.pop(job.id, None)
        self._open.pop(job.id, None)

    async def catch_up(self) -> float:
        """Run all that is due, and return the time at which it was."""
        if not self._open:
            return self._clock.now_s()
        async with self._running:
            now_s, ran = self._clock.now_s(), 0
            for job_id in list(self._open):
                if (job := self._jobs.get(job_id)) is None:
                    continue
                while (item := job.due(now_s)) is not None:
                    job.done += 1  # before the answer: nothing between here and there can wait
                    call = LaterCall(job.wire, job.key, item.body or {}, job.tier, item.due_s)
                    item.answer, item.body = answer_later(self._provider, call), None
                    job.answered += item.answer is not None
                    ran += 1
                    if ran % SLICE == 0:
                        await asyncio.sleep(0)
                if job.ends_s <= now_s and (ended := self._open.pop(job_id, None)) is not None:
                    ended(job)
            return now_s
