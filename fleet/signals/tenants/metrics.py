"""What Prometheus is told of tenants: how many wait, and what those with the most have, by rank, not by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.signals.money.metric import Metric, Sample
from fleet.signals.view import FleetView

#: Tenants with series of their own (count).
RANKS = 5

WAITING = Metric("fleet_waiting_tenants", "gauge", "Tenants with tasks that wait, by pool.", ("pool",))
TASKS = Metric(
    "fleet_tenant_waiting_tasks", "gauge",
    "Tasks that wait of the tenant with the most (1), with the second most (2), ...; `other`: of all others.",
    ("rank",),
)  # fmt: skip
AGE = Metric(
    "fleet_tenant_waited_seconds", "gauge",
    "For how long the next task of that tenant has waited (rank as in fleet_tenant_waiting_tasks).", ("rank",),
)  # fmt: skip
TENANT_METRICS = (WAITING, TASKS, AGE)


def tenants(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield each metric with its samples: a fixed number, however many tenants there are."""
    told, first = view.tenants, view.tenants.rows[:RANKS]
    others = sum(row.waiting for row in told.rows[RANKS:]) + told.others_waiting
    ranked = [((str(rank),), float(row.waiting)) for rank, row in enumerate(first, 1)]
    yield WAITING, [((pool,), count) for pool, count in told.by_pool.items()]
    yield TASKS, [*ranked, *([(("other",), float(others))] if others else [])]
    ages = ((str(rank), row.waited_s(view.at)) for rank, row in enumerate(first, 1))
    yield AGE, [((rank,), age) for rank, age in ages if age is not None]
