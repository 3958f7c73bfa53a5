"""Where a fleet's delegations lie: its root and the workers' seal in files, what was handed out and revoked in Redis.

The root signs first tokens; it lies in the encrypted file of the operator's host. Its public key lies beside the state
folder's other files, or in fleet.toml, and is all that workers need. What tokens are: `delegation.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import redis

from fleet import config
from fleet.config import Settings
from fleet.config.secret_files import read_secret
from fleet.errors import ConfigurationError, KeyMissing
from fleet.store import vault_keys
from fleet.store.client import Store
from fleet.store.home import make_home, write_private
from fleet.vault.choice import envelope_of
from fleet.vault.delegation import Token
from fleet.vault.revocations import times
from fleet.vault.signing import new_secret, public_of, unword, verifier
from fleet.vault.warrant import SEAL_BYTES

#: Name under which the root lies in the encrypted file: no provider's, for those are words.
ROOT = "delegations of this fleet"
#: Files in the state folder: the root's public key, and what workers seal with.
PUBLIC, SEAL = "delegations.public", "delegations.seal"


class Handed(NamedTuple):
    """A delegation that was handed out, as it is listed.

    Args:
        id: Its own.
        to: For whom.
        provider: Whose key it is of.
        until: Unix time in seconds from when it holds no more.
        scope: What it allows, in words.
        parents: Ids of those before it in its chain.
        by: Who has made it.
        revoked_at: Unix time in seconds from when it, or a parent, holds no more; None: it was not revoked.
    """

    id: str
    to: str
    provider: str
    until: int
    scope: str
    parents: tuple[str, ...] = ()
    by: str = ""
    revoked_at: float | None = None


def root_keys(settings: Settings) -> frozenset[str]:
    """Return the public keys that first blocks of delegations may be signed by.

    Raises:
        ConfigurationError: There is none, or one is no key.
    """
    spelt = settings.vault.delegation_keys or tuple(_word(config.home_path() / PUBLIC))
    if not spelt:
        raise ConfigurationError(
            f"expected a public key of delegations in vault.delegation_keys or {config.home_path() / PUBLIC}, got "
            "none: `fleet keys delegate` makes one"
        )
    for key in spelt:
        try:
            verifier(key)
        except ValueError as error:
            raise ConfigurationError(
                "vault.delegation_keys: expected a public key as `fleet keys delegate` tells it, got something else"
            ) from error
    return frozenset(spelt)


def seal_secret(settings: Settings) -> bytes | None:
    """Return what workers seal with that a canvas sends; None: this one has none.

    Raises:
        KeyMissing: It cannot be read, or others can read it too.
    """
    path = settings.vault.seal_file or config.home_path() / SEAL
    if settings.vault.seal_file is None and not path.exists():
        return None
    try:
        secret = unword(read_secret(path, setting="vault.seal_file"))
    except ValueError:
        secret = b""
    if len(secret) != SEAL_BYTES:
        raise KeyMissing(f"vault.seal_file: expected {SEAL_BYTES} bytes in base64 in {path}, got something else")
    return secret


def root_secret(settings: Settings) -> tuple[str, bool]:
    """Return what signs first tokens, and whether it was made just now: its public key and the workers' seal with it.

    Raises:
        KeyMissing: The encrypted file cannot be read.
        ConfigurationError: The state folder cannot be written.
    """
    envelope = envelope_of(settings)
    found = envelope.read().newest(ROOT)
    is_new = found is None
    secret = new_secret() if found is None else envelope.unseal(found)
    if is_new:
        envelope.add(ROOT, secret)
    home = config.home_path()
    _write_missing(home / PUBLIC, public_of(secret))
    if settings.vault.seal_file is None:
        _write_missing(home / SEAL, new_secret())
    return secret, is_new


def note_handed(client: redis.Redis, token: Token, by: str) -> Handed:
    """List a delegation that was handed out; it is worth the same unlisted."""
    blocks = token.blocks
    one = Handed(
        blocks[-1].id, blocks[-1].to, blocks[0].provider, min(block.until for block in blocks), token.scope.told(),
        tuple(block.id for block in blocks[:-1]), by,
    )  # fmt: skip
    client.hset(vault_keys.delegations(), one.id, json.dumps(one._asdict()))
    return one


def read_handed(client: redis.Redis) -> list[Handed]:
    """Return the delegations that are listed, the newest end first; a parent that is revoked revokes its children."""
    revoked = times(client.hgetall(vault_keys.revoked_delegations()))  # type: ignore[arg-type]
    found = []
    for text in client.hvals(vault_keys.delegations()):
        try:
            told: Any = json.loads(text)
            one = Handed(**{**told, "parents": tuple(told["parents"])})
        except (ValueError, TypeError, KeyError):  # somebody else's
            continue
        at_s = min((revoked[name] for name in (one.id, *one.parents) if name in revoked), default=None)
        found.append(one._replace(revoked_at=at_s))
    return sorted(found, key=lambda one: (-one.until, one.id))


def revoke_delegation(client: redis.Redis, name: str, at_s: float) -> None:
    """Let a delegation, and all that were made of it, hold no more from a time on, for good."""
    client.hset(vault_keys.revoked_delegations(), name, repr(at_s))


async def hear_revoked_delegations(store: Store) -> dict[str, float]:
    """Return from when delegations hold no more (Unix time in seconds), by id.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    parts = await store.command("HGETALL", vault_keys.revoked_delegations())
    return times(dict(zip(parts[::2], parts[1::2], strict=True)))


def _word(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()[:1]
    except (OSError, UnicodeDecodeError):
        return []


def _write_missing(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all, for its owner alone."""
    if path.exists():
        return
    make_home(path.parent)
    write_private(path, f"{text}\n")
