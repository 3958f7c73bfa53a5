"""What opens the encrypted file: a key file's bytes, or a passphrase, through scrypt (RFC 7914), slow on purpose.

Workers read the passphrase from a file that only its owner can read; who sits at a terminal is asked (`ASK`).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet.config.secret_files import read_line
from fleet.errors import ConfigurationError, KeyMissing
from fleet.quoting import Hidden

#: Bytes of the key that opens the file, and digits by which it is known.
KEY_BYTES, KEY_DIGITS = 32, 8
#: Work and memory of scrypt: 2^15 rounds of blocks of 8 need 32 MB and a tenth of a second. A file may ask for up to
#: 2^20 (1 GB): more is no file of ours.
ROUNDS, MOST_ROUNDS, BLOCK, SALT_BYTES = 2**15, 2**20, 8, 16
#: Characters of a passphrase at least: who has the file may try as many as he likes, ten a second and core.
FEWEST_CHARS = 12
#: Asks whoever sits there; None: nobody does.
ASK: ContextVar[Callable[[], str] | None] = ContextVar("fleet_ask_passphrase", default=None)


@dataclass(frozen=True, slots=True)
class Kdf:
    """How a key is made of a passphrase, as the file says it in the clear."""

    salt: bytes
    rounds: int = ROUNDS

    def to_row(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"name": "scrypt", "salt": base64.b64encode(self.salt).decode(), "n": self.rounds}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Kdf:
        """Read what `to_row` wrote.

        Raises:
            TypeError, ValueError, KeyError: It is something else.
        """
        made = cls(base64.b64decode(row["salt"], validate=True), int(row["n"]))
        is_power = made.rounds > 1 and made.rounds & (made.rounds - 1) == 0
        if row["name"] != "scrypt" or not is_power or made.rounds > MOST_ROUNDS or len(made.salt) < SALT_BYTES:
            raise ValueError("another way to make a key")
        return made


@dataclass(frozen=True, slots=True)
class Lock:
    """What opens the file. The key is in no repr.

    Args:
        key: 32 bytes.
        kdf: How it was made of a passphrase; None: it lies in a key file.
    """

    key: bytes = field(repr=False)
    kdf: Kdf | None = None

    @classmethod
    def of_passphrase(cls, passphrase: str, kdf: Kdf | None = None) -> Lock:
        """Return the lock that a passphrase makes; without `kdf` a new one."""
        kdf = kdf or Kdf(secrets.token_bytes(SALT_BYTES))
        return cls(_derived(passphrase, kdf), kdf)

    @property
    def digest(self) -> str:
        """By which it is known, and nothing of it."""
        return hashlib.sha256(b"fleet key file\n" + self.key).hexdigest()[:KEY_DIGITS]

    @property
    def told(self) -> dict[str, Any]:
        """What the file says of it, beside its digest."""
        return {} if self.kdf is None else {"kdf": self.kdf.to_row()}


def passphrase_for(sealed: Path, file: Path | None) -> str:
    """Return the passphrase of an encrypted file.

    Args:
        sealed: That file.
        file: Where the passphrase lies; None: whoever sits there is asked.

    Raises:
        KeyMissing: There is none.
    """
    if file is not None:
        return read_line(file, setting="vault.passphrase_file")
    ask = ASK.get()
    if ask is None:
        raise KeyMissing(
            f"expected the passphrase of {sealed}, got none: set vault.passphrase_file to a file (mode 0600) that "
            "holds it, or run `fleet keys` at a terminal, which asks"
        )
    return Hidden(ask())


def checked(passphrase: str) -> str:
    """Return a new passphrase that may be taken.

    Raises:
        ConfigurationError: It is too short.
    """
    if len(passphrase.strip()) < FEWEST_CHARS:
        raise ConfigurationError(
            f"expected a passphrase of {FEWEST_CHARS} characters or more, got {len(passphrase.strip())}: take words"
        )
    return Hidden(passphrase.strip())


@lru_cache(maxsize=4)
def _derived(passphrase: str, kdf: Kdf) -> bytes:
    """Return the key; kept, for a process opens its file again and again."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=kdf.salt, length=KEY_BYTES, n=kdf.rounds, r=BLOCK, p=1).derive(passphrase.encode())
