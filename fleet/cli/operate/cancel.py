"""`fleet cancel TASK...`: revoke tasks. Celery and redis are imported on use only."""

from __future__ import annotations

import json

import click

from fleet.cli.terminal import say
from fleet.quoting import counted


@click.command()
@click.argument("task_ids", metavar="TASK...", nargs=-1, required=True)
@click.option("--running", is_flag=True, help="Also stop those that run; what they have used so far is counted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def cancel(task_ids: tuple[str, ...], running: bool, as_json: bool) -> None:
    """Keep tasks from starting, wherever they wait, also while no worker is alive.

    Whoever waits for one of them gets Celery's TaskRevokedError. A task that has a result keeps it.

    \b
    Examples:
      fleet cancel 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet cancel --running 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    from fleet.engine.app import app
    from fleet.engine.outcomes.revocation import revoke_here

    ended = revoke_here(task_ids)
    app.control.revoke(list(task_ids), terminate=running)
    if as_json:
        click.echo(json.dumps({"revoked": list(task_ids), "ended": ended}, indent=2))
        return
    others = len(set(task_ids)) - len(ended)
    say(f"{counted(len(set(task_ids)), 'task')} revoked, {len(ended):,} of them waited and ended with it")
    if others:
        what = "is stopped by its worker" if running else "goes on"
        say(f"{others:,} had a result, or were held by a worker: what runs {what}")
