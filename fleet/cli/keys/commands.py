"""`fleet keys`: where each provider's key comes from, and a new one. Values come from a prompt or stdin."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.keys.passphrase import ask_here, passphrase
from fleet.cli.terminal import fitted, say, table
from fleet.config import Settings
from fleet.errors import ConfigurationError, KeyMissing
from fleet.quoting import quote, stamp

if TYPE_CHECKING:
    from fleet.vault import KeyVersion

#: Seconds beyond a provider's `timeout_s` that calls with an old key get: every worker has heard of the new one.
HEARD_S = 5.0


@dataclass(frozen=True, slots=True)
class KeyRow:
    """How a provider's key stands, as this machine reads it; never the key."""

    provider: str
    source: str
    state: str
    fingerprint: str = ""
    version: str = ""
    age_s: float | None = None
    trouble: str = ""
    versions: tuple[dict[str, Any], ...] = ()


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
        _list(None, as_json=as_json)


keys.add_command(passphrase)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_keys(as_json: bool) -> None:
    """List the keys: the same as `fleet keys` alone.

    \b
    Examples:
      fleet keys list --json | jq '.keys[] | select(.state != "current")'
    """
    _list(None, as_json=as_json)


@keys.command()
@click.argument("provider")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def show(provider: str, as_json: bool) -> None:
    """Show one provider's key and its versions.

    \b
    Examples:
      fleet keys show openai
    """
    _list(_known(provider, config.current()), as_json=as_json)


@keys.command()
@click.argument("provider")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def add(provider: str, as_json: bool) -> None:
    """Store a provider's key, from a prompt or stdin, in the encrypted file or the vault.

    \b
    Examples:
      fleet keys add openai
      fleet keys add openai < key.txt
    """
    _put(provider, None, as_json=as_json)


