"""`fleet job`: many tasks with one end: how each job stands, cancel it, queue what failed in it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.operate.two_redis import state_client
from fleet.cli.terminal import fitted, say, table
from fleet.quoting import counted, stamp

if TYPE_CHECKING:
    from fleet.engine.jobs.job import FleetJob
    from fleet.jobs import JobState
    from fleet.signals.catalogue import Event

#: Jobs that are listed (count).
LISTED = 50
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.group(invoke_without_command=True)
@_JSON
@click.pass_context
def job(ctx: click.Context, as_json: bool) -> None:
    """Show jobs, many tasks with one end; cancel one, queue what failed in it again.

    Programs submit them with `submit_job`. A job is named by its key or its id.

    \b
    Examples:
      fleet job
      fleet job show mails-2026-11-30
      fleet job cancel mails-2026-11-30 --running
      fleet job replay mails-2026-11-30
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@job.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show the newest jobs: how many of their tasks have ended, and how."""
    _list(as_json=as_json)


@job.command()
@click.argument("name", metavar="JOB")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show how a job stands, and what follows it."""
    found = _found(name)
    state = found.state
    if as_json:
        click.echo(json.dumps(_data(state) | {"then_id": found.then_id}, indent=2))
        return
    click.echo(f"{state.id}  {state.word}")
    click.echo(f"  key        {state.key}")
    click.echo(f"  made       {stamp(state.made_at)}")
    click.echo(f"  tasks      {_told_total(state)}, {state.ended:,} ended")
    ways = {"ok": state.ok, "degraded": state.degraded, "failed": state.failed, "cancelled": state.cancelled}
    click.echo(f"  ended as   {', '.join(f'{count:,} {how}' for how, count in ways.items() if count) or '-'}")
    for what, at in (("cancelled", state.cancelled_at), ("done", state.done_at)):
        if at is not None:
            click.echo(f"  {what:<9}  {stamp(at)}")
    if state.called_at is not None:
        click.echo(f"  then       {found.then_id}, queued {stamp(state.called_at)} (fleet why)")
    if state.failed:
        say(f"`fleet job replay {state.id}` queues what failed again")


@job.command()
@click.argument("name", metavar="JOB")
@click.option("--running", is_flag=True, help="Also stop those that run; what they have used so far is counted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def cancel(name: str, running: bool, yes: bool, as_json: bool) -> None:
    """Keep a job's tasks from starting, wherever they wait; nothing follows it.

    Its results stay, and what runs goes on unless you say --running.

    \b
    Examples:
      fleet job cancel mails-2026-11-30
      fleet job cancel mails-2026-11-30 --running --yes
    """
    from fleet.signals import catalogue

    found = _found(name)
    _confirm(f"cancel {counted(found.state.queued - found.state.ended, 'task')}", yes)
    tally = found.cancel(running=running)
    _record(catalogue.JOB_CANCELLED, {"job": found.id, "ended": tally.waiting, "stopped": running})
    if as_json:
        click.echo(json.dumps({"job": found.id, "waiting": tally.waiting, "held": len(tally.held), "stopped": running}))
        return
    say(f"{counted(tally.waiting, 'waiting task')} cancelled")
    if tally.held:
        what = "are stopped by their workers" if running else "go on, but begin no second time"
        say(f"{counted(len(tally.held), 'task')} held by workers: those {what}")


@job.command()
@click.argument("name", metavar="JOB")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
def replay(name: str, yes: bool, as_json: bool) -> None:
    """Queue a job's failed tasks again, from their dead letters.

    The job ends anew with the last of them. What follows it is not queued a second time.

    \b
    Examples:
      fleet job replay mails-2026-11-30
    """
    from fleet.signals import catalogue

    found = _found(name)
    _confirm(f"queue {counted(found.state.failed, 'failed task')} again", yes)
    outcomes = found.replay()
    _record(catalogue.JOB_REPLAYED, {"job": found.id, "tasks": outcomes["queued"]})
    if as_json:
        click.echo(json.dumps({"job": found.id, **outcomes}))
        return
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
    say(told or "nothing has failed in it")


def _found(name: str) -> FleetJob:
    from fleet.engine.jobs.job import find_job

    return find_job(name)


def _confirm(what: str, yes: bool) -> None:
    """Ask before a whole job is changed; a script must say --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"expected --yes to {what} without being asked")
    click.confirm(f"{what}?", abort=True, err=True)


def _record(event: Event, fields: Mapping[str, object]) -> None:
    from fleet.cli.operate.pools import operator_name
    from fleet.signals.events import record_deed

    with state_client(config.current()) as client:
        record_deed(client, event, operator_name(), **fields)


def _list(*, as_json: bool) -> None:
    from fleet.jobs import JobLedger

    with state_client(config.current()) as client:
        states = JobLedger(client).newest(LISTED)
    if as_json:
        click.echo(json.dumps({"jobs": list(map(_data, states))}, indent=2))
        return
    if not states:
        click.echo("no job is known: programs submit them with submit_job (docs/jobs.md)")
        return
    cells = [
        (one.id, one.key, one.word, f"{one.ended:,} of {_told_total(one)}", f"{one.ok + one.degraded:,}",
         f"{one.failed:,}", f"{one.cancelled:,}", stamp(one.made_at))
        for one in states
    ]  # fmt: skip
    head = ("JOB", "KEY", "STATE", "ENDED", "OK", "FAILED", "CANCELLED", "MADE")
    for line in fitted(table([head, *cells], left=(0, 1, 2, 7))):
        click.echo(line)


def _told_total(state: JobState) -> str:
    return f"{state.queued:,} so far" if state.total is None else f"{state.total:,}"


def _data(state: JobState) -> dict[str, Any]:
    return {**asdict(state), "state": state.word}
