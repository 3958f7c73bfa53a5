"""What an operator does about jobs from the page: seal, cancel, queue again what failed. A request takes seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.engine.jobs.job import FleetJob, find_job
from fleet.engine.operations.jobs.levers import cancel_job, replay_job, seal_job, told_cancel, told_replay
from fleet.errors import ConfigurationError, GiveUp
from fleet.frozen import Frozen
from fleet.quoting import counted

#: Seconds that one request replays at most: the page waits for 15.
BULK_S = 8.0
#: Characters of a job's id or key at most.
MOST_NAME = 512


class _OfJob(Frozen):
    job: str = Field(min_length=1, max_length=MOST_NAME)


class SealJob(_OfJob):
    """Let an open job get no more tasks."""

    do: Literal["seal_job"]


class CancelJob(_OfJob):
    """Keep a job's tasks from starting; `running`: also stop those that run."""

    do: Literal["cancel_job"]
    running: bool = False


class ReplayJob(_OfJob):
    """Queue a job's failed tasks again."""

    do: Literal["replay_job"]


JobAction = SealJob | CancelJob | ReplayJob


def carry_out_on_job(action: JobAction, *, by: str) -> tuple[str, JobAction | None]:
    """Do it, and return one line about what was done, and what goes on with the rest. Blocks: call it on a thread.

    Raises:
        ConfigurationError: When there is no such job.
        StoreUnavailable: When Redis does not answer.
    """
    try:
        job = find_job(action.job)
        match action:
            case SealJob():
                seal_job(job, by=by)
                return f"sealed: it ends with {counted(job.state.total or 0, 'task')}", None
            case CancelJob():
                return told_cancel(cancel_job(job, running=action.running, by=by), running=action.running), None
            case ReplayJob():
                return _replay(job, action, by)
    except GiveUp as error:
        raise ConfigurationError(str(error)) from error


def _replay(job: FleetJob, action: ReplayJob, by: str) -> tuple[str, ReplayJob | None]:
    outcomes = replay_job(job, by=by, for_s=BULK_S)
    said, is_moving = told_replay(outcomes), outcomes["queued"] + outcomes["queued before"] > 0
    left = job.state.failed
    if left and is_moving and outcomes.total() < left + outcomes["queued"]:
        return f"{said}; {counted(left, 'failed task')} left: once more goes on with them", action
    return said, None
