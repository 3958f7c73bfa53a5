"""`fleet tenants`: who waits in the queues, for how long, and what share of the takes each has."""

from __future__ import annotations

import json
import time

import click

from fleet import config
from fleet.cli.terminal import table
from fleet.errors import ConfigurationError
from fleet.quoting import counted, duration, nearest, quote
from fleet.signals.tenants.view import TenantView


@click.command()
@click.option("--pool", metavar="POOL", help="Of one pool.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def tenants(pool: str | None, as_json: bool) -> None:
    """Show which tenants' tasks wait, for how long, their weights, and what share of the takes each has.

    Those with the most tasks come first, 1,000 at most. A tenant alone in a queue has all takes (docs/tenants.md).

    \b
    Examples:
      fleet tenants
      fleet tenants --pool research
      fleet tenants --json | jq '.tenants[] | select(.waited_s > 60)'
    """
    from fleet.engine.operations.tenants.board import tenants_view
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    if pool is not None and pool not in settings.pools:
        raise ConfigurationError(f"pool {quote(pool)}: {nearest(pool, list(settings.pools))}")
    with two_redis(settings) as both:
        view = tenants_view(both.broker, settings, None if pool is None else [pool])
    now_s = time.time()
    if as_json:
        told = [row.model_dump(mode="json") | {"waited_s": row.waited_s(now_s)} for row in view.rows]
        more = {"others": view.others, "others_waiting": view.others_waiting}
        click.echo(json.dumps({"tenants": told, **more}, indent=2))
        return
    if not view.rows:
        click.echo("no task of a tenant waits", err=True)
        return
    heads = ("TENANT", "POOL", "WAITING", "NEXT WAITS", "WEIGHT", "SHARE")
    for line in table([heads, *(_cells(row, now_s) for row in view.rows)], left=(0, 1)):
        click.echo(line)
    if view.others:
        click.echo(f"and {counted(view.others, 'more')}, {counted(view.others_waiting, 'task')}", err=True)


def _cells(row: TenantView, now_s: float) -> tuple[str, ...]:
    waited_s = row.waited_s(now_s)
    waited = "?" if waited_s is None else duration(waited_s)
    return row.tenant, row.pool, f"{row.waiting:,}", waited, f"{row.weight:g}", f"{row.share:.1%}"