@keys.command()
@click.argument("provider")
@click.option("--now", is_flag=True, help="Revoke the old key at once, and not when calls with it have had their time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def rotate(provider: str, now: bool, as_json: bool) -> None:
    """Add a version of a key: new calls use it, and the old one is revoked once its last calls have ended.

    \b
    Examples:
      fleet keys rotate openai
      fleet keys rotate openai --now < new-key.txt
    """
    settings = config.current()
    _put(provider, 0.0 if now else settings.provider_named(provider).timeout_s + HEARD_S, as_json=as_json)


@keys.command()
@click.argument("provider")
@click.option("--fingerprint", help="The key to revoke, as `fleet keys show` tells it. Not given: the current one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def revoke(provider: str, fingerprint: str | None, as_json: bool) -> None:
    """Stop all new calls with a key, on all workers within two seconds, for good; calls wait for another key.

    \b
    Examples:
      fleet keys revoke openai
      fleet keys revoke openai --fingerprint 9f3a
    """
    from fleet.cli.operate.pools import operator_name
    from fleet.cli.operate.two_redis import state_client
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.vault import key_fingerprint, read_key, revoke_fingerprint
    from fleet.vault.choice import envelope_of
    from fleet.vault.revocations import redis_time_s

    settings = config.current()
    name = _known(provider, settings)
    mine: tuple[KeyVersion, ...] = ()
    if _is_sealed(name, settings):
        mine = envelope_of(settings).read().of(name)
    if fingerprint is None:
        fingerprint = key_fingerprint(name, read_key(name, settings, _model(name, settings)))
        if not fingerprint or (settings.provider_named(name).kind == "simulator" and not mine):
            raise ConfigurationError(f"expected a key of {name} to revoke, got none: it needs none")
    elif not _is_fingerprint(fingerprint):
        raise click.UsageError(f"--fingerprint: expected four hexadecimal digits, got {quote(fingerprint)}")
    with state_client(settings) as client:
        at_s = redis_time_s(client)
        revoke_fingerprint(client, name, fingerprint, at_s)  # first: whatever happens to the file, no call uses it
        record_deed(client, catalogue.KEY_REVOKED, operator_name(), provider=name, fingerprint=fingerprint)
    for one in mine:
        if one.fingerprint == fingerprint:
            envelope_of(settings).revoke(name, one.version, at_s)
    if as_json:
        click.echo(json.dumps({"provider": name, "revoked": fingerprint}))
    else:
        click.echo(f"{name}: key {fingerprint} is revoked; revoke it at the provider too, for others may have it")


@keys.command()
@click.argument("provider", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def check(ctx: click.Context, provider: str | None, as_json: bool) -> None:
    """Ask each provider's API for its list of models with the key, which is free.

    Exit code 1 when one is refused, or cannot be read.

    \b
    Examples:
      fleet keys check
      fleet keys check openai --json
    """
    from fleet.cli.keys.asking import ask_with_key

    settings = config.current()
    names = _names(settings) if provider is None else [_known(provider, settings)]
    asked = {name: asyncio.run(ask_with_key(name, settings, _model(name, settings))) for name in names}
    if as_json:
        rows = [{"provider": name, "ok": good, "said": said} for name, (good, said) in asked.items()]
        click.echo(json.dumps({"keys": rows}, indent=2))
    else:
        for name, (good, said) in asked.items():
            click.echo(f"{name}: {'ok' if good else 'not ok'}: {said}")
    if not all(good for good, _ in asked.values()):
        ctx.exit(EXIT_FAILURE)


def _list(provider: str | None, *, as_json: bool) -> None:
    settings = config.current()
    revoked = _revoked(settings)
    rows = [_row(name, settings, revoked) for name in (_names(settings) if provider is None else [provider])]
    if as_json:
        click.echo(json.dumps({"keys": [asdict(row) for row in rows]}, indent=2))
        return
    if provider is not None:
        click.echo("\n".join(fitted(_story(rows[0]))))
        return
    cells = [
        (row.provider, row.state, row.fingerprint, row.version, _age(row.age_s), row.trouble or row.source)
        for row in rows
    ]
    for line in table([("PROVIDER", "STATE", "KEY", "VERSION", "AGE", "FROM"), *cells], left=(0, 1, 2, 3, 5)):
        click.echo(line)


def _story(row: KeyRow) -> Iterator[str]:
    yield f"{row.provider}: {row.state}"
    yield f"  from      {row.source}"
    if row.fingerprint:
        yield f"  key       {row.fingerprint}{f', version {row.version}' if row.version else ''}, age {_age(row.age_s)}"
    if row.trouble:
        yield f"  trouble   {row.trouble}"
    for one in row.versions:
        until = "" if one["revoked_at"] is None else f", revoked from {stamp(one['revoked_at'])}"
        added = stamp(one["added_at"])
        yield f"  version   {one['version']}: {one['fingerprint']}, {one['state']}, added {added}{until}"


def _row(name: str, settings: Settings, revoked: Mapping[str, float]) -> KeyRow:
    from fleet.vault import key_fingerprint, source_of
    from fleet.vault.choice import envelope_of

    source, now_s = source_of(name, settings, _model(name, settings)), time.time()
    versions: tuple[dict[str, Any], ...] = ()
    try:
        if _is_sealed(name, settings):
            versions = tuple(
                {"version": one.version, "fingerprint": one.fingerprint, "state": one.state(now_s),
                 "added_at": one.added_at, "revoked_at": one.revoked_at, "scope": one.scope}
                for one in envelope_of(settings).read().of(name)
            )  # fmt: skip
        secret = source.current()
    except KeyMissing as error:
        state = "revoked" if versions and versions[-1]["state"] == "revoked" else "missing"
        return KeyRow(name, source.where, state, trouble=str(error), versions=versions)
    if source.where == "none needed" or not secret.value:
        return KeyRow(name, source.where, "not needed", versions=versions)
    fingerprint = key_fingerprint(name, secret.value)
    is_revoked = revoked.get(f"{name}|{fingerprint}", now_s + 1) <= now_s
    age_s = None if secret.made_at is None else round(now_s - secret.made_at, 1)
    state = "revoked" if is_revoked else "current"
    return KeyRow(name, source.where, state, fingerprint, secret.version, age_s, versions=versions)


def _put(provider: str, overlap_s: float | None, *, as_json: bool) -> None:
    """Store a new key where this provider's come from.

    Args:
        provider: Its name.
        overlap_s: Seconds until the one before is revoked; None: there must be none.
    """
    from fleet.cli.operate.pools import operator_name
    from fleet.cli.operate.two_redis import state_client
    from fleet.config.secret_files import one_word
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.vault import key_fingerprint, read_revoked, revoke_fingerprint
    from fleet.vault.choice import envelope_of
    from fleet.vault.revocations import redis_time_s

    settings = config.current()
    name = _known(provider, settings)
    _check_place(name, settings)
    value = one_word(_asked(f"Key of {name}"), "prompt or on stdin")
    fingerprint = key_fingerprint(name, value)
    with state_client(settings) as client:
        now_s = redis_time_s(client)
        if f"{name}|{fingerprint}" in read_revoked(client):
            raise ConfigurationError(
                f"expected a key of {name} that was not revoked, got {fingerprint}: take another one"
            )
        old = _stored_before(name, settings)
        if overlap_s is None and old:
            raise ConfigurationError(
                f"expected a provider without a key, got {name}, which has one: run `fleet keys rotate {name}`"
            )
        if overlap_s is not None and not old:
            raise ConfigurationError(f"expected a key of {name} to rotate, got none: run `fleet keys add {name}`")
        if fingerprint in old:
            raise ConfigurationError(f"expected another key of {name} than the one it has, got {fingerprint} again")
        envelope = envelope_of(settings)
        is_new = not envelope.key_file.exists() and not envelope.is_opened_by_a_passphrase
        if _is_sealed(name, settings):
            until = None if overlap_s is None else now_s + overlap_s
            version = str(envelope.add(name, value, old_until=until)[1].version)
        else:
            version = _in_vault(name, settings, value)
            is_new = False
        for one in old:
            revoke_fingerprint(client, name, one, now_s + (overlap_s or 0.0))
        event = catalogue.KEY_ADDED if overlap_s is None else catalogue.KEY_ROTATED
        record_deed(client, event, operator_name(), provider=name, fingerprint=fingerprint, version=version)
    if is_new:
        say(f"made {envelope.key_file}, which opens {envelope.path}: keep a copy elsewhere, and keep it out of git")
    if as_json:
        told = {"provider": name, "fingerprint": fingerprint, "version": version, "revokes": old}
        click.echo(json.dumps({**told, "revokes_in_s": overlap_s}))
        return
    click.echo(f"{name}: key {fingerprint}, version {version}; workers of this state folder use it within a second")
    for one in old:
        click.echo(f"{name}: key {one} is revoked {f'in {overlap_s:.0f} s' if overlap_s else 'now'}")


def _stored_before(name: str, settings: Settings) -> list[str]:
    """Return the fingerprints of the keys of a provider that calls may use now."""
    from fleet.vault import key_fingerprint, source_of
    from fleet.vault.choice import envelope_of

    if _is_sealed(name, settings):
        return [one.fingerprint for one in envelope_of(settings).read().of(name) if one.revoked_at is None]
    try:
        return [key_fingerprint(name, source_of(name, settings).current().value)]
    except KeyMissing:
        return []


def _in_vault(name: str, settings: Settings, value: str) -> str:
    from fleet.vault.kv import KvKey

    spelt = settings.provider_named(name).api_key_vault
    assert spelt is not None
    return KvKey.of(spelt, settings.vault).put(value)


def _check_place(name: str, settings: Settings) -> None:
    """Refuse to store a key that nobody would read: its table says that it comes from elsewhere."""
    provider = settings.provider_named(name)
    elsewhere = [setting for setting in provider.key_settings if setting != "api_key_vault"]
    if elsewhere:
        raise ConfigurationError(
            f"expected a provider whose key is stored by Fleet or in a vault, got {name}, whose key comes from "
            f"`{elsewhere[0]}`: change it there, or remove that setting first"
        )


def _asked(question: str) -> str:
    """Return what is typed without being shown, or all of stdin where that is no terminal."""
    if sys.stdin.isatty():
        return str(click.prompt(question, hide_input=True, err=True))
    return sys.stdin.read(8192)


def _is_sealed(name: str, settings: Settings) -> bool:
    return not settings.provider_named(name).key_settings


def _is_fingerprint(text: str) -> bool:
    from fleet.vault.fingerprints import DIGITS

    return len(text) == DIGITS and not set(text) - set("0123456789abcdef")


def _names(settings: Settings) -> list[str]:
    used = {provider for pool in settings.pools for provider, _ in settings.calls_of(pool)}
    return sorted({*settings.providers, *used})


def _known(provider: str, settings: Settings) -> str:
    names: Sequence[str] = _names(settings)
    if provider in names:
        return provider
    raise ConfigurationError(f"expected a provider of {', '.join(names)}, got {quote(provider)}")


def _model(name: str, settings: Settings) -> str:
    """Return the model that a provider's key is needed for; empty: no pool has one."""
    models = [model for pool in settings.pools for called, model in settings.calls_of(pool) if called == name]
    return next(filter(settings.provider_named(name).needs_key_for, models), models[0] if models else "")


def _revoked(settings: Settings) -> dict[str, float]:
    from fleet.cli.operate.two_redis import state_client
    from fleet.vault import read_revoked

    with state_client(settings) as client:
        return read_revoked(client)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    days, rest = divmod(int(max(0.0, seconds)), 86_400)
    return f"{days} d" if days else f"{rest // 3600} h {rest % 3600 // 60} min"
