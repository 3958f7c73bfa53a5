"""`fleet scaling`: how many slots and workers are wanted, who decided it, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.terminal import fitted, table
from fleet.quoting import counted

if TYPE_CHECKING:
    from fleet.scaling.wanted import WantedSlots


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def scaling(as_json: bool) -> None:
    """Show how many slots and workers are wanted, and why.

    `fleet up --autoscale MIN:MAX` decides it every 5 s, and its workers go by it; in a cluster KEDA asks Flower for it
    (docs/scaling.md). Where nobody has decided lately, it is worked out here and nothing goes by it.

    \b
    Examples:
      fleet scaling
      fleet scaling --json | jq .decision.workers
    """
    from fleet.engine.operations.scaling.deciding import look
    from fleet.store.private.two_redis import two_redis

    with two_redis(config.current()) as both:
        wanted, is_gone_by = look(both.state, both.broker, config.current())
    if as_json:
        click.echo(wanted.model_dump_json(indent=2))
        return
    for line in fitted(_lines(wanted, is_gone_by)):
        click.echo(line)


def _lines(wanted: WantedSlots, is_gone_by: bool) -> Iterator[str]:
    decision = wanted.decision
    yield (
        f"{counted(decision.slots, 'slot')} wanted, {counted(decision.workers, 'worker')}; there are "
        f"{counted(wanted.slots, 'slot')}, {counted(wanted.crew, 'worker')}"
    )
    yield f"because {decision.reason}"
    yield f"decided by {wanted.by}" if is_gone_by else "nobody goes by it: `fleet up --autoscale MIN:MAX` does"
    rows = [(one.pool, f"{one.slots:.1f}", f"{one.per_s:.3g}", one.why) for one in decision.pools]
    yield from table([("POOL", "SLOTS", "TASKS/S", "WHY"), *rows], left=(0, 3))
