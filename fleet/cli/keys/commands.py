"""`fleet keys`: where each provider's key comes from, and a new one. Values come from a prompt or stdin."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.keys.delegating import delegate, undelegate
from fleet.cli.keys.passphrase import ask_here, passphrase
from fleet.cli.keys.places import METAVAR, place_of, places
from fleet.cli.keys.rows import show_rows
from fleet.cli.keys.scoping import scope
from fleet.cli.keys.storing import put
from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: Seconds beyond a provider's `timeout_s` that calls with an old key get: every worker has heard of the new one.
HEARD_S = 5.0
#: Seconds in the units of `--in`, and how far ahead a key may be stored (s).
UNITS_S, MOST_AHEAD_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}, 366 * 86_400


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the Unix time (s) of a time ahead."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
        moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        moment = 0.0
    if 0 < moment - time.time() <= MOST_AHEAD_S:
        return moment
    raise click.BadParameter(f"expected a time ahead, of a year at most, such as 2026-12-01T03:00, got {quote(value)}")


def _length(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a length of time."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,8})([smhd])", value)
    seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
    if 0 < seconds <= MOST_AHEAD_S:
        return float(seconds)
    raise click.BadParameter(f"expected a length of time of a year at most, such as 90s, 30m or 7d, got {quote(value)}")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def keys(ctx: click.Context, as_json: bool) -> None:
    """Show where each provider's key comes from; add, rotate, revoke and check keys.

    \b
    Examples:
      fleet keys
      fleet keys add openai
      fleet keys rotate openai < new-key.txt
      fleet keys revoke openai
      fleet keys check
    """
    ask_here()
    if ctx.invoked_subcommand is None:
        _show_all(as_json=as_json)


keys.add_command(delegate)
keys.add_command(undelegate)
keys.add_command(scope)
keys.add_command(passphrase)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_keys(as_json: bool) -> None:
    """List the keys: the same as `fleet keys` alone.

    \b
    Examples:
      fleet keys list --json | jq '.keys[] | select(.state != "current")'
    """
    _show_all(as_json=as_json)


@keys.command()
@click.argument("key", metavar=METAVAR)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(key: str, as_json: bool) -> None:
    """Show one provider's key and its versions.

    \b
    Examples:
      fleet keys show openai
    """
    settings = config.current()
    show_rows([place_of(key, settings)], settings, as_json=as_json, in_full=True)


@keys.command()
@click.argument("key", metavar=METAVAR)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def add(key: str, as_json: bool) -> None:
    """Store a provider's key, from a prompt or stdin, in the encrypted file or the vault.

    \b
    Examples:
      fleet keys add openai
      fleet keys add openai < key.txt
      fleet keys add openai/team-b
    """
    put(place_of(key, config.current()), None, as_json=as_json)


@keys.command()
@click.argument("key", metavar=METAVAR)
@click.option("--now", is_flag=True, help="Revoke the old key at once, and not when calls with it have had their time.")
@click.option("--at", callback=_moment, help="Use the new key from a time on (UTC), such as 2026-12-01T03:00.")
@click.option("--in", "after", callback=_length, help="Use the new key after so long: 90s, 30m, 12h, 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def rotate(key: str, now: bool, at: float | None, after: float | None, as_json: bool) -> None:
    """Add a version of a key: new calls use it, and the old one is revoked once its last calls have ended.

    With --at or --in it is stored now and used from then on; or as soon as the provider refuses the one before.

    \b
    Examples:
      fleet keys rotate openai
      fleet keys rotate openai --now < new-key.txt
      fleet keys rotate openai/team-b --at 2026-12-01T03:00
    """
    if sum((now, at is not None, after is not None)) > 1:
        raise click.UsageError("expected one of --now, --at and --in, got several")
    place = place_of(key, config.current())
    starts_at = at if after is None else time.time() + after
    put(place, 0.0 if now else place.timeout_s + HEARD_S, starts_at=starts_at, as_json=as_json)


@keys.command()
@click.argument("key", metavar=METAVAR)
@click.option("--fingerprint", help="The key to revoke, as `fleet keys show` tells it. Not given: the current one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def revoke(key: str, fingerprint: str | None, as_json: bool) -> None:
    """Stop all new calls with a key, on all workers within two seconds, for good; calls wait for another key.

    \b
    Examples:
      fleet keys revoke openai
      fleet keys revoke openai --fingerprint 9f3a
    """
    from fleet.cli.operator import operator_name
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client
    from fleet.vault import revoke_fingerprint
    from fleet.vault.choice import envelope_of
    from fleet.vault.revocations import redis_time_s

    settings = config.current()
    place = place_of(key, settings)
    mine = place.versions()
    if fingerprint is None:
        fingerprint = place.fingerprint()
        if not fingerprint or (place.is_the_simulators and not mine and place.is_sealed):
            raise ConfigurationError(f"expected a key of {place.name} to revoke, got none: it needs none")
    elif not _is_fingerprint(fingerprint):
        raise click.UsageError(f"--fingerprint: expected four hexadecimal digits, got {quote(fingerprint)}")
    with state_client(settings) as client:
        at_s = redis_time_s(client)
        # First: whatever happens to the file, no call uses it.
        revoke_fingerprint(client, place.provider, fingerprint, at_s)
        record_deed(client, catalogue.KEY_REVOKED, operator_name(), provider=place.name, fingerprint=fingerprint)
    for one in mine:
        if one.fingerprint == fingerprint:
            envelope_of(settings).revoke(place.name, one.version, at_s)
    if as_json:
        click.echo(json.dumps({"provider": place.name, "revoked": fingerprint}))
    else:
        what = "identity" if "exchange" in place.key_settings else "key"
        click.echo(
            f"{place.name}: {what} {fingerprint} is revoked; revoke it at the provider too, for others may have it"
        )


@keys.command()
@click.argument("name", metavar=f"{METAVAR}|BOT")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def resume(name: str, as_json: bool) -> None:
    """End an alarm about unusual use, and what was done about it: what a key or bot does from now on is its usual.

    \b
    Examples:
      fleet keys resume openai
      fleet keys resume research-7
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.levers import pool_of, resume_use
    from fleet.signals.unusual.alarms import key_of
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    known = sorted({key_of(limit) for limit in settings.limits_by_key})
    if not (is_key := name in known):
        try:
            pool_of(name, settings)
        except ConfigurationError as error:
            told = f"NAME: expected a key ({', '.join(known)}) or a bot of a pool, got {quote(name)}"
            raise ConfigurationError(told) from error
    with two_redis(settings) as both:
        was_told = resume_use(both.state, both.broker, settings, "key" if is_key else "bot", name, by=operator_name())
    if as_json:
        click.echo(json.dumps({"name": name, "resumed": was_told}))
    elif was_told:
        click.echo(f"{name}: resumed; what it does from now on is its usual")
    else:
        click.echo(f"{name}: nothing to resume, there was no alarm about it")


