"""`submit_job`: many tasks with one end. Its members are ordinary tasks; what ties them is in `fleet/jobs/`.

A job is open until it is sealed, then it ends with its last member, and the task that follows it is queued once.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from math import inf
from typing import Any

from fleet import config
from fleet.bounds import MAX_KEY_CHARS
from fleet.engine.app import app
from fleet.engine.jobs.joining import queue_members
from fleet.engine.jobs.reading import BEGINNING, JobResults
from fleet.engine.messages.broker import broker
from fleet.engine.messages.follower import Follower, follower_id
from fleet.engine.messages.pool_choice import choose_pool
from fleet.engine.outcomes.cancelling import Canceller, Selection, Tally
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice, Replayed
from fleet.engine.outcomes.follow_ups import FollowUps
from fleet.engine.outcomes.revocation import results_here, state_here
from fleet.errors import GiveUp, InvalidTask
from fleet.jobs import ENDED_AS, JobLedger, JobState, job_id_of, member_id, membership_of
from fleet.models import BotTask
from fleet.quoting import quote
from fleet.store.client import store_errors

#: A task as producers spell it.
TaskLike = BotTask | dict[str, Any] | str
#: Tasks that one message to the workers names at most (count).
TOLD_AT_ONCE = 1000
#: Members whose ends are looked at in one round trip (count).
LOOK_AT_ONCE = 65_536


def submit_job(tasks: Iterable[TaskLike], *, key: str | None = None, then: TaskLike | None = None) -> FleetJob:
    """Queue tasks as one job, seal it, and return it. Memory does not grow with the tasks.

    Args:
        tasks: Prompts, dicts or `BotTask`s; read batch by batch. They have no idempotency keys of their own.
        key: Names the job. A producer that died submits the same tasks in the same order under the same key: those
            that are queued are passed over. A sealed job is returned as it is, and no task is read. None: a new job.
        then: A task that follows: it is queued once, when all have ended, however. Its `metadata["job"]` is the job's
            id. A cancelled job has none.

    Raises:
        InvalidTask: Naming the position of the first invalid task; those of earlier batches are queued.
        StoreUnavailable: When Redis did not answer. With a key, the same call goes on where this one was.
        GiveUp: When somebody cancelled the job meanwhile.
    """
    job = open_job(key=key, then=then)
    job.add(tasks, is_whole=True)
    job.seal()
    return job


async def asubmit_job(tasks: Iterable[TaskLike], *, key: str | None = None, then: TaskLike | None = None) -> FleetJob:
    """Do what `submit_job` does without blocking the loop: `tasks` is read in a thread."""
    return await asyncio.to_thread(submit_job, tasks, key=key, then=then)


def open_job(*, key: str | None = None, then: TaskLike | None = None) -> FleetJob:
    """Return a job that gets its tasks by `add`, and ends after `seal`; a known key gives that job.

    Raises:
        InvalidTask: When `then` is not a task, or the key not one.
        StoreUnavailable: When Redis did not answer.
    """
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARS and key.isprintable()):
        raise InvalidTask(f"key: expected printable text of 1 to {MAX_KEY_CHARS} characters, got {quote(key)}")
    key = key or uuid.uuid4().hex
    job_id = job_id_of(key)
    follower = None
    if then is not None:
        task = BotTask.parse(then)
        follower = Follower.of(job_id, task, choose_pool(task)).to_json()
    with store_errors(results_here().url):
        JobLedger(state_here()).begin(job_id, key, follower, time.time())
    return FleetJob(job_id)


def find_job(name: str) -> FleetJob:
    """Return the job with this id or key.

    Raises:
        GiveUp: When there is none.
        StoreUnavailable: When Redis did not answer.
    """
    with store_errors(results_here().url):
        for job_id in (name, job_id_of(name)):
            if JobLedger(state_here()).read(job_id) is not None:
                return FleetJob(job_id)
    raise GiveUp(f"expected the id or the key of a job, got {quote(name)}: see `fleet job list`")


class FleetJob:
    """A job. `for result in job` and `async for result in job` give its results in the order in which members end.

    Every method raises `StoreUnavailable` when Redis did not answer, and is safe to repeat.

    Attributes:
        id: 15 hexadecimal digits.
    """

    def __init__(self, job_id: str) -> None:
        self.id = job_id

    def __repr__(self) -> str:
        return f"FleetJob({self.id!r})"

    def __iter__(self) -> JobResults:
        return self.results()

    def __aiter__(self) -> JobResults:
        return self.results()

    def results(self, *, after: str = BEGINNING) -> JobResults:
        """Iterate over results, from the first one, or behind the `cursor` of an earlier iteration."""
        return JobResults(self.id, after=after)

    @property
    def state(self) -> JobState:
        """How it stands: how many are queued, have ended, and how.

        Raises:
            GiveUp: When it is not known any more.
        """
        with self._redis():
            return self._known(JobLedger(state_here()).read(self.id))

    @property
    def then_id(self) -> str:
        """Task id of the task that follows it, if one does."""
        return follower_id(self.id)

    def task_id(self, position: int) -> str:
        """Return the task id of the member at a place, from 0."""
        return member_id(self.id, position)

    @staticmethod
    def position(task_id: str) -> int:
        """Return the place of a member among the tasks, from 0, by its task id."""
        member = membership_of(task_id)
        if member is None:
            raise GiveUp(f"expected the task id of a member of a job, got {quote(task_id)}")
        return member.position

    def add(self, tasks: Iterable[TaskLike], *, is_whole: bool = False) -> int:
        """Queue more members, and return how many it has now.

        Args:
            tasks: As `submit_job` takes them.
            is_whole: These are all from the first one on: those that are queued already are passed over.

        Raises:
            InvalidTask: Naming the position of the first invalid task.
            GiveUp: When it is sealed, and these are not those that it has; or cancelled.
        """
        state = self.state
        if state.total is not None and is_whole and state.cancelled_at is None:
            return state.total
        if state.total is not None:
            raise GiveUp(f"expected an open job, got one that is {state.word}: make another one")
        new = islice(tasks, state.queued, None) if is_whole else tasks
        stop = threading.Event()
        for queued in queue_members(self.id, new, after=state.queued, is_whole=is_whole, stop=stop):
            with self._redis():
                state = self._known(JobLedger(state_here()).note_queued(self.id, queued, time.time()))
            if state.cancelled_at is not None:
                stop.set()
        if state.cancelled_at is not None:
            self.cancel()
            raise GiveUp(f"job {self.id} was cancelled while its tasks were queued")
        return state.queued

    def seal(self) -> None:
        """Let it get no more members: it ends with the last of them."""
        with self._redis():
            JobLedger(state_here()).seal(self.id, self.state.queued)

    def cancel(self, *, running: bool = False) -> Tally:
        """Keep its members from starting, wherever they wait; no task follows it. Results that there are stay.

        Args:
            running: Also stop those that run.
        """
        settings = config.current()
        with self._redis(), store_errors(broker().url):
            JobLedger(state_here()).seal(self.id, self.state.queued, is_cancelled=True)
            canceller = Canceller(broker().client, state_here(), settings, FollowUps(app))
            tally = canceller.cancel(Selection(job=self.id))
        for start in range(0, len(tally.held) if running else 0, TOLD_AT_ONCE):
            app.control.revoke(list(tally.held[start : start + TOLD_AT_ONCE]), terminate=True)
        return tally

    def replay(self, *, for_s: float | None = None) -> Counter[Replayed]:
        """Queue the members that failed again, as `fleet dead replay`; return what became of how many.

        The job ends anew with the last of them; what follows it is not queued a second time.

        Args:
            for_s: Seconds after which it leaves the rest for the next call; None: it goes on to the last.
        """
        done, until_s = Counter[Replayed](), time.monotonic() + (inf if for_s is None else for_s)
        with self._redis(), store_errors(broker().url):
            book, office = JobLedger(state_here()), DeadLetterOffice(state_here(), broker().client, config.current())
            for start in range(0, self.state.queued, LOOK_AT_ONCE):
                ends = book.ended_as(self.id, start, LOOK_AT_ONCE)
                failed = [start + at for at, how in enumerate(ends) if how == ord(ENDED_AS["failed"])]
                for position in failed:
                    if time.monotonic() > until_s:
                        return done
                    done[office.replay(self.task_id(position))] += 1
        return done

    def _known(self, state: JobState | None) -> JobState:
        if state is None:
            raise GiveUp(f"expected job {self.id}, got none: jobs are forgotten 30 days after their last sign of life")
        return state

    @staticmethod
    def _redis() -> Any:
        return store_errors(results_here().url)
