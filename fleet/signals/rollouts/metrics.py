"""What Prometheus is told of rollouts: by pool, in each of which one runs at most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.signals.money.metric import Metric, Sample
from fleet.signals.view import FleetView

SHARE = Metric(
    "fleet_rollout_share", "gauge", "Share of a pool's tasks that a rollout has; none: none runs.", ("pool",)
)
TASKS = Metric(
    "fleet_rollout_tasks", "gauge", "Tasks of the rollout that runs, by setting and outcome.",
    ("pool", "setting", "outcome"),
)  # fmt: skip
EVIDENCE = Metric(
    "fleet_rollout_evidence_ratio",
    "gauge",
    "Evidence that what is tried is worse, as a share of what sends it back.",
    ("pool", "aspect"),
)
ROLLOUT_METRICS = (SHARE, TASKS, EVIDENCE)


def rollouts(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield each metric with its samples."""
    live = [one for one in view.rollouts if one.word == "running"]
    yield SHARE, [((one.pool,), one.share) for one in live]
    yield (
        TASKS,
        [
            ((one.pool, setting, outcome), count)
            for one in live
            for setting, tasks, failed in (
                ("new", one.new_tasks, one.new_failed),
                ("old", one.old_tasks, one.old_failed),
            )
            for outcome, count in (("good", tasks - failed), ("failed", failed))
        ],
    )
    yield EVIDENCE, [((one.pool, row.aspect), row.evidence) for one in live for row in one.aspects]
