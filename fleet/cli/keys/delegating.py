"""`fleet keys delegate` and `undelegate`: a narrower scope of a key for somebody else, and its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.finite import FiniteRange
from fleet.cli.terminal import say, table
from fleet.config import Settings
from fleet.config.scopes import ScopeSettings
from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import quote, stamp

if TYPE_CHECKING:
    from fleet.vault.delegation import Token
    from fleet.vault.delegations import Handed

#: Days that a delegation holds, unless told otherwise, and at most.
DAYS, MOST_DAYS = 30.0, 366.0
#: Options of a scope: its field, and what help says of it.
_NAMES = (
    ("pool", "pools", "Pool that it serves; again for more. `research-*` names all that begin so."),
    ("bot", "bots", "Bot that it serves; again for more."),
    ("tenant", "tenants", "Tenant whose tasks it serves, and no others; again for more."),
    ("model", "models", "Model that may be asked; again for more."),
    ("tool", "tools", "Tool that may be offered to the model; again for more."),
    ("host", "hosts", "Host that it may be sent to; again for more."),
)


def scope_options(command: Any) -> Any:
    """Give a command the options that make a scope."""
    for option, field, told in reversed(_NAMES):
        command = click.option(f"--{option}", field, multiple=True, metavar="NAME", help=told)(command)
    numbers = (
        ("requests", click.IntRange(1, 10**9), "Requests"), ("tokens", click.IntRange(1, 10**12), "Tokens"),
        ("usd", FiniteRange(0.000001, 1e9), "US dollars"),
    )  # fmt: skip
    for name, kind, told in reversed(numbers):
        command = click.option(f"--{name}-per-day", type=kind, help=f"{told} per day (UTC).")(command)
    return command


def scope_of(said: dict[str, Any]) -> ScopeSettings:
    """Return the scope that options say. Raises `click.UsageError` for a name that is none."""
    from pydantic import ValidationError

    try:
        return ScopeSettings.model_validate({name: value or None for name, value in said.items()})
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise click.UsageError(
            f"--{str(found['loc'][0]).removesuffix('s')}: expected a name, or the beginning of one and `*`, got "
            f"{quote(found.get('input'))}"
        ) from error


@click.command()
@click.argument("provider")
@click.option("--to", required=True, metavar="WHO", help="For whom it is: by this it is listed.")
@click.option(
    "--days", type=FiniteRange(0, MOST_DAYS, min_open=True), default=DAYS, show_default=True,
    help="Days that it holds.",
)  # fmt: skip
@click.option(
    "--from",
    "parent",
    metavar="FILE",
    help="Hand on this delegation, which its holder may; needs neither key nor Redis.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write it to. Not given: stdout.")
@scope_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def delegate(
    provider: str, to: str, days: float, parent: str | None, output: Path | None, as_json: bool, **said: Any
) -> None:
    """Hand a narrower scope of a provider's key to somebody, who can then sign tasks within it and nothing else.

    What is printed is a secret: whoever has it can sign. FLEET_DELEGATION names its file where tasks are submitted.

    \b
    Examples:
      fleet keys delegate openai --to research-team --pool research --usd-per-day 20 -o research.delegation
      fleet keys delegate openai --from research.delegation --to night-job --requests-per-day 500 --days 1
    """
    from fleet.store.home import write_private
    from fleet.vault.delegation import delegate as make_delegation
    from fleet.vault.delegations import root_secret

    settings, until, scope = config.current(), int(time.time() + days * 86_400), scope_of(said)
    if parent is not None:
        token = _handed_on(parent, provider, to, scope, until)
    else:
        known = sorted({*settings.providers, *(pool.provider for pool in settings.pools.values())})
        if provider not in known:
            raise ConfigurationError(f"expected a provider of {', '.join(known)}, got {quote(provider)}")
        secret, is_new = root_secret(settings)
        if is_new:
            say(_first(settings))
        token = make_delegation(secret, provider, to, scope, until)
        _warn_of_pools(provider, token, settings)
    if output is not None:
        write_private(output, f"{token.text}\n")
    _list_it(token, settings, is_root=parent is None)
    if as_json:
        one = {"delegation": token.blocks[-1].id, "to": to, "scope": token.scope.model_dump(exclude_none=True)}
        until = min(block.until for block in token.blocks)
        click.echo(json.dumps({**one, "until": until, "token": None if output else token.text}))
    elif output is None:
        click.echo(token.text)
    else:
        click.echo(f"{output}: delegation {token.blocks[-1].id} for {to}: {token.scope.told()}")


@click.command()
@click.argument("delegation")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def undelegate(delegation: str, as_json: bool) -> None:
    """Let a delegation, and all that were made of it, hold no more: for good, on all workers within two seconds.

    \b
    Examples:
      fleet keys undelegate 4f0c9a1b2d3e
    """
    from fleet.cli.operator import operator_name
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client
    from fleet.vault.delegation import ID_BYTES
    from fleet.vault.delegations import read_handed, revoke_delegation
    from fleet.vault.revocations import redis_time_s

    if len(delegation) != 2 * ID_BYTES or set(delegation) - set("0123456789abcdef"):
        raise click.UsageError(
            f"expected the id of a delegation, {2 * ID_BYTES} hexadecimal digits as `fleet keys list` tells it, got "
            f"{quote(delegation)}"
        )
    with state_client(config.current()) as client:
        children = [one.id for one in read_handed(client) if delegation in one.parents]
        revoke_delegation(client, delegation, redis_time_s(client))
        record_deed(client, catalogue.DELEGATION_REVOKED, operator_name(), delegation=delegation)
    if as_json:
        click.echo(json.dumps({"revoked": delegation, "with": children}))
    else:
        more = f", and with it {', '.join(children)}" if children else ""
        click.echo(f"{delegation} is revoked{more}: tasks that it has signed, and that have not begun, are refused")


def delegation_rows(handed: Sequence[Handed], now_s: float) -> list[dict[str, Any]]:
    """Return delegations as `--json` shows them."""
    return [
        {
            **one._asdict(),
            "state": "revoked" if one.revoked_at is not None else "ended" if one.until <= now_s else "holds",
        }
        for one in handed
    ]


def delegation_lines(handed: Sequence[Handed]) -> Iterator[str]:
    """Yield a table of delegations for people; nothing where there are none."""
    rows = delegation_rows(handed, time.time())
    if rows:
        head = ("DELEGATION", "STATE", "FOR", "OF", "UNTIL", "SCOPE")
        cells = [
            (row["id"], row["state"], row["to"], row["parents"][-1] if row["parents"] else row["provider"],
             stamp(row["until"]), row["scope"])
            for row in rows
        ]  # fmt: skip
        yield ""
        yield from table([head, *cells], left=(0, 1, 2, 3, 4, 5))


def handed_here(settings: Settings, provider: str | None = None) -> list[Handed]:
    """Return the delegations that are listed; of one provider's key, or of all."""
    from fleet.store.private.two_redis import state_client
    from fleet.vault.delegations import read_handed

    with state_client(settings) as client:
        return [one for one in read_handed(client) if provider in (None, one.provider)]


