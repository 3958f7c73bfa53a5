"""`fleet keys scope`: whom a key serves, and how much a day; narrower while the fleet runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.keys.delegating import scope_of, scope_options
from fleet.cli.keys.places import METAVAR
from fleet.config.scope_checks import host_asked, unknown_name
from fleet.config.scopes import EVERYTHING, ScopeSettings
from fleet.errors import ConfigurationError
from fleet.models import bot_name
from fleet.quoting import nearest, quote

if TYPE_CHECKING:
    from fleet.engine.operations.keys.scopes import ScopeView


@click.command()
@click.argument("key", metavar=METAVAR)
@scope_options
@click.option("--reset", is_flag=True, help="Take back what was set so: what fleet.toml says holds again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def scope(key: str, reset: bool, as_json: bool, **said: Any) -> None:
    """Show whom a key serves, or narrow it on all workers within two seconds.

    A provider's name alone means all of its keys. A scope can only be made narrower than fleet.toml has it. What that
    shuts out waits; what is named replaces what was set before.

    \b
    Examples:
      fleet keys scope openai
      fleet keys scope openai --pool research --requests-per-day 5000
      fleet keys scope openai/team-b --tenant acme
      fleet keys scope openai --reset
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.keys.scopes import read_scope_views, scope_names
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client
    from fleet.vault.key_scopes import configured_scopes, reset_scope, set_scope

    settings, wanted = config.current(), scope_of(said)
    known = scope_names(settings)
    if key not in known:
        raise ConfigurationError(f"expected a key that there is, got {quote(key)}; {nearest(key, known)}")
    if reset and wanted != EVERYTHING:
        raise click.UsageError("expected --reset alone, got what to set as well; run one after the other")
    provider, _, label = key.partition("/")
    if (wrong := unknown_name(wanted, _names(settings, key))) is not None:
        raise ConfigurationError(f"{wrong}; nothing is set")
    if tool := config.tool_of(key):
        _check_tool(settings, tool, wanted)
    elif wanted.usd_per_day is not None:
        _check_prices(settings, provider)
    with state_client(settings) as client:
        if reset or wanted != EVERYTHING:
            changed = reset_scope(client, key) if reset else True
            if not reset:
                set_scope(client, key, wanted, configured_scopes(settings).get(key))
            if changed:
                told = "as fleet.toml" if reset else wanted.told()
                record_deed(client, catalogue.KEY_SCOPED, operator_name(), provider=key, scope=told)
        views = read_scope_views(client, settings, {key, key if tool else provider})
    view = views[key]
    if as_json:
        click.echo(json.dumps({"provider": key, **view.to_json()}))
        return
    click.echo(f"{key}: {view.now.told()}")
    if view.live is not None:
        click.echo(f"  fleet.toml  {(view.configured or EVERYTHING).told()}")
        click.echo(f"  set         {view.live.told()}")
    if label and not tool and views[provider].now != EVERYTHING:
        click.echo(f"  all keys    {views[provider].now.told()}")
    for line in used_lines(view):
        click.echo(f"  today       {line}")


def used_lines(view: ScopeView) -> Iterator[str]:
    """Yield what of a scope is used today."""
    from fleet.engine.operations.keys.held import uses_of

    yield from (use.line for use in uses_of(view))


def _names(settings: config.Settings, key: str) -> dict[str, Collection[str]]:
    """Return the names that a scope of a key may limit it to; tenants and tools of tasks are whatever tasks name."""
    bots = [bot_name(pool, number + 1) for pool, one in settings.pools.items() for number in range(one.bots)]
    if config.tool_of(key):
        return {"pools": settings.pools, "bots": bots}
    provider = key.partition("/")[0]
    models = {model for pool in settings.pools for name, model in settings.calls_of(pool) if name == provider}
    models |= {name.partition("/")[2] for name in settings.limits if name.startswith(f"{provider}/")}
    found: dict[str, Collection[str]] = {"pools": settings.pools, "bots": bots, "models": sorted(models)}
    if host := host_asked(settings.provider_named(provider)):
        found["hosts"] = [host]
    return found


def _check_prices(settings: config.Settings, provider: str) -> None:
    for pool in settings.pools:
        for name, model in settings.calls_of(pool):
            if name == provider:
                try:
                    settings.check_price(f"{name}/{model}", "--usd-per-day")
                except ValueError as error:
                    raise ConfigurationError(str(error)) from error


def _check_tool(settings: config.Settings, tool: str, wanted: ScopeSettings) -> None:
    """Refuse what a tool's scope cannot have, as fleet.toml would."""
    from pydantic import ValidationError

    table = settings.tools[tool]
    try:
        type(table).model_validate({**table.model_dump(exclude_unset=True), "scope": wanted})
    except ValidationError as error:
        raise ConfigurationError(
            str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        ) from error
