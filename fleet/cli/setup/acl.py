"""`fleet acl`: the rules of the four roles in Redis, to be put into an ACL file, or made on the servers at once."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as quoted
from urllib.parse import urlsplit, urlunsplit

import click

from fleet import config
from fleet.cli.terminal import say
from fleet.errors import ConfigurationError
from fleet.quoting import counted, nearest, quote

if TYPE_CHECKING:
    import redis
    from pydantic import SecretStr

    from fleet.config import Settings
    from fleet.engine.operations.roles import Rules

#: Redis has key permissions and selectors since this one; every Valkey has them.
_OLDEST = (7, 0)
#: Bytes of chance in a password that is made here.
_PASSWORD_BYTES = 32


@click.group(invoke_without_command=True)
@click.option("--pool", "pools", multiple=True, metavar="POOL", help="A pool the producer may use; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def acl(ctx: click.Context, /, pools: tuple[str, ...], as_json: bool) -> None:
    """Print what each role may do in Redis, as ACL rules; make the users.

    The roles are producer, worker, dashboard and operator. The lines are those of an ACL file, for fleet.toml as
    it is (prefix, pools, database), and still lack a password: nobody gets in by them until you add one, as
    ">PASSWORD" or "#SHA256". A broker and a state Redis take the same lines. docs/redis.md tells what each role
    is refused. It needs Redis 7.0 or newer, or Valkey.

    \b
    Examples:
      fleet acl
      fleet acl --pool research > producer.acl
      fleet acl apply users.env
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = pools
        return
    rules = _rules(config.load(), pools)
    if as_json:
        click.echo(json.dumps({"users": [{"user": one.user, "role": one.role, "rules": one.words} for one in rules]}))
    else:
        from fleet.engine.operations.roles import line_of

        for one in rules:
            click.echo(line_of(one))


@acl.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def apply(ctx: click.Context, /, file: Path, as_json: bool) -> None:
    """Make the four users on the Redis of fleet.toml, or give them today's rules.

    A user that has no password yet gets one made by chance; FILE (mode 0600, must not exist) then has the URLs of all
    new users. Users that have a password keep it. No other user is touched, nor the default one, so nobody is
    locked out: to close the door behind you, see docs/redis.md. The user in redis.url must be one that may use ACL.

    \b
    Examples:
      fleet acl apply users.env
      fleet acl --pool research apply users.env
    """
    settings = config.load()
    if settings.redis.url is None:
        raise ConfigurationError(
            "redis.url: expected a Redis of yours, got none; the private Redis has one password for its one user, and "
            "listens to this machine only"
        )
    if any(url is not None and url.get_secret_value().startswith("sentinel:") for url in _named(settings)):
        raise ConfigurationError(
            "redis.url: expected one server, got Sentinels; Redis replicates no users, so put the lines of `fleet acl` "
            "into the aclfile of every server"
        )
    if file.exists():
        raise ConfigurationError(f"{file}: expected no file there yet, got one; name another, or move that one away")
    made, kept, notes = _apply(settings, _rules(settings, ctx.obj or ()), file)
    if as_json:
        click.echo(json.dumps({"made": made, "kept": kept, "file": str(file) if made else None, "notes": notes}))
        return
    for note in notes:
        say(note)
    say(f"{counted(len(made), 'user')} made, {len(kept)} had a password and got today's rules")
    if made:
        say(f"their URLs are in {file}; give each process the one of its role, and keep the file from others")


def _named(settings: Settings) -> tuple[SecretStr | None, SecretStr | None]:
    return settings.redis.url, settings.redis.state_url


def _rules(settings: Settings, pools: tuple[str, ...]) -> tuple[Rules, ...]:
    from fleet.engine.operations.roles import rules_of

    for pool in pools:
        if pool not in settings.pools:
            raise ConfigurationError(
                f"expected a pool of fleet.toml, got {quote(pool)}; {nearest(pool, settings.pools)}"
            )
    return rules_of(settings, database=_database(settings), pools=pools)


def _database(settings: Settings) -> int:
    """Return the number of the broker's database, without looking for a server."""
    from fleet.store.address import Address

    url = settings.redis.url
    return Address.parse(url.get_secret_value()).db if url is not None else 0


def _apply(settings: Settings, rules: tuple[Rules, ...], file: Path) -> tuple[list[str], list[str], list[str]]:
    """Give each server the rules; write the URLs of users that are new there."""
    from fleet.store.client import connect, store_errors
    from fleet.store.home import write_private
    from fleet.store.private.branches import branch_urls
    from fleet.store.private.embedded import broker_url, state_url

    places = dict.fromkeys((broker_url(settings), state_url(settings), *branch_urls(settings).values()))
    passwords = {one.user: secrets.token_urlsafe(_PASSWORD_BYTES) for one in rules}
    made: dict[str, None] = {}
    notes: list[str] = []
    for url in places:
        with store_errors(url), connect(url) as client:
            _refuse_old(client)
            new = [one.user for one in rules if not _has_password(client, one.user)]
            if made and set(new) != set(made):
                notes.append(
                    "the two servers did not have the same users: give those that were kept one password by hand"
                )
            made.update(dict.fromkeys(new))
            write_private(file, _urls(settings, passwords, made))  # before anybody has them: a lost password is no use
            for one in rules:
                words = (f"#{hashlib.sha256(passwords[one.user].encode()).hexdigest()}",) if one.user in new else ()
                _command(client, "ACL", "SETUSER", one.user, *one.words, *words)
            notes += _saved(client)
    if not made:
        file.unlink(missing_ok=True)
    return list(made), [one.user for one in rules if one.user not in made], list(dict.fromkeys(notes))


def _refuse_old(client: redis.Redis) -> None:
    info: dict[str, Any] = client.info("server")
    version = str(info.get("redis_version"))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST and "valkey_version" not in info:
        raise ConfigurationError(
            f"expected Redis 7.0 or newer, or Valkey, got Redis {version}, which lacks rights by command and key; "
            "upgrade it, or keep one password"
        )


def _has_password(client: redis.Redis, user: str) -> bool:
    found: Any = client.acl_getuser(user)
    return bool(found and found.get("passwords"))


def _saved(client: redis.Redis) -> list[str]:
    """Have the server remember its users; a server without an ACL file forgets them when it ends."""
    import redis

    try:
        _command(client, "ACL", "SAVE")
    except redis.ResponseError:
        return ["this server has no ACL file (`aclfile`) and forgets these users when it ends; see docs/redis.md"]
    return []


def _command(client: redis.Redis, *words: str) -> None:
    client.execute_command(*words)  # type: ignore[no-untyped-call]


def _urls(settings: Settings, passwords: dict[str, str], users: dict[str, None]) -> str:
    """Return lines of variables, by user, as a shell or an EnvironmentFile takes them."""
    rows = []
    for user in users:
        rows.append(f"# {user}")
        for name, secret in zip(("URL", "STATE_URL"), _named(settings), strict=True):
            if secret is not None:
                rows.append(f"FLEET_REDIS__{name}={_as_user(secret.get_secret_value(), user, passwords[user])}")
    return "\n".join(rows) + "\n"


def _as_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quoted(user)}:{quoted(password, safe='')}@{host}"))
