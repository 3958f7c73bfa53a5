"""How keys stand, as this machine reads them; never a key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.keys.delegating import delegation_lines, delegation_rows, handed_here
from fleet.cli.keys.places import KeyPlace
from fleet.cli.keys.scoping import used_lines
from fleet.cli.terminal import fitted, table
from fleet.config import Settings
from fleet.config.scopes import EVERYTHING, ScopeSettings
from fleet.errors import KeyMissing
from fleet.quoting import duration, stamp

if TYPE_CHECKING:
    from fleet.engine.operations.keys.scopes import ScopeView
    from fleet.signals.unusual.alarms import Alarm


@dataclass(frozen=True, slots=True)
class KeyRow:
    """How a key stands.

    Args:
        key: Its name, `PROVIDER` or `PROVIDER/LABEL`.
        provider: Its name; `tools/NAME`: a tool.
        label: Of several keys of a provider.
        source: Where it comes from.
        state: What may be done with it.
        fingerprint: Of the key that calls use.
        version: As its source counts.
        age_s: Seconds since this version was made.
        due_in_s: Seconds until it is due to be replaced; below 0: it is; None: nobody has said when.
        expires_in_s: Seconds until it expires, as this command has just had it; None: it does not.
        next_at: Unix time in seconds from when another one serves that lies in the vault already; None: none does.
        shadowed_by: Variables that whatever else reads them would use before it.
        trouble: Why there is none.
        unusual: What is unusual about its use, and what was done about it; empty: nothing.
        versions: In the encrypted file.
        scope: Whom it serves now, by its own scope.
        used_today: Of what that caps, by the field.
        in_workers: The key as living workers have it: `KeyView`; None: none has it.
    """

    key: str
    provider: str
    label: str
    source: str
    state: str
    fingerprint: str = ""
    version: str = ""
    age_s: float | None = None
    due_in_s: float | None = None
    expires_in_s: float | None = None
    next_at: float | None = None
    shadowed_by: tuple[str, ...] = ()
    trouble: str = ""
    unusual: str = ""
    versions: tuple[dict[str, Any], ...] = ()
    scope: dict[str, Any] = field(default_factory=dict)
    used_today: dict[str, float] = field(default_factory=dict)
    in_workers: dict[str, Any] | None = None


def show_rows(places: Sequence[KeyPlace], settings: Settings, *, as_json: bool, in_full: bool = False) -> None:
    """Print how keys stand.

    Args:
        places: Which.
        settings: Everything.
        as_json: As one JSON object.
        in_full: With their versions.
    """
    revoked, alarms, scopes, held = _heard(settings, {place.scope for place in places})
    rows = [
        _scoped(_with_alarm(row_of(place, revoked), alarms), scopes[place.scope], held.get(place.name))
        for place in places
    ]
    handed = handed_here(settings, places[0].provider if in_full else None)
    if as_json:
        delegations = delegation_rows(handed, time.time())
        click.echo(json.dumps({"keys": [asdict(row) for row in rows], "delegations": delegations}, indent=2))
        return
    if in_full:
        for row in rows:
            view = scopes[places[0].scope]
            click.echo("\n".join([*fitted([*_story(row), *_scope_story(view)]), *delegation_lines(handed)]))
        return
    cells = [
        (
            row.key,
            row.state,
            row.fingerprint,
            row.version,
            _age(row.age_s),
            row.trouble or row.unusual or _due(row) or _noted(row),
        )
        for row in rows
    ]
    for line in table([("PROVIDER", "STATE", "KEY", "VERSION", "AGE", "FROM"), *cells], left=(0, 1, 2, 3, 5)):
        click.echo(line)
    for line in delegation_lines(handed):
        click.echo(line)


def _story(row: KeyRow) -> Iterator[str]:
    yield f"{row.key}: {row.state}"
    yield f"  from      {row.source}"
    if row.fingerprint:
        yield f"  key       {row.fingerprint}{f', version {row.version}' if row.version else ''}, age {_age(row.age_s)}"
    if row.in_workers is not None:
        yield f"  workers   {_in_workers(row.in_workers)}"
    if row.expires_in_s is not None:
        yield f"  exchanged now, by this command; expires in {duration(row.expires_in_s)}. Each worker has its own"
    if row.shadowed_by:
        yield f"  shadowed  {_shadow(row)}"
    if row.next_at is not None:
        yield f"  next      another one serves from {stamp(row.next_at)}"
    if due := _due(row):
        yield f"  due       {due}"
    if row.unusual:
        yield f"  unusual   {row.unusual}"
    if row.trouble:
        yield f"  trouble   {row.trouble}"
    for one in row.versions:
        until = "" if one["revoked_at"] is None else f", revoked from {stamp(one['revoked_at'])}"
        starts = f", serves from {stamp(one['starts_at'])}" if one["state"] == "ahead" else ""
        told = f"{one['fingerprint']}, {one['state']}, added {stamp(one['added_at'])}{starts}{until}"
        yield f"  version   {one['version']}: {told}"


def row_of(place: KeyPlace, revoked: Mapping[str, float]) -> KeyRow:
    """Return how a key stands.

    Args:
        place: Where it comes from.
        revoked: From when keys may be used no more (Unix time in seconds), by `provider|fingerprint`.
    """
    from fleet.vault import key_fingerprint
    from fleet.vault.age import due_in_s

    source, now_s, who = place.source(), time.time(), (place.name, place.provider, place.label)
    versions: tuple[dict[str, Any], ...] = ()
    try:
        versions = tuple(
            {"version": one.version, "fingerprint": one.fingerprint, "state": one.state(now_s),
             "added_at": one.added_at, "starts_at": one.starts_at, "revoked_at": one.revoked_at, "scope": one.scope}
            for one in place.versions()
        )  # fmt: skip
        secret = source.current()
    except KeyMissing as error:
        state = "revoked" if versions and versions[-1]["state"] == "revoked" else "missing"
        trouble = str(error)
        return KeyRow(*who, source.where, state, trouble=trouble, versions=versions, shadowed_by=place.shadowed_by)
    if source.where == "none needed" or not secret.value:
        return KeyRow(*who, source.where, "not needed", versions=versions)
    fingerprint = key_fingerprint(place.provider, secret.known_by)
    is_revoked = revoked.get(f"{place.provider}|{fingerprint}", now_s + 1) <= now_s
    age_s = None if secret.made_at is None else round(now_s - secret.made_at, 1)
    due = due_in_s(secret, place.rotate_days, now_s)
    state = "revoked" if is_revoked else "current"
    return KeyRow(
        *who, source.where, state, fingerprint, secret.version, age_s, due_in_s=due, versions=versions,
        expires_in_s=secret.lives_s, next_at=secret.next_at, shadowed_by=place.shadowed_by,
    )  # fmt: skip


def _in_workers(held: dict[str, Any]) -> str:
    count = held["workers"]
    told = f"{count} process{'' if count == 1 else 'es'}: {', '.join(held['fingerprints']) or 'none'}"
    ends = "" if held["expires_at"] is None else f"; the first token ends {stamp(held['expires_at'])}"
    return f"{told}{ends}{'; waits: ' + held['waits'] if held['waits'] else ''}"


def _noted(row: KeyRow) -> str:
    told = f"{row.source}; {_shadow(row)}" if row.shadowed_by else row.source
    return f"{told}; serves {ScopeSettings.model_validate(row.scope).told()}" if row.scope else told


def _shadow(row: KeyRow) -> str:
    """Say what a variable does that holds a key beside an exchange."""
    names = " and ".join(row.shadowed_by)
    return f"{names} set: Fleet does not use it, but the vendor's SDKs and commands take it first: unset it"


def _due(row: KeyRow) -> str:
    if row.due_in_s is None or row.due_in_s > 0:
        return ""
    return f"due to be replaced for {_age(-row.due_in_s)}: run `fleet keys rotate {row.key}`"


def _scope_story(view: ScopeView) -> Iterator[str]:
    if view.now != EVERYTHING:
        yield f"  serves    {view.now.told()}"
    for line in used_lines(view):
        yield f"  today     {line}"


def _scoped(row: KeyRow, view: ScopeView, in_workers: dict[str, Any] | None) -> KeyRow:
    scope, used = view.now.model_dump(exclude_none=True), dict(view.used_today)
    return replace(row, scope=scope, used_today=used, in_workers=in_workers)


def _heard(
    settings: Settings, scopes: set[str]
) -> tuple[dict[str, float], dict[str, Alarm], dict[str, ScopeView], dict[str, dict[str, Any]]]:
    """Return what Redis knows: keys that are revoked, alarms about their use, scopes, and the keys of workers."""
    from fleet.engine.operations.keys.held import read_key_views, read_living
    from fleet.engine.operations.keys.scopes import read_scope_views
    from fleet.signals.unusual.alarms import read_alarms
    from fleet.store.private.two_redis import state_client
    from fleet.vault import read_revoked
    from fleet.vault.revocations import redis_time_s

    with state_client(settings) as client:
        alarms = {one.name: one for one in read_alarms(client) if one.kind == "key"}
        views = read_key_views(client, settings, read_living(client, redis_time_s(client)))
        held = {view.key: view.model_dump(mode="json", exclude={"key", "scope", "used"}) for view in views}
        return read_revoked(client), alarms, read_scope_views(client, settings, scopes), held


def _with_alarm(row: KeyRow, alarms: Mapping[str, Alarm]) -> KeyRow:
    if (alarm := alarms.get(row.key)) is None:
        return row
    done = f"; {alarm.done}" if alarm.done else ""
    return replace(row, unusual=f"{alarm.told}, since {stamp(alarm.since)}{done}: {alarm.command}")


def _age(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)
