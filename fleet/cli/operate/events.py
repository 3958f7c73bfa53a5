"""`fleet events`: what happened to the fleet, and who did what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.terminal import fitted
from fleet.quoting import stamp

if TYPE_CHECKING:
    from fleet.signals.view import EventView


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=30, show_default=True, help="Events at most.")
@click.option("--name", help="Only events of this name, such as pool_paused.")
@click.option("--by", help="Only what this user did, on the page or in a shell.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, the newest event first.")
def events(limit: int, name: str | None, by: str | None, as_json: bool) -> None:
    """Show what happened to the fleet, and who did what; the newest last.

    \b
    Examples:
      fleet events
      fleet events --by anna
      fleet events --name bot_quarantined --json | jq '.events[].fields'
    """
    from fleet.signals.catalogue import EVENTS

    if name is not None and name not in EVENTS:
        raise click.BadParameter(f"expected one of {', '.join(sorted(EVENTS))}, got {name!r}", param_hint="--name")
    found = [event for event in _read() if name in (None, event.name) and by in (None, event.fields.get("by"))][:limit]
    if as_json:
        click.echo(json.dumps({"events": [event.model_dump() for event in found]}, indent=2))
        return
    click.echo("\n".join(fitted([_line(event) for event in reversed(found)])) or "no such event")


def _read() -> tuple[EventView, ...]:
    from fleet.signals.picture import events_of
    from fleet.store import keys
    from fleet.store.client import connect, store_errors
    from fleet.store.private.embedded import state_url

    settings = config.current()
    url = state_url(settings)
    with store_errors(url), connect(url, timeout_s=settings.redis.socket_timeout_s) as client:
        return events_of(client.xrevrange(keys.events()))


def _line(event: EventView) -> str:
    return f"{stamp(event.at)}  {event.level:<7}  {event.name}  {event.whole}"
