"""`fleet budgets`: what may be spent, what is spent of it, and when it ends; and budgets set while the fleet runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import click

from fleet import config
from fleet.cli.finite import FiniteRange
from fleet.cli.terminal import say, table
from fleet.config import Settings, WhenFull
from fleet.config.budgets import AMOUNTS
from fleet.errors import ConfigurationError
from fleet.limiter import LimitSnapshot
from fleet.quoting import quote
from fleet.signals.ahead.budget_view import BudgetScopeView

#: How a limit's day is named among the scopes.
_LIMIT = "limit:"


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def budgets(ctx: click.Context, as_json: bool) -> None:
    """Show budgets, what is spent of them and when they end; set them while the fleet runs.

    A SCOPE is fleet, pool:NAME, tenant:NAME, bot:NAME or run:ID; tenant:* and bot:* stand for each of them by itself.

    \b
    Examples:
      fleet budgets
      fleet budgets show pool:research
      fleet budgets set tenant:acme --usd-per-day 20
      fleet budgets reset tenant:acme
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@budgets.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_budgets(as_json: bool) -> None:
    """List the budgets: the same as `fleet budgets` alone.

    \b
    Examples:
      fleet budgets list --json | jq '.budgets[] | select(.share > 0.8)'
    """
    _list(None, as_json=as_json)


