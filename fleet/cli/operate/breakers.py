"""`fleet breakers`: whether calls to a provider wait, and why; close a breaker by hand.

Also `fleet limits reset-breaker`, as it was called before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.terminal import fitted, table
from fleet.errors import ConfigurationError
from fleet.quoting import quote, stamp

if TYPE_CHECKING:
    from fleet.resilience import BreakerView


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def breakers(ctx: click.Context, as_json: bool) -> None:
    """Show the breaker of each provider, model and key; close one by hand.

    \b
    Examples:
      fleet breakers
      fleet breakers show openai/gpt-5
      fleet breakers reset openai/gpt-5
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@breakers.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_breakers(as_json: bool) -> None:
    """List the breakers: the same as `fleet breakers` alone.

    \b
    Examples:
      fleet breakers list --json | jq '.breakers[] | select(.state != "closed")'
    """
    _list(None, as_json=as_json)


@breakers.command()
@click.argument("limit", metavar="PROVIDER/MODEL[/KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(limit: str, as_json: bool) -> None:
    """Show one breaker: its state, why calls wait and until when, failures of the last 30 seconds.

    \b
    Examples:
      fleet breakers show openai/gpt-5
    """
    _list(full_name(limit, config.current()), as_json=as_json)


def _list(limit: str | None, *, as_json: bool) -> None:
    from fleet.resilience import read_breakers_now
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    names = [limit] if limit else list(settings.limits_by_key)
    with state_client(settings) as client:
        found = read_breakers_now(client, names)
    if as_json:
        click.echo(json.dumps({"breakers": [asdict(one) for one in found]}, indent=2))
        return
    if limit:
        click.echo("\n".join(fitted(_story(found[0]))))
        return
    cells = [(one.limit, one.state, f"{one.failed:,}", f"{one.well:,}", _why(one)) for one in found]
    for line in table([("LIMIT", "STATE", "FAILED", "WELL", "WHY"), *cells], left=(0, 1, 4)):
        click.echo(line)


def _story(one: BreakerView) -> Iterator[str]:
    yield f"{one.limit}: {one.state}"
    if one.since is not None:
        yield f"  since     {stamp(one.since)}"
    if one.wait is not None:
        until = f", next try at {stamp(one.wait.opens_at)}" if one.wait.opens_at else ""
        yield f"  calls     wait: {_why(one)}{until}"
        yield f"  probes    {one.tries:,} have failed in a row"
    yield f"  last 30 s {one.failed:,} failed ({one.timed_out:,} got no answer in time), {one.well:,} did well"


def _why(one: BreakerView) -> str:
    return "" if one.wait is None else f"{one.wait.cause}{f': {one.wait.told}' if one.wait.told else ''}"


@click.command(name="reset-breaker")
@click.argument("limit", metavar="PROVIDER/MODEL[/KEY]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def reset_breaker(limit: str, as_json: bool) -> None:
    """Close the breaker of a provider, model and key at once, and let the tasks behind it go.

    If the provider still fails, it opens again. A wrong key or address needs no reset: the breaker closes when the
    workers start with another one.

    \b
    Examples:
      fleet limits reset-breaker openai/gpt-5
      fleet limits reset-breaker openai/gpt-5 --json | jq .was_open
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.process.breaking import behind, lift_now
    from fleet.resilience import BREAKING, close_breaker, gates_are_open
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import two_redis
    from fleet.waits import CAUSES

    settings = config.current()
    name = full_name(limit, settings)
    with two_redis(settings) as both:
        was_open, lift_at = close_breaker(both.state, name)
        for about, queues in behind(name, settings).items():
            lift_now(both.broker, queues, about=about, causes=BREAKING if about == name else CAUSES)
        gates_are_open(both.state, name, lift_at)
        if was_open:
            record_deed(both.state, catalogue.BREAKER_CLOSED, operator_name(), limit=name)
    if as_json:
        click.echo(json.dumps({"limit": name, "was_open": was_open}))
    else:
        click.echo(f"{name}: {'closed; calls go again' if was_open else 'it was closed already'}")


def full_name(limit: str, settings: config.Settings) -> str:
    """Return a limit's name with its key, which need not be said where there is one; another name is a mistake."""
    known = settings.limits_by_key
    found = [name for name in known if limit in (name, name.rpartition("/")[0])]
    if limit in known or len(found) == 1:
        return limit if limit in known else found[0]
    raise ConfigurationError(f"expected one of {', '.join(sorted(found or known))}, got {quote(limit)}")


breakers.add_command(reset_breaker, "reset")
