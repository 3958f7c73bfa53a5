"""The encrypted file of keys on this host: AES-256-GCM, opened by a key file beside the state folder or a passphrase.

Each key is bound to its provider, scope and version, and the list to itself: what is changed, cut or swapped is seen.
Weakness: an older file put back whole is not; and who can read both files has the keys. In a cluster use a vault.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet.config.secret_files import read_secret
from fleet.errors import KeyMissing
from fleet.quoting import Hidden
from fleet.store.home import make_home, unusable
from fleet.vault.book import Book, KeyVersion
from fleet.vault.fingerprints import key_fingerprint
from fleet.vault.passphrases import KEY_BYTES, Kdf, Lock, passphrase_for

#: What the file calls itself: another format is another word.
FORMAT = "fleet-keys/1"
#: The file, the one before its last change, and what writers hold while they write; in the state folder.
FILE, BACKUP, LOCK = "keys.sealed", "keys.sealed.before", "keys.lock"
#: Bytes of a nonce (NIST SP 800-38D).
NONCE_BYTES = 12
#: Seconds that a writer waits for another one.
LOCK_S = 10.0
#: Largest file that is read, in bytes.
_MAX_BYTES = 4 * 1024 * 1024


class Envelope:
    """The encrypted file of one state folder.

    Args:
        home: The state folder.
        key_file: What opens it; None: `<home>-key`, beside the state folder.
        passphrase_file: What opens one that is sealed with a passphrase; None: whoever sits there is asked.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        home: Path,
        key_file: Path | None = None,
        *,
        passphrase_file: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.home = home
        self.path, self.backup = home / FILE, home / BACKUP
        self.key_file = (key_file or home.with_name(f"{home.name}-key")).expanduser()
        self._passphrase_file = passphrase_file
        self._clock = clock
        #: What opened the file when it was last read: its values are opened by that too.
        self._lock: Lock | None = None

    @property
    def is_opened_by_a_passphrase(self) -> bool:
        """False while there is no such file, or none that can be read."""
        try:
            return "kdf" in json.loads(self.path.read_bytes()[:_MAX_BYTES])
        except (OSError, ValueError, TypeError):
            return False

    def read(self) -> Book:
        """Return what it holds; nothing, while there is no file.

        Raises:
            KeyMissing: It is damaged, or the key file is another one's, or cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                text = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return Book()
        except OSError as error:
            raise KeyMissing(f"expected to read {self.path}, got: {error.strerror}") from error
        return self._opened(text)

    def unseal(self, version: KeyVersion) -> str:
        """Return the value of a version.

        Raises:
            KeyMissing: It was thrown away, or cannot be opened.
        """
        if not version.sealed:
            raise KeyMissing(f"expected the value of version {version.version}, got none: it is revoked")
        if self._lock is None:
            self.read()
        return self._unsealed(self._lock or self._key_file_lock(), version.sealed, version.bound_to)

    def reseal(self, passphrase: str) -> None:
        """Seal it with a passphrase, or with another one, and make it where there is none.

        The copy of before its last change is sealed so, too: what opened both until now opens neither.

        Raises:
            KeyMissing: As `read`.
            ConfigurationError: The folder cannot be written.
        """
        with self._alone():
            book, lock = self.read(), Lock.of_passphrase(passphrase)
            sealed = Book(tuple(
                replace(one, sealed=_sealed(lock, self.unseal(one), one.bound_to)) if one.sealed else one
                for one in book.versions
            ))  # fmt: skip
            for _ in range(2):
                self._write(sealed, lock)

    def add(
        self, provider: str, value: str, *, old_until: float | None = None, starts_at: float | None = None
    ) -> tuple[Book, KeyVersion]:
        """Add a version of a provider's key, and make file and key file where there are none.

        Args:
            provider: Its name.
            value: The key.
            old_until: See `Book.with_key`.
            starts_at: Unix time in seconds from when it is used; None: at once.

        Returns:
            What it held before, and the new version.

        Raises:
            KeyMissing: As `read`.
            ConfigurationError: As `Book.with_key`; or the folder cannot be written.
        """
        value = Hidden(value)
        with self._alone():
            before, lock = self.read(), self._lock or self._key_file_lock(may_make=True)
            newest = before.newest(provider)
            number = 1 if newest is None else newest.version + 1
            blank = KeyVersion(provider, number, self._clock(), key_fingerprint(provider, value), "")
            added = replace(blank, sealed=_sealed(lock, value, blank.bound_to), starts_at=starts_at)
            self._write(before.with_key(added, old_until=old_until), lock)
        return before, added

    def revoke(self, provider: str, version: int, at_s: float) -> None:
        """Mark one version as of no use from `at_s` (Unix time) on, and throw its value away then.

        Raises:
            KeyMissing: As `read`.
            ConfigurationError: The folder cannot be written.
        """
        with self._alone():
            book = self.read().revoked(provider, version, at_s)
            self._write(book, self._lock or self._key_file_lock())

    def _write(self, book: Book, lock: Lock) -> None:
        """Replace the file in one step, and keep the one before: whenever the process dies, one of both is whole."""
        rows = book.swept(self._clock()).to_rows()
        told = {
            "format": FORMAT, "opened_by": lock.digest, **lock.told, "keys": rows,
            "seal": _sealed(lock, "", _canonical(rows)),
        }  # fmt: skip
        new = self.path.with_name(f"{FILE}.new")
        try:
            _write_through(new, json.dumps(told, indent=1).encode())
            if self.path.exists():
                before = self.backup.with_name(f"{BACKUP}.new")
                _write_through(before, self.path.read_bytes())
                before.replace(self.backup)
            new.replace(self.path)
            _sync(self.home)
            self._lock = lock
        except OSError as error:
            raise unusable(self.home, error) from error

    def _opened(self, text: bytes) -> Book:
        try:
            told = json.loads(text)
            if told["format"] != FORMAT:
                raise ValueError("another format")
            book, seal, opened_by = Book.from_rows(told["keys"]), told["seal"], str(told["opened_by"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged() from error
        lock = self._lock_of(told)
        if opened_by != lock.digest:
            raise KeyMissing(self._not_the_one(told, opened_by, lock.digest))
        self._unsealed(lock, seal, _canonical(told["keys"]))
        self._lock = lock
        return book

    def _lock_of(self, told: dict[str, Any]) -> Lock:
        """Return what opens a file that says this of itself."""
        if "kdf" not in told:
            return self._key_file_lock()
        try:
            kdf = Kdf.read(told["kdf"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged() from error
        return Lock.of_passphrase(passphrase_for(self.path, self._passphrase_file), kdf)

    def _not_the_one(self, told: dict[str, Any], wanted: str, given: str) -> str:
        if "kdf" in told:
            where = self._passphrase_file or "what was typed"
            return f"expected the passphrase that {self.path} was sealed with, got another one in {where}: try again"
        return (
            f"expected {self.key_file} to be the key file that {self.path} was sealed with ({wanted}), got "
            f"another one ({given}): put the right one there"
        )

    def _damaged(self) -> KeyMissing:
        usable = f"`cp {self.backup} {self.path}` takes the one before its last change" if self.backup.exists() else (
            "there is none before it: remove it, and add the keys anew"
        )  # fmt: skip
        return KeyMissing(
            f"expected an encrypted file of keys in {self.path}, got one that was changed or cut: {usable}"
        )

    def _key_file_lock(self, *, may_make: bool = False) -> Lock:
        if may_make and not self.key_file.exists():
            if self.path.exists():
                raise KeyMissing(
                    f"expected the key file of {self.path} at {self.key_file}, got none: put it back there"
                )
            _make_key(self.key_file)
        text = read_secret(self.key_file, setting="vault.key_file")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise KeyMissing(f"expected {KEY_BYTES} bytes in base64 in {self.key_file}, got something else")
        return Lock(key)

    def _unsealed(self, lock: Lock, sealed: str, about: str) -> str:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.b64decode(sealed, validate=True)
            return (
                AESGCM(lock.key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], f"{FORMAT}\n{about}".encode()).decode()
            )
        except (InvalidTag, ValueError, TypeError) as error:
            raise self._damaged() from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """A block that one writer at a time is in; the lock of one that dies is free."""
        make_home(self.home)
        with (self.home / LOCK).open("ab") as lock:
            until = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise KeyMissing(
                            f"expected {self.home / LOCK} to be free, got another writer: try again"
                        ) from None
                    time.sleep(0.02)
            yield


def _sealed(lock: Lock, text: str, about: str) -> str:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(NONCE_BYTES)
    return base64.b64encode(
        nonce + AESGCM(lock.key).encrypt(nonce, text.encode(), f"{FORMAT}\n{about}".encode())
    ).decode()


def _canonical(rows: Any) -> str:
    return json.dumps(rows, sort_keys=True, separators=(",", ":"))


def _make_key(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.new")
        _write_through(new, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
        new.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise unusable(path.parent, error) from error


def _write_through(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, down to the disk."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
