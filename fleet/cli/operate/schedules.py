"""`fleet schedules`: what is submitted by the clock, when next, and what keeps it from that."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.operate.pools import seconds_of
from fleet.cli.operator import operator_name
from fleet.cli.terminal import fitted, say, table
from fleet.errors import ConfigurationError
from fleet.quoting import counted, nearest, quote, stamp
from fleet.store.private.two_redis import state_client

if TYPE_CHECKING:
    from fleet.engine.operations.schedules.view import ScheduleView

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.group(invoke_without_command=True)
@_JSON
@click.pass_context
def schedules(ctx: click.Context, as_json: bool) -> None:
    """Show what is submitted by the clock, and when next; pause it, or run it now.

    Schedules stand in fleet.toml, [schedules.NAME]; `celery -A fleet beat` submits their tasks, and `fleet up` runs it.

    \b
    Examples:
      fleet schedules
      fleet schedules show morning
      fleet schedules pause morning --for 8h
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@schedules.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show all schedules: when, next, last, and what is wrong."""
    _list(as_json=as_json)


@schedules.command()
@click.argument("name")
@_JSON
def show(name: str, as_json: bool) -> None:
    """Show one schedule with its next times."""
    (view,) = _views(_known(name))
    if as_json:
        click.echo(json.dumps(_data(view), indent=2))
        return
    click.echo(f"{view.name}  {view.state}")
    click.echo(f"  when      {view.rule}; missed times: {view.missed}")
    click.echo(f"  next      {', '.join(map(stamp, view.next)) or '-'}")
    last = "none yet" if view.sent_for is None else f"{stamp(view.sent_for)}: {counted(view.tasks, 'task')}"
    click.echo(f"  last      {last}{f', {view.task_id} (fleet why)' if view.task_id else ''}")
    if view.skipped:
        click.echo(f"  left out  {counted(view.skipped, 'time')} since it was first seen")
    click.echo(f"  tasks     fleet tasks --metadata schedule={view.name}")


@schedules.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def run(name: str, as_json: bool) -> None:
    """Submit a schedule's tasks now, and print their ids; its next time stays."""
    from fleet.engine.operations.schedules.firing import submit
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed

    settings = config.current()
    ids = submit(_known(name), settings.schedules[name], time.time(), by_hand=True)
    click.echo(json.dumps({"schedule": name, "task_ids": ids}) if as_json else "\n".join(ids))
    with state_client(settings) as client:
        record_deed(client, catalogue.SCHEDULE_RUN, operator_name(), schedule=name, tasks=len(ids))


@schedules.command()
@click.argument("name")
@click.option("--for", "for_s", callback=seconds_of, metavar="TIME", help="Resume after, e.g., 90s, 10m, 2h.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def pause(name: str, for_s: float | None, as_json: bool) -> None:
    """Leave out a schedule's times until it is resumed; tasks that it has submitted go on."""
    from fleet.schedules import ScheduleBook
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed

    until = math.inf if for_s is None else time.time() + for_s
    told = "it is resumed" if for_s is None else stamp(until)
    with state_client(config.current()) as client:
        ScheduleBook(client).pause(_known(name), until=until, by=operator_name())
        record_deed(client, catalogue.SCHEDULE_PAUSED, operator_name(), schedule=name, until=told)
    if as_json:
        click.echo(json.dumps({"schedule": name, "paused_until": None if for_s is None else until}))
        return
    say(f"{name} is paused until {told}")


@schedules.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def resume(name: str, as_json: bool) -> None:
    """Submit at a schedule's times again; those that went by stay left out."""
    from fleet.schedules import ScheduleBook
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed

    with state_client(config.current()) as client:
        was_paused = ScheduleBook(client).resume(_known(name))
        if was_paused:
            record_deed(client, catalogue.SCHEDULE_RESUMED, operator_name(), schedule=name)
    if as_json:
        click.echo(json.dumps({"schedule": name, "was_paused": was_paused}))
        return
    say(f"{name} goes on" if was_paused else f"{name} was not paused")


def _known(name: str) -> str:
    known = config.current().schedules
    if name not in known:
        told = nearest(name, list(known)) if known else "fleet.toml has no [schedules.NAME]"
        raise ConfigurationError(f"schedule {quote(name)}: {told}")
    return name


def _views(*names: str) -> list[ScheduleView]:
    from fleet.engine.operations.schedules.view import read_schedules

    settings = config.current()
    with state_client(settings) as client:
        board = read_schedules(client, settings, time.time())
    return [view for view in board.schedules if not names or view.name in names]


def _list(*, as_json: bool) -> None:
    from fleet.engine.operations.schedules.view import read_schedules

    settings = config.current()
    with state_client(settings) as client:
        board = read_schedules(client, settings, time.time())
    if as_json:
        data = {"schedules": list(map(_data, board.schedules)), "beats": board.beats, "trouble": board.trouble}
        click.echo(json.dumps(data, indent=2))
        return
    if not board.schedules:
        click.echo("nothing is submitted by the clock: fleet.toml has no [schedules.NAME]")
        return
    cells = [
        (one.name, one.rule, "-" if not one.next else stamp(one.next[0]),
         "-" if one.sent_for is None else stamp(one.sent_for), f"{one.tasks:,}", one.state)
        for one in board.schedules
    ]  # fmt: skip
    head = ("SCHEDULE", "WHEN", "NEXT", "LAST", "TASKS", "STATE")
    for line in fitted(table([head, *cells], left=(0, 1, 2, 3, 5))):
        click.echo(line)
    if board.trouble:
        say(board.trouble)


def _data(view: ScheduleView) -> dict[str, Any]:
    from dataclasses import asdict

    data = asdict(view)
    if view.paused_until is not None and math.isinf(view.paused_until):
        data["paused_until"] = "resumed"  # JSON has no infinity
    return data
