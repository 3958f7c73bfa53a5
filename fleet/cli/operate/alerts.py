"""`fleet alerts`: what the webhook was told is wrong; test it, or tell it. redis is imported on use only."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.stop_signals import StopSignals
from fleet.cli.terminal import fitted, say
from fleet.errors import ConfigurationError
from fleet.quoting import quote, stamp

if TYPE_CHECKING:
    from fleet.signals.diagnosis.alerting import AlertLog, ToldAlert

#: Seconds between two looks whether somebody asked to stop.
ASKED_EVERY_S = 0.2


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def alerts(ctx: click.Context, as_json: bool) -> None:
    """Show what the webhook was told is wrong; test it, or tell it.

    With `webhook_env` under [alerts] in fleet.toml, Flower's process tells a webhook what is wrong. Where no Flower
    runs, `fleet alerts watch` does the same. Several of them tell everything once.

    \b
    Examples:
      fleet alerts
      fleet alerts test
      fleet alerts watch
    """
    if ctx.invoked_subcommand is None:
        _list(None, as_json=as_json)


@alerts.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_alerts(as_json: bool) -> None:
    """List what was told and is not over: the same as `fleet alerts` alone.

    \b
    Examples:
      fleet alerts list --json | jq '.alerts[].sentence'
    """
    _list(None, as_json=as_json)


@alerts.command()
@click.argument("kind", metavar="KIND")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(kind: str, as_json: bool) -> None:
    """Show what was told of one kind of finding, such as provider_down.

    \b
    Examples:
      fleet alerts show provider_down
    """
    from fleet.signals.diagnosis.finding import KINDS

    if kind not in KINDS:
        raise ConfigurationError(f"expected one of {', '.join(KINDS)}, got {quote(kind)}")
    _list(kind, as_json=as_json)


@alerts.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def test(as_json: bool) -> None:
    """Send a message that says that messages arrive.

    \b
    Examples:
      fleet alerts test
    """
    from fleet.engine.operations.alerts import Alerter, trial

    settings = config.current()
    Alerter(settings).post(trial(settings))
    if as_json:
        click.echo(json.dumps({"is_taken": True}))
        return
    say("the webhook has taken a message")


@alerts.command()
def watch() -> None:
    """Tell the webhook what is wrong, until Ctrl-C.

    \b
    Examples:
      fleet alerts watch
    """
    from fleet.engine.operations.alerts import AlertWatch, webhook

    settings = config.current()
    webhook(settings)
    watching = AlertWatch(settings)
    say(f"telling the webhook in {settings.alerts.webhook_env} what is wrong; Ctrl-C ends it")
    with StopSignals() as signals:
        watching.start()
        while not signals.asked:
            time.sleep(ASKED_EVERY_S)
    watching.stop()


def _list(kind: str | None, *, as_json: bool) -> None:
    log = _read()
    told = [one for one in log.told if kind in (None, one.kind)]
    if as_json:
        click.echo(json.dumps({"alerts": [one.model_dump() for one in told]}, indent=2))
        return
    for one in told:
        click.echo("\n".join(fitted([_line(one)])))
    if not told:
        say(_nothing(kind))


def _read() -> AlertLog:
    from fleet.engine.operations.alerts import read_log
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        return read_log(client)


def _line(one: ToldAlert) -> str:
    return f"{one.severity}: {one.sentence} (told first {stamp(one.began_at)}, last {stamp(one.told_at)})"


def _nothing(kind: str | None) -> str:
    if config.current().alerts.webhook_env is None:
        return "nothing is told: expected webhook_env under [alerts] in fleet.toml"
    return f"nothing was told{f' of {kind}' if kind else ''} that is not over"
