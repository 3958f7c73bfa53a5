"""`fleet limits reset-breaker`: close a breaker by hand."""

from __future__ import annotations

import json

import click

from fleet import config
from fleet.errors import ConfigurationError
from fleet.quoting import quote


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
    from fleet.cli.operate.pools import operator_name
    from fleet.cli.operate.two_redis import two_redis
    from fleet.engine.process.breaking import behind, lift_now
    from fleet.resilience import BREAKING, close_breaker, gates_are_open
    from fleet.signals import catalogue
    from fleet.signals.events import record_event_now
    from fleet.waits import CAUSES

    settings = config.current()
    name = _full_name(limit, settings)
    with two_redis(settings) as both:
        was_open, lift_at = close_breaker(both.state, name)
        for about, queues in behind(name, settings).items():
            lift_now(both.broker, queues, about=about, causes=BREAKING if about == name else CAUSES)
        gates_are_open(both.state, name, lift_at)
        if was_open:
            record_event_now(both.state, catalogue.BREAKER_CLOSED, limit=name, by=operator_name())
    if as_json:
        click.echo(json.dumps({"limit": name, "was_open": was_open}))
    else:
        click.echo(f"{name}: {'closed; calls go again' if was_open else 'it was closed already'}")


def _full_name(limit: str, settings: config.Settings) -> str:
    """Return a limit's full name; one that nobody calls under is a mistake."""
    names = [f"{name}/{config.KEY_LABEL}" for name in settings.limits_in_use]
    found = next((known for known in names if limit in (known, known.rpartition("/")[0])), None)
    if found is None:
        raise ConfigurationError(f"expected one of {', '.join(sorted(names))}, got {quote(limit)}")
    return found
