"""`fleet cache`: what is kept of the answers of deterministic kinds, what that has saved; drop it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.terminal import say, table
from fleet.errors import ConfigurationError
from fleet.money import dollars_of
from fleet.quoting import counted, nearest, quote

if TYPE_CHECKING:
    import redis

#: What a task class, or a tenant, may be called (`fleet/models.py`).
_NAME = r"[A-Za-z0-9_.-]{1,64}"
#: What the kinds are called that fleet.toml does not name: no kind can have the name.
_OTHERS = "(other kinds)"


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def cache(ctx: click.Context, as_json: bool) -> None:
    """Show what is kept of the answers of deterministic kinds, and what they have saved; drop them.

    A kind is one by `[kinds.NAME] deterministic = true`: equal tasks are asked once (docs/caching.md).

    \b
    Examples:
      fleet cache
      fleet cache --json | jq '.kinds[] | {kind, hit_share, saved_usd}'
      fleet cache clear --kind classify
    """
    if ctx.invoked_subcommand is None:
        _show(as_json=as_json)


@cache.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_(as_json: bool) -> None:
    """Show what is kept, and what it has saved: the same as `fleet cache` alone."""
    _show(as_json=as_json)


@cache.command()
@click.argument("kind", metavar="KIND")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(kind: str, as_json: bool) -> None:
    """Show what is kept of one kind, and what it has saved.

    \b
    Examples:
      fleet cache show classify --json
    """
    _show(kind, as_json=as_json)


@cache.command()
@click.option("--kind", help="Of this kind only.")
@click.option("--tenant", help="Of this tenant's tasks only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def clear(kind: str | None, tenant: str | None, as_json: bool) -> None:
    """Drop kept answers: the next equal task is asked. What they have saved stays counted.

    \b
    Examples:
      fleet cache clear
      fleet cache clear --kind classify
      fleet cache clear --tenant acme --json
    """
    from fleet.cli.operator import operator_name
    from fleet.economy.cache.reading import drop_all, kinds_kept
    from fleet.engine.operations.money.cached import drop_of_tenant
    from fleet.signals.catalogue import CACHE_CLEARED
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client

    for name, value in (("--kind", kind), ("--tenant", tenant)):
        if value is not None and not re.fullmatch(_NAME, value):
            raise click.UsageError(f"{name}: expected 1 to 64 letters, digits, `_`, `.` or `-`, got {quote(value)}")
    with state_client(config.current()) as client:
        known = kinds_kept(client)
        if kind is not None and kind not in {*known, *config.current().kinds}:
            raise click.UsageError(f"--kind: unknown kind, {nearest(kind, [*known, *config.current().kinds])}")
        chosen = known if kind is None else [kind]
        dropped = sum(
            drop_all(client, one) if tenant is None else drop_of_tenant(client, one, tenant) for one in chosen
        )
        record_deed(client, CACHE_CLEARED, operator_name(), kind=kind or "all", answers=dropped)
    if as_json:
        click.echo(json.dumps({"dropped": dropped}))
        return
    say(f"{counted(dropped, 'kept answer')} dropped")


def _show(kind: str | None = None, *, as_json: bool) -> None:
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        rows = _rows(client)
    if kind is not None:
        if kind not in (known := [row["kind"] for row in rows]):
            told = f"expected one of {', '.join(known)}" if known else "no kind is deterministic"
            raise ConfigurationError(f"kind: {told}, got {quote(kind)}")
        rows = [row for row in rows if row["kind"] == kind]
    if as_json:
        click.echo(json.dumps({"kinds": rows}, indent=2))
        return
    if not rows:
        click.echo("no kind is deterministic: [kinds.NAME] in fleet.toml says which are (docs/caching.md)")
        return
    cells = [
        (
            row["kind"] or _OTHERS, f"{row['answers']:,}", f"{row['bytes'] / 1e6:,.1f} MB", f"{row['hits']:,}",
            f"{row['misses']:,}", "-" if row["hit_share"] is None else f"{row['hit_share']:.0%}",
            f"${row['saved_usd']:,.4f}",
        )
        for row in rows
    ]  # fmt: skip
    head = ("KIND", "KEPT", "SIZE", "HITS", "ASKED", "HIT SHARE", "SAVED")
    for line in table([head, *cells], left=(0,)):
        click.echo(line)


def _rows(client: redis.Redis) -> list[dict[str, Any]]:
    """Return what is kept and counted of each kind that is deterministic, or was."""
    from fleet.economy.cache.reading import kept_of
    from fleet.engine.operations.money.cached import read_counts

    counts = {row.kind: row for row in read_counts(client, config.current())}
    return [
        {
            "kind": one.kind, "answers": one.answers, "bytes": one.bytes, "hits": counts[one.kind].hits,
            "misses": counts[one.kind].misses, "hit_share": counts[one.kind].hit_share,
            "saved_usd": dollars_of(counts[one.kind].saved_usd_micros * 1_000_000),
        }
        for one in kept_of(client, list(counts))
    ]  # fmt: skip
