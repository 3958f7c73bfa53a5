"""What `fleet doctor` says of tenants in the queues. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.cli.setup.check import Check, warn
from fleet.quoting import counted, duration, quote
from fleet.signals.tenants.view import TenantsView

#: Seconds that a tenant's next task may wait, and a very small share of the takes: both together are told.
LONG_S, SMALL_SHARE = 600.0, 0.01


def place_checks(lost: Mapping[str, int]) -> Iterator[Check]:
    """Yield a warning for each queue of which more waits than its list tells."""
    for queue, count in lost.items():
        yield warn(
            f"queue {queue}: tenants",
            f"{counted(count, 'task')} of tenants more than LLEN, Flower and KEDA tell: a worker of a release before "
            "0.3 serves the queue, or tasks are being cancelled",
            "Let a worker of this release run: only such a one sees them, and puts their places back in half a minute.",
        )


def tenant_checks(view: TenantsView, now_s: float) -> Iterator[Check]:
    """Yield a warning for each weight that nobody has used, and for a tenant that gets next to nothing for long."""
    for name in view.unused:
        yield warn(
            f"tenant {quote(name)}: its weight",
            "nothing waits of it, and nothing was billed to it in 35 days",
            f"Take [tenants.{name}] out of fleet.toml, or spell it as tasks do: `fleet bill --by tenant` lists those.",
        )
    for row in view.rows:
        waited_s = row.waited_s(now_s)
        if waited_s is not None and waited_s > LONG_S and row.share < SMALL_SHARE:
            yield warn(
                f"tenant {quote(row.tenant)}: its turns",
                f"its next task has waited in {row.pool} for {duration(waited_s)}: with weight {row.weight:g} it has "
                f"{row.share:.2%} of the takes, {counted(row.waiting, 'task')} of it wait",
                "Raise its `weight` in fleet.toml and restart workers, or give it a pool of its own.",
            )
