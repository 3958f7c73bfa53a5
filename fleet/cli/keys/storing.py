"""A new key where a provider's come from: Fleet's encrypted file, or a vault. Values come from a prompt or stdin."""

from __future__ import annotations

import json
import sys

import click

from fleet.cli.keys.places import KeyPlace
from fleet.cli.terminal import say
from fleet.errors import ConfigurationError, KeyMissing
from fleet.quoting import duration

#: What to do where a key comes from elsewhere.
INSTEAD = {
    "api_key_env": "set the variable and start the workers again; or remove that setting, and `fleet keys add` it",
    "api_key_file": "write the new key into that file (as another one, then `mv`), and workers use it within a second",
    "api_key_secret": "let what mounts it mount the new one, and workers use it within a second",
    "exchange": "its tokens are had anew by themselves; name another identity in that table",
}


def put(place: KeyPlace, overlap_s: float | None, *, starts_at: float | None = None, as_json: bool) -> None:
    """Store a new key.

    Args:
        place: Which, and where.
        overlap_s: Seconds for which the one before serves calls under way; None: there must be none.
        starts_at: Unix time in seconds from when the new one is used; None: at once.
        as_json: Say so as one JSON object.

    Raises:
        ConfigurationError: Nobody would read it there; or there is none to rotate, or one already.
    """
    from fleet.cli.operator import operator_name
    from fleet.config.secret_files import one_word
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client
    from fleet.vault import key_fingerprint, read_revoked, revoke_fingerprint
    from fleet.vault.choice import envelope_of
    from fleet.vault.revocations import redis_time_s

    name, settings = place.name, place.settings
    _check_place(place, is_later=starts_at is not None)
    value = one_word(_asked(f"Key of {name}"), "prompt or on stdin")
    fingerprint = key_fingerprint(place.provider, value)
    with state_client(settings) as client:
        now_s = redis_time_s(client)
        if f"{place.provider}|{fingerprint}" in read_revoked(client):
            raise ConfigurationError(
                f"expected a key of {name} that was not revoked, got {fingerprint}: take another one"
            )
        old = _stored_before(place)
        _check_before(name, fingerprint, old, is_first=overlap_s is None)
        envelope = envelope_of(settings)
        is_new = not envelope.key_file.exists() and not envelope.is_opened_by_a_passphrase
        ends_at = None if overlap_s is None else (starts_at or now_s) + overlap_s
        if place.is_sealed:
            version = str(envelope.add(name, value, old_until=ends_at, starts_at=starts_at)[1].version)
        else:
            version = _in_vault(place, value, starts_at)
            is_new = False
        for one in old:
            revoke_fingerprint(client, place.provider, one, ends_at or now_s)
        event = catalogue.KEY_ADDED if overlap_s is None else catalogue.KEY_ROTATED
        record_deed(client, event, operator_name(), provider=name, fingerprint=fingerprint, version=version)
    if is_new:
        say(f"made {envelope.key_file}, which opens {envelope.path}: keep a copy elsewhere, and keep it out of git")
    ends_in_s = None if ends_at is None else round(ends_at - now_s, 1)
    if as_json:
        told = {"provider": name, "fingerprint": fingerprint, "version": version, "revokes": old}
        later = {} if starts_at is None else {"starts_in_s": round(starts_at - now_s, 1)}
        click.echo(json.dumps({**told, "revokes_in_s": ends_in_s, **later}))
        return
    when = (
        "within a second"
        if starts_at is None
        else f"in {duration(starts_at - now_s)}, or when the one before is refused"
    )
    click.echo(f"{name}: key {fingerprint}, version {version}; workers of this state folder use it {when}")
    for one in old:
        click.echo(f"{name}: key {one} is revoked {f'in {duration(ends_in_s)}' if ends_in_s else 'now'}")


def _check_before(name: str, fingerprint: str, old: list[str], *, is_first: bool) -> None:
    """Refuse to add where there is a key, to rotate where there is none, and the same key again."""
    if is_first and old:
        raise ConfigurationError(
            f"expected a provider without a key, got {name}, which has one: run `fleet keys rotate {name}`"
        )
    if not is_first and not old:
        raise ConfigurationError(f"expected a key of {name} to rotate, got none: run `fleet keys add {name}`")
    if fingerprint in old:
        raise ConfigurationError(f"expected another key of {name} than the one it has, got {fingerprint} again")


def _stored_before(place: KeyPlace) -> list[str]:
    """Return the fingerprints of the keys that calls may use now, or later."""
    from fleet.vault import key_fingerprint

    if place.is_sealed:
        return [one.fingerprint for one in place.versions() if one.revoked_at is None]
    try:
        return [key_fingerprint(place.provider, place.source().current().value)]
    except KeyMissing:
        return []


def _in_vault(place: KeyPlace, value: str, starts_at: float | None) -> str:
    from fleet.vault.kv import KvKey

    spelt = place.table.api_key_vault
    assert spelt is not None
    return KvKey.of(spelt, place.settings.vault).put(value, starts_at)


def _check_place(place: KeyPlace, *, is_later: bool) -> None:
    """Refuse to store a key that nobody would read: its table says that it comes from elsewhere."""
    elsewhere = next((setting for setting in place.key_settings if setting != "api_key_vault"), None)
    if elsewhere is None:
        return
    instead = INSTEAD[elsewhere]
    if is_later and elsewhere in ("api_key_file", "api_key_secret"):
        instead += ", at that time (`at` and systemd's timers do)"
    raise ConfigurationError(
        f"expected a key that is stored by Fleet or in a vault, got {place.name}, whose key comes from `{elsewhere}`: "
        f"{instead}"
    )


def _asked(question: str) -> str:
    """Return what is typed without being shown, or all of stdin where that is no terminal."""
    if sys.stdin.isatty():
        return str(click.prompt(question, hide_input=True, err=True))
    return sys.stdin.read(8192)
