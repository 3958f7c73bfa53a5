"""What an operator does about a job, from the command line or the page: done, then recorded as an event."""

from __future__ import annotations

from collections import Counter

from fleet.engine.jobs.job import FleetJob
from fleet.engine.outcomes.cancelling import Tally
from fleet.engine.outcomes.dead_letter_office import Replayed
from fleet.engine.outcomes.revocation import state_here
from fleet.quoting import counted
from fleet.signals import catalogue
from fleet.signals.events import record_deed


def cancel_job(job: FleetJob, *, running: bool, by: str) -> Tally:
    """Do as `FleetJob.cancel`, and record who did it."""
    tally = job.cancel(running=running)
    record_deed(state_here(), catalogue.JOB_CANCELLED, by, job=job.id, ended=tally.waiting, stopped=running)
    return tally


def replay_job(job: FleetJob, *, by: str, for_s: float | None = None) -> Counter[Replayed]:
    """Do as `FleetJob.replay`, and record who did it."""
    outcomes = job.replay(for_s=for_s)
    record_deed(state_here(), catalogue.JOB_REPLAYED, by, job=job.id, tasks=outcomes["queued"])
    return outcomes


def seal_job(job: FleetJob, *, by: str) -> None:
    """Do as `FleetJob.seal`, and record who did it."""
    job.seal()
    record_deed(state_here(), catalogue.JOB_SEALED, by, job=job.id)


def told_cancel(tally: Tally, *, running: bool) -> str:
    """Return what a cancel has done, in one line."""
    what = "are stopped by their workers" if running else "go on, but begin no second time"
    held = f"; {counted(len(tally.held), 'task')} held by workers: those {what}" if tally.held else ""
    return f"{counted(tally.waiting, 'waiting task')} cancelled{held}"


def told_replay(outcomes: Counter[Replayed]) -> str:
    """Return what a replay has done, in one line."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()) or "nothing has failed in it"
