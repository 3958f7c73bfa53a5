"""What Prometheus is told of jobs: never one by one, for a job's name is a label without bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.signals.money.metric import Metric, Sample
from fleet.signals.view import FleetView

LIVE = Metric("fleet_jobs", "gauge", "Jobs that are not over.")
TASKS = Metric(
    "fleet_job_tasks", "gauge", "Tasks of the newest 20 jobs that are not over, by how they ended so far.", ("state",)
)
STILL = Metric(
    "fleet_job_still_seconds", "gauge", "Longest time for which nothing was queued or has ended in one of those."
)
STANDING = Metric("fleet_jobs_standing", "gauge", "Those that stand still, for a reason that nothing else tells.")
JOB_METRICS = (LIVE, TASKS, STILL, STANDING)


def jobs(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield each metric with its samples."""
    live = [job for job in view.jobs.jobs if job.is_live]
    yield LIVE, [((), view.jobs.live)]
    for_each = {
        "pending": sum(job.pending for job in live), "ok": sum(job.ok for job in live),
        "degraded": sum(job.degraded for job in live), "failed": sum(job.failed for job in live),
        "cancelled": sum(job.cancelled for job in live),
    }  # fmt: skip
    yield TASKS, [((state,), count) for state, count in for_each.items()]
    yield STILL, [((), max((max(0.0, view.at - job.moved_at) for job in live), default=0.0))]
    yield STANDING, [((), sum(bool(job.trouble) for job in view.jobs.jobs))]
