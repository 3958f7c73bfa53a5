"""Keys of providers: where each comes from, its versions, and which may be used no more.

A worker's `Keyring` holds what its sources gave, in memory alone. Done by hand: `fleet/cli/keys/commands.py`.
"""

from fleet.vault.book import Book, KeyVersion, account_of
from fleet.vault.choice import read_key, source_of
from fleet.vault.envelope import Envelope
from fleet.vault.fingerprints import key_fingerprint
from fleet.vault.keyring import HeldKey, Keyring
from fleet.vault.revocations import read_revoked, revoke_fingerprint
from fleet.vault.sources import KeySource, Secret

__all__ = [
    "Book",
    "Envelope",
    "HeldKey",
    "KeySource",
    "KeyVersion",
    "Keyring",
    "Secret",
    "account_of",
    "key_fingerprint",
    "read_key",
    "read_revoked",
    "revoke_fingerprint",
    "source_of",
]  # fmt: skip