@budgets.command()
@click.argument("scope", metavar="SCOPE|PROVIDER/MODEL[/KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(scope: str, as_json: bool) -> None:
    """Show the budget of one scope, or of one limit.

    \b
    Examples:
      fleet budgets show fleet
      fleet budgets show openai/gpt-5
    """
    _list(scope, as_json=as_json)


@budgets.command("set")
@click.argument("scope")
@click.option("--usd-per-hour", type=FiniteRange(0), help="US dollars per hour (UTC); 0: not limited.")
@click.option("--usd-per-day", type=FiniteRange(0), help="US dollars per day (UTC); 0: not limited.")
@click.option("--usd-per-month", type=FiniteRange(0), help="US dollars per calendar month; 0: not limited.")
@click.option("--usd-in-all", type=FiniteRange(0), help="US dollars in all; 0: not limited.")
@click.option(
    "--when-full", type=click.Choice(["wait", "degrade", "stop bulk"]), help="What it does when it is used up."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def set_budget(scope: str, when_full: WhenFull | None, as_json: bool, **amounts: float | None) -> None:
    """Set a budget for all workers at once; it wins over fleet.toml until it is reset.

    What is not named stays as it is. What waits for a budget that is raised goes on.

    \b
    Examples:
      fleet budgets set fleet --usd-per-day 100
      fleet budgets set pool:research --usd-per-hour 2 --when-full "stop bulk"
      fleet budgets set "tenant:*" --usd-per-month 50
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations import budgets as office
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import two_redis

    changes = {name: usd for name, usd in amounts.items() if usd is not None}
    if not changes and when_full is None:
        raise click.UsageError("expected at least one amount to set, or --when-full")
    settings = config.current()
    office.check_change(scope, changes, settings)
    with two_redis(settings) as both:
        held = office.set_budget(both.state, scope, changes, settings=settings, when_full=when_full)
        told = office.told_settings(held)
        record_deed(both.state, catalogue.BUDGET_CHANGED, operator_name(), scope=scope, now=told)
        office.let_go(both.broker, settings, scope)
    if as_json:
        _list(scope, as_json=True, may_be_none=True)
    else:
        click.echo(f"{scope}: {'not limited' if held is None else told}")


@budgets.command()
@click.argument("scope")
@click.option(
    "--spent", "spent_too", is_flag=True, help="Forget what it has spent, too: all of its periods begin anew."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def reset(scope: str, spent_too: bool, as_json: bool) -> None:
    """Let what fleet.toml says of a scope hold again; what it has spent stays counted, unless --spent.

    \b
    Examples:
      fleet budgets reset pool:research
      fleet budgets reset tenant:acme --spent
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations import budgets as office
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    office.check_scope(scope, settings)
    with two_redis(settings) as both:
        was_set, had = office.forget_budget(both.state, scope, spent_too=spent_too)
        forgotten = f"${had:,.4f} spent are forgotten" if spent_too else "what it has spent stays counted"
        told = f"{'as configured' if was_set else 'as configured, as before'}; {forgotten}"
        record_deed(both.state, catalogue.BUDGET_CHANGED, operator_name(), scope=scope, now=told)
        office.let_go(both.broker, settings, scope)
    if as_json:
        _list(scope, as_json=True, may_be_none=True)
    else:
        click.echo(f"{scope}: {told}")


def _list(name: str | None, *, as_json: bool, may_be_none: bool = False) -> None:
    from fleet.cli.operate.breakers import full_name
    from fleet.cli.operate.limits import read_limits
    from fleet.engine.operations.budgets import check_spelling, read_budget_views
    from fleet.engine.operations.paces import read_series
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    is_limit = name is not None and "/" in name
    limit = full_name(name, settings) if is_limit and name is not None else None
    if name is not None and not is_limit:
        check_spelling(name, settings)
    snapshots = [one for one in asyncio.run(read_limits(settings)) if name is None or one.limit == limit]
    views: list[BudgetScopeView] = []
    if not is_limit:
        with state_client(settings) as state:
            series = read_series(state, settings.pools)
            scopes = None if name is None else [name]
            views = list(read_budget_views(state, settings, series, time.time(), scopes=scopes))
            if name is not None and not views and not may_be_none:
                others = read_budget_views(state, settings, series, time.time())
                _refuse(name, [one.scope for one in others], settings)
    if as_json:
        click.echo(json.dumps({"budgets": [*map(_scope_data, views), *map(_as_data, snapshots)]}, indent=2))
        return
    heads = ("BUDGET", "FOR", "SPENT", "ALLOWED", "RESERVED", "REQUESTS", "ALLOWED", "AT THIS PACE")
    for line in table([heads, *(row for view in views for row in _scope_rows(view)), *map(_cells, snapshots)]):
        click.echo(line)
    if not views and not any(one.usd_micros_per_day or one.requests_per_day for one in snapshots):
        say(
            'no budget is set: expected [budgets.fleet] or [budgets."pool:NAME"] in fleet.toml, or `fleet budgets set '
            "SCOPE --usd-per-day`; of one limit: `fleet limits set ... --usd-per-day`"
        )


def _refuse(name: str, scopes: list[str], settings: Settings) -> None:
    """Say that a scope has no budget, or is none."""
    from fleet.engine.operations.budgets import check_scope

    check_scope(name, settings)
    raise ConfigurationError(
        f"SCOPE: expected one that has a budget ({', '.join(scopes[:20]) or 'none has one'}), got {quote(name)}; "
        f"`fleet budgets set {name}` gives it one"
    )


def _scope_rows(view: BudgetScopeView) -> Iterator[tuple[str, ...]]:
    live = " (set live)" if view.is_live and not view.scope.startswith("run:") else ""
    for place, one in enumerate(view.amounts):
        first = not place
        pace = one.line.rpartition(", ")[2]
        yield (
            f"{view.scope}{live}" if first else "", "in all" if one.period == "in all" else f"a {one.period}",
            _usd(one.spent_usd), _usd(one.allowed_usd), _usd(view.reserved_usd) if first else "", "", "", pace,
        )  # fmt: skip


def _scope_data(view: BudgetScopeView) -> dict[str, Any]:
    allowed: dict[str, float | None] = dict.fromkeys(AMOUNTS)
    spent = dict(allowed)
    for one in view.amounts:
        name = "usd_in_all" if one.period == "in all" else f"usd_per_{one.period}"
        allowed[name], spent[name] = one.allowed_usd, one.spent_usd
    return {
        "scope": view.scope,
        "limit": None,
        **allowed,
        "spent": {name: usd for name, usd in spent.items() if usd is not None},
        "reserved_usd": view.reserved_usd,
        "share": view.share,
        "when_full": view.when_full,
        "is_live": view.is_live,
        "amounts": [one.model_dump() for one in view.amounts],
    }


def _as_data(one: LimitSnapshot) -> dict[str, Any]:
    return {
        "scope": f"{_LIMIT}{one.limit}",
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
    return one.limit, "a day", used, allowed, reserved, f"{one.used_requests:,}", requests, ""


def _usd(dollars: float) -> str:
    return f"${dollars:,.6f}" if 0 < dollars < 0.01 else f"${dollars:,.4f}" if dollars < 100 else f"${dollars:,.2f}"
