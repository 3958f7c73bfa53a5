"""`fleet job`: many tasks with one end: how each job stands, seal or cancel it, queue what failed in it again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.terminal import fitted, say, table
from fleet.errors import GiveUp
from fleet.quoting import counted, duration, stamp
from fleet.store.private.two_redis import state_client

if TYPE_CHECKING:
    from fleet.engine.jobs.job import FleetJob
    from fleet.signals.jobs.view import JobView

#: Jobs that are listed (count), and members of one that are named.
LISTED, NAMED = 50, 5
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.group(invoke_without_command=True)
@_JSON
@click.pass_context
def job(ctx: click.Context, as_json: bool) -> None:
    """Show jobs, many tasks with one end; seal or cancel one, queue what failed in it again.

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
    """Show jobs, those that are not over first: how many of their tasks have ended, and how."""
    _list(as_json=as_json)


@job.command()
@click.argument("name", metavar="JOB")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show how a job stands, and what follows it."""
    from fleet.engine.operations.jobs.board import members_of, read_job

    found = _found(name)
    with state_client(config.current()) as client:
        view = read_job(client, found.id, time.time())
        if view is None:
            raise GiveUp(f"expected job {found.id}, got none: it was forgotten just now")
        some = {how: members_of(client, view, how, NAMED) for how in ("failed", "pending")}
    if as_json:
        click.echo(json.dumps(_data(view) | {"then_id": found.then_id, "first": some}, indent=2))
        return
    for line in _told(view, some):
        click.echo(line)
    if view.failed:
        say(f"`fleet job replay {view.id}` queues what failed again")


def _told(view: JobView, some: dict[str, list[str]]) -> Iterator[str]:
    now_s = time.time()
    yield f"{view.id}  {view.word}"
    ways = {"ok": view.ok, "degraded": view.degraded, "failed": view.failed, "cancelled": view.cancelled}
    facts = {
        "key": view.key,
        "made": stamp(view.made_at),
        "tasks": view.line,
        "ended as": ", ".join(f"{count:,} {how}" for how, count in ways.items() if count) or "-",
        "pace": f"{view.per_minute:,.0f} a minute" if view.per_minute else "",
        "moved": f"{duration(now_s - view.moved_at)} ago" if view.is_live else "",
        "trouble": view.trouble,
        "done": stamp(view.done_at) if view.done_at else "",
        "then": _told_follower(view),
        **{f"{how}, first": ", ".join(ids) for how, ids in some.items() if ids},
    }
    for name, value in facts.items():
        if value:
            yield f"  {name:<15}{value}"


def _told_follower(view: JobView) -> str:
    if not view.has_follower:
        return ""
    return (
        f"{view.then_id}, {f'queued {stamp(view.called_at)}' if view.called_at else 'when all have ended'} (fleet why)"
    )


@job.command()
@click.argument("name", metavar="JOB")
@_JSON
def seal(name: str, as_json: bool) -> None:
    """Let an open job get no more tasks: it ends with those that it has, and what follows it follows.

    For one whose producer does not come back. Run the producer again under the same key if more tasks are to come.

    \b
    Examples:
      fleet job seal mails-2026-11-30
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.jobs.levers import seal_job

    found = _found(name)
    seal_job(found, by=operator_name())
    state = found.state
    if as_json:
        click.echo(json.dumps({"job": found.id, "state": state.word, "total": state.total}))
    else:
        say(f"it is {state.word}: {counted(state.total or 0, 'task')}, {state.ended:,} ended")


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
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.jobs.levers import cancel_job, told_cancel

    found = _found(name)
    _confirm(f"cancel {counted(found.state.queued - found.state.ended, 'task')}", yes)
    tally = cancel_job(found, running=running, by=operator_name())
    if as_json:
        click.echo(json.dumps({"job": found.id, "waiting": tally.waiting, "held": len(tally.held), "stopped": running}))
        return
    say(told_cancel(tally, running=running))


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
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.jobs.levers import replay_job, told_replay

    found = _found(name)
    _confirm(f"queue {counted(found.state.failed, 'failed task')} again", yes)
    outcomes = replay_job(found, by=operator_name())
    if as_json:
        click.echo(json.dumps({"job": found.id, **outcomes}))
        return
    say(told_replay(outcomes))


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


def _list(*, as_json: bool) -> None:
    from fleet.engine.operations.jobs.board import read_jobs

    with state_client(config.current()) as client:
        found = read_jobs(client, time.time(), count=LISTED)
    if as_json:
        click.echo(json.dumps({"live": found.live, "jobs": list(map(_data, found.jobs))}, indent=2))
        return
    if not found.jobs:
        click.echo("no job is known: programs submit them with submit_job (docs/jobs.md)")
        return
    cells = [
        (one.id, one.key, one.word, f"{one.ended:,} of {one.members:,}{' so far' if one.total is None else ''}",
         duration(one.left_s) if one.left_s is not None else "-", f"{one.ok + one.degraded:,}", f"{one.failed:,}",
         f"{one.cancelled:,}", stamp(one.made_at))
        for one in found.jobs
    ]  # fmt: skip
    head = ("JOB", "KEY", "STATE", "ENDED", "LEFT", "OK", "FAILED", "CANCELLED", "MADE")
    for line in fitted(table([head, *cells], left=(0, 1, 2, 8))):
        click.echo(line)
    for one in found.jobs:
        if one.trouble:
            say(f"{one.key}: {one.trouble}")


def _data(view: JobView) -> dict[str, Any]:
    return {"state": view.word, **view.model_dump(exclude={"word"})}