def _handed_on(parent: str, provider: str, to: str, scope: ScopeSettings, until: int) -> Token:
    from fleet.config.secret_files import read_secret
    from fleet.vault.delegation import Token
    from fleet.vault.scopes import widening

    before = Token.read(read_secret(Path(parent), setting="--from"), f"file {parent}")
    if before.blocks[0].provider != provider:
        raise ConfigurationError(
            f"expected provider {before.blocks[0].provider}, whose key it is of, got {quote(provider)}"
        )
    said = ScopeSettings.model_validate(scope.model_dump(exclude_none=True))
    wider = [part for part in widening(said, before.scope) if getattr(said, part) is not None]
    if wider:
        raise ConfigurationError(
            f"{', '.join(wider)}: expected no more than delegation {before.blocks[-1].id} allows "
            f"({before.scope.told()}), got {said.told()}"
        )
    return before.delegate(to, scope, until)


def _warn_of_pools(provider: str, token: Token, settings: Settings) -> None:
    """Say what the delegation is of no use for, as this fleet.toml stands."""
    from fleet.config.scopes import serves

    pools = [name for name in settings.pools if serves(token.scope.pools, name)]
    for name in pools:
        if settings.pools[name].provider != provider:
            say(f"pool {name} has another provider ({settings.pools[name].provider}): nothing is signed for it by this")
    opened = [
        name for name in pools if not settings.pools[name].delegated and settings.pools[name].provider == provider
    ]
    if not pools:
        say(f"no pool of this fleet.toml is served: {token.scope.told()}")
    if opened:
        say(
            f"{', '.join(opened)}: unsigned tasks are taken, too, until workers have `delegated = true` in [pools.NAME]"
        )


def _list_it(token: Token, settings: Settings, *, is_root: bool) -> None:
    """Let `fleet keys list` know of a delegation; one that is handed on holds without."""
    from fleet.cli.operator import operator_name
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client
    from fleet.vault.delegations import note_handed

    try:
        with state_client(settings) as client:
            one = note_handed(client, token, operator_name())
            record_deed(
                client, catalogue.KEY_DELEGATED, operator_name(), provider=one.provider, delegation=one.id, to=one.to
            )
    except FleetError as error:
        if is_root:
            raise
        say(f"not listed, for Redis is not to be had from here ({error}): it holds all the same")


def _first(settings: Settings) -> str:
    from fleet.vault.delegations import PUBLIC, SEAL, root_keys

    home = config.home_path()
    (key,) = root_keys(settings) if len(root_keys(settings)) == 1 else ("see vault.delegation_keys",)
    return (
        f"made what delegations begin with. Workers of this state folder check by {home / PUBLIC}; others need "
        f'[vault] delegation_keys = ["{key}"], and a copy of {home / SEAL} (0600) for what canvases send'
    )
