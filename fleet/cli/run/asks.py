"""`fleet asks`: the newest asks, one question to several bots each: what came of them, who was asked, what was left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.terminal import fitted, table
from fleet.errors import GiveUp
from fleet.quoting import counted, quote, stamp
from fleet.store.private.two_redis import state_client

if TYPE_CHECKING:
    from fleet.engine.asking.recent import RecentAsk

#: Asks that are listed (count).
LISTED = 50
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.group(invoke_without_command=True)
@_JSON
@click.pass_context
def asks(ctx: click.Context, as_json: bool) -> None:
    """Show the newest asks: one question to several bots (`fleet ask`, `ask_fleet`), and what came of them.

    Of their words nothing is kept: answers are numbers, of equal ones the same.

    \b
    Examples:
      fleet asks
      fleet asks show 3f9c2a71b0de
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@asks.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show the newest asks: who agreed, how many were asked, what it cost."""
    _list(as_json=as_json)


@asks.command()
@click.argument("ask_id", metavar="ASK")
@_JSON
def show(ask_id: str, as_json: bool) -> None:
    """Show one ask with its members: which bot, how it ended, whose answer it shares."""
    from fleet.engine.asking.recent import MOST_KEPT

    found = next((one for one in _read(MOST_KEPT) if one.ask_id == ask_id), None)
    if found is None:
        raise GiveUp(f"expected the id of one of the newest {MOST_KEPT:,} asks, got {quote(ask_id)}: see `fleet asks`")
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), indent=2))
        return
    click.echo(f"{found.ask_id}  {found.status}")
    click.echo(f"  {found.line}")
    spared = f" · {counted(found.spared, 'member')} never asked" if found.spared else ""
    click.echo(f"  {found.aggregate} · kind {found.kind} · {_cost(found)} · {found.took_ms:,} ms{spared}")
    if found.error:
        click.echo(f"  error {found.error}")
    rows = [
        (one.task_id, one.status, "-" if one.side is None else f"answer {one.side + 1}", one.bot or one.pool or "-",
         one.error or "")
        for one in found.members
    ]  # fmt: skip
    for line in fitted(table([("MEMBER", "STATUS", "VOTE", "BOT", "ERROR"), *rows], left=(0, 1, 2, 3, 4))):
        click.echo(line)


def _read(count: int) -> list[RecentAsk]:
    from fleet.engine.asking.recent import read_recent

    with state_client(config.current()) as client:
        return read_recent(client, count)


def _cost(ask: RecentAsk) -> str:
    return "cost unknown" if ask.cost_usd_picos is None else f"${ask.cost_usd_picos / 1e12:.6f}"


def _list(*, as_json: bool) -> None:
    found = _read(LISTED)
    if as_json:
        click.echo(json.dumps({"asks": [one.model_dump(mode="json", exclude={"members"}) for one in found]}, indent=2))
        return
    if not found:
        click.echo("no ask is known: `fleet ask` or ask_fleet puts one question to several bots (docs/answers.md)")
        return
    rows = [
        (one.ask_id, one.status, one.kind, one.line, _cost(one), f"{one.took_ms:,} ms", stamp(one.at)) for one in found
    ]
    for line in fitted(
        table([("ASK", "STATUS", "KIND", "OUTCOME", "COST", "TOOK", "AT"), *rows], left=(0, 1, 2, 3, 6))
    ):
        click.echo(line)
