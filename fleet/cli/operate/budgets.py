"""`fleet budgets`: what each limit allows a day, and what is used. Also the API budget part of the third signal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from fleet import config
from fleet.cli.terminal import say, table
from fleet.config import KEY_LABEL, Settings
from fleet.limiter import Limiter, LimitSnapshot
from fleet.signals import BudgetRow
from fleet.store.client import Store


def read_budgets(settings: Settings, url: str) -> tuple[BudgetRow, ...]:
    """Return one row per limit, in the order of the pools that use it.

    Args:
        settings: Pools and their limits.
        url: State Redis.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    return asyncio.run(_read(settings, url))


async def _read(settings: Settings, url: str) -> tuple[BudgetRow, ...]:
    limits = {f"{name}/{KEY_LABEL}": rates for name, rates in settings.limits_in_use.items()}
    store = Store(url, timeout_s=settings.redis.socket_timeout_s)
    try:
        limiter = Limiter(store, limits)
        return tuple([_row(await limiter.snapshot(name)) for name in limits])
    finally:
        await store.close()


def _row(limit: LimitSnapshot) -> BudgetRow:
    return BudgetRow(
        limit=limit.limit,
        rpm=limit.rpm,
        tpm=limit.tpm,
        used_rpm=limit.used_rpm,
        used_tpm=limit.used_tpm,
        held_until=limit.held_until,
    )


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead.")
@click.pass_context
def budgets(ctx: click.Context, as_json: bool) -> None:
    """Show what each limit allows a day, and what is used of it.

    \b
    Examples:
      fleet budgets
      fleet budgets show openai/gpt-5
      fleet limits set openai/gpt-5 --usd-per-day 20
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@budgets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead.")
def list_budgets(as_json: bool) -> None:
    """List the budgets: the same as `fleet budgets` alone.

    \b
    Examples:
      fleet budgets list --json | jq '.[] | select(.usd_per_day)'
    """
    _list(None, as_json=as_json)


@budgets.command()
@click.argument("limit", metavar="PROVIDER/MODEL[/KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead.")
def show(limit: str, as_json: bool) -> None:
    """Show the budget of one limit.

    \b
    Examples:
      fleet budgets show openai/gpt-5
    """
    from fleet.cli.operate.limits import full_name

    _list(full_name(limit, config.current()), as_json=as_json)


def _list(name: str | None, *, as_json: bool) -> None:
    from fleet.cli.operate.limits import read_limits

    snapshots = [one for one in asyncio.run(read_limits(config.current())) if name in (None, one.limit)]
    if as_json:
        click.echo(json.dumps([_as_data(one) for one in snapshots], indent=2))
        return
    heads = ("LIMIT", "USED TODAY", "RESERVED", "ALLOWED A DAY", "REQUESTS TODAY", "ALLOWED A DAY")
    for line in table([heads, *map(_cells, snapshots)]):
        click.echo(line)
    if not any(one.usd_micros_per_day or one.requests_per_day for one in snapshots):
        say("no budget is set: expected usd_per_day of a limit in fleet.toml, or `fleet limits set ... --usd-per-day`")


def _as_data(one: LimitSnapshot) -> dict[str, Any]:
    return {
        "limit": one.limit,
        "usd_per_day": None if one.usd_micros_per_day is None else one.usd_micros_per_day / 1e6,
        "used_usd": one.used_usd_micros / 1e6,
        "reserved_usd": one.reserved_usd_micros / 1e6,
        "requests_per_day": one.requests_per_day,
        "used_requests": one.used_requests,
    }


def _cells(one: LimitSnapshot) -> tuple[str, ...]:
    allowed = "no budget" if one.usd_micros_per_day is None else f"${one.usd_micros_per_day / 1e6:,.2f}"
    requests = "no budget" if one.requests_per_day is None else f"{one.requests_per_day:,}"
    used, reserved = f"${one.used_usd_micros / 1e6:,.4f}", f"${one.reserved_usd_micros / 1e6:,.4f}"
    return one.limit, used, reserved, allowed, f"{one.used_requests:,}", requests
