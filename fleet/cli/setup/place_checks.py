"""What `fleet doctor` says of tasks of tenants that their queues' lists do not tell of. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.cli.setup.check import Check, warn
from fleet.quoting import counted


def place_checks(lost: Mapping[str, int]) -> Iterator[Check]:
    """Yield a warning for each queue of which more waits than its list tells."""
    for queue, count in lost.items():
        yield warn(
            f"queue {queue}: tenants",
            f"{counted(count, 'task')} of tenants more than LLEN, Flower and KEDA tell: a worker of a release before "
            "0.3 serves the queue, or tasks are being cancelled",
            "Let a worker of this release run: only such a one sees them, and puts their places back in half a minute.",
        )
