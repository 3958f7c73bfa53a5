"""`fleet keys scope`: whom a provider's key serves, and how much a day; narrower while the fleet runs."""

from __future__ import annotations

import json
from typing import Any

import click

from fleet import config
from fleet.cli.keys.delegating import scope_of, scope_options
from fleet.config.scopes import CAPPED, EVERYTHING
from fleet.errors import ConfigurationError
from fleet.quoting import quote


@click.command()
@click.argument("provider")
@scope_options
@click.option("--reset", is_flag=True, help="Take back what was set so: what fleet.toml says holds again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def scope(provider: str, reset: bool, as_json: bool, **said: Any) -> None:
    """Show whom a provider's key serves, or narrow it on all workers within two seconds.

    It can only be made narrower than fleet.toml has it. What that shuts out waits; what is named replaces what was set
    before.

    \b
    Examples:
      fleet keys scope openai
      fleet keys scope openai --pool research --requests-per-day 5000
      fleet keys scope openai --reset
    """
    from fleet.cli.operate.pools import operator_name
    from fleet.cli.operate.two_redis import state_client
    from fleet.economy.budgets.caps import used_today
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.vault.key_scopes import read_scopes, reset_scope, set_scope
    from fleet.vault.scopes import narrowed

    settings, wanted = config.current(), scope_of(said)
    known = sorted({*settings.providers, *(name for pool in settings.pools for name, _ in settings.calls_of(pool))})
    if provider not in known:
        raise ConfigurationError(f"expected a provider of {', '.join(known)}, got {quote(provider)}")
    if reset and wanted != EVERYTHING:
        raise click.UsageError("expected --reset alone, got what to set as well; run one after the other")
    configured = settings.provider_named(provider).scope
    if wanted.usd_per_day is not None:
        for pool in settings.pools:
            for name, model in settings.calls_of(pool):
                _check_price(settings, name, model, provider)
    with state_client(settings) as client:
        if reset or wanted != EVERYTHING:
            changed = reset_scope(client, provider) if reset else True
            if not reset:
                set_scope(client, provider, wanted, configured)
            if changed:
                told = "as fleet.toml" if reset else wanted.told()
                record_deed(client, catalogue.KEY_SCOPED, operator_name(), provider=provider, scope=told)
        live = read_scopes(client).get(provider)
        now = narrowed(configured, live)
        used = used_today(client, f"key:{provider}", now)
    if as_json:
        parts = {"configured": configured, "set": live, "now": now}
        dumped = {name: None if one is None else one.model_dump(exclude_none=True) for name, one in parts.items()}
        click.echo(json.dumps({"provider": provider, **dumped, "used_today": used}))
        return
    click.echo(f"{provider}: {now.told()}")
    if live is not None:
        click.echo(f"  fleet.toml  {(configured or EVERYTHING).told()}")
        click.echo(f"  set         {live.told()}")
    for what, unit in CAPPED:
        if what in used:
            click.echo(f"  today       {used[what]:,.6g} of {getattr(now, what):,} {unit}")


def _check_price(settings: config.Settings, name: str, model: str, provider: str) -> None:
    if name == provider:
        try:
            settings.check_price(f"{name}/{model}", "--usd-per-day")
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