@keys.command()
@click.argument("key", metavar=f"[{METAVAR}]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def check(ctx: click.Context, key: str | None, as_json: bool) -> None:
    """Ask each provider's API for its list of models with the key, which is free.

    Exit code 1 when one is refused, or cannot be read.

    \b
    Examples:
      fleet keys check
      fleet keys check openai --json
    """
    from fleet.cli.keys.asking import ask_with_key

    settings = config.current()
    chosen = [place for place in places(settings) if not place.tool] if key is None else [place_of(key, settings)]
    asked = {place.name: asyncio.run(ask_with_key(place)) for place in chosen}
    if as_json:
        rows = [{"provider": name, "ok": good, "said": said} for name, (good, said) in asked.items()]
        click.echo(json.dumps({"keys": rows}, indent=2))
    else:
        for name, (good, said) in asked.items():
            click.echo(f"{name}: {'ok' if good else 'not ok'}: {said}")
    if not all(good for good, _ in asked.values()):
        ctx.exit(EXIT_FAILURE)


def _show_all(*, as_json: bool) -> None:
    settings = config.current()
    show_rows(list(places(settings)), settings, as_json=as_json)


def _is_fingerprint(text: str) -> bool:
    from fleet.vault.fingerprints import DIGITS

    return len(text) == DIGITS and not set(text) - set("0123456789abcdef")
