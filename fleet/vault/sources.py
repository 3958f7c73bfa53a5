"""What gives a provider's key: variables, files, mounted secrets, Fleet's own encrypted file, nothing at all.

One port, `KeySource`. Vault and OpenBao are `kv.py`, tokens that expire `exchange.py`; which source a provider has is
`choice.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from fleet.config.secret_files import one_word, read_secret
from fleet.errors import KeyMissing
from fleet.quoting import Hidden
from fleet.vault.envelope import Envelope

#: Where a key comes from that nobody needs.
NEEDLESS = "none needed"
#: Where systemd (by a variable) and Docker mount secrets.
CREDENTIALS_VARIABLE, RUN_SECRETS = "CREDENTIALS_DIRECTORY", Path("/run/secrets")


@dataclass(frozen=True, slots=True)
class Secret:
    """A key as its source has it now.

    Args:
        value: The key; empty where none is needed.
        version: As the source counts; empty: it does not.
        made_at: Unix time in seconds of this version; None: the source does not say.
        lives_s: Seconds until it expires, as it was read; None: it does not.
        identity: What it was had for, where that stays as the key changes; empty: the key is its own.
        next_at: Unix time in seconds from when its source gives another one, which lies there already; None: none does.
    """

    value: str = field(repr=False)
    version: str = ""
    made_at: float | None = None
    lives_s: float | None = None
    identity: str = ""
    next_at: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", Hidden(self.value))

    @property
    def known_by(self) -> str:
        """What its fingerprint is made of: itself, or what it was had for."""
        return self.identity or self.value


class KeySource(Protocol):
    """Where a key comes from. Blocks: a file for moments, a vault for seconds."""

    @property
    def where(self) -> str:
        """In words, for people; never a secret."""
        ...

    def current(self) -> Secret:
        """Return the key that new calls use.

        Raises:
            VaultAway: What holds it does not answer: it may soon.
            KeyMissing: There is none, or none that can be used.
        """
        ...

    def mark(self) -> Hashable:
        """Return what changes when the key may have, at the cost of a system call; None: only reading it tells."""
        ...


@runtime_checkable
class HoldsNext(Protocol):
    """A source that may hold a version which is to serve later."""

    def refuse(self) -> bool:
        """Give that one at once: the one that was given last is refused, or revoked.

        Returns:
            Whether that is news.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoKey:
    """Of a provider that needs none."""

    value: str = ""
    where: str = NEEDLESS

    def current(self) -> Secret:
        """Return what is sent instead: nothing, or the simulator's word."""
        return Secret(self.value)

    def mark(self) -> Hashable:
        """Never changes."""
        return 0


@dataclass(frozen=True, slots=True)
class VariableKey:
    """An environment variable, as it was when the process started."""

    variable: str

    @property
    def where(self) -> str:
        """Its name."""
        return f"variable {self.variable}"

    def current(self) -> Secret:
        """Return what it holds. Raises as `KeySource.current`."""
        return Secret(one_word(os.environ.get(self.variable, ""), self.where))

    def mark(self) -> Hashable:
        """Nobody changes the environment of a process from outside."""
        return 0


@dataclass(frozen=True, slots=True)
class FileKey:
    """A file that only its owner can read."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return f"file {self.path}"

    def current(self) -> Secret:
        """Return what it holds. Raises as `KeySource.current`."""
        value = read_secret(self.path, setting="api_key_file")
        return Secret(value, made_at=_written_at(self.path.expanduser()))

    def mark(self) -> Hashable:
        """See `KeySource.mark`."""
        return file_mark(self.path.expanduser())


@dataclass(frozen=True, slots=True)
class MountedKey:
    """A secret by its name: a systemd credential, or what Docker or Kubernetes mounts in /run/secrets."""

    name: str

    @property
    def where(self) -> str:
        """Its name."""
        return f"mounted secret {self.name}"

    def current(self) -> Secret:
        """Return what it holds. Raises as `KeySource.current`."""
        path = self._path()
        if path is None:
            raise KeyMissing(
                f"api_key_secret: expected a file {self.name} in ${CREDENTIALS_VARIABLE} or {RUN_SECRETS}, got none: "
                "mount it (LoadCredential=, `secrets:`)"
            )
        value = read_secret(path, setting="api_key_secret", is_private=False)
        return Secret(value, made_at=_written_at(path))

    def mark(self) -> Hashable:
        """See `KeySource.mark`."""
        path = self._path()
        return None if path is None else file_mark(path)

    def _path(self) -> Path | None:
        folders = (os.environ.get(CREDENTIALS_VARIABLE), RUN_SECRETS)
        paths = (Path(folder) / self.name for folder in folders if folder)
        return next((path for path in paths if path.exists()), None)


@dataclass(slots=True)
class EnvelopeKey:
    """A key in Fleet's own encrypted file. Versions may be stored that are to serve later.

    Args:
        account: What the file calls it: `provider`, or `provider/label`.
        envelope: The file.
        otherwise: What is used while the file has no such key; None: that is an error.
        usual: The variable that its vendor's own tools read: what the error proposes too.
        kind: Of the provider.
        clock: Unix time in seconds.
    """

    account: str
    envelope: Envelope
    otherwise: NoKey | None = None
    usual: str = "API_KEY"
    kind: str = ""
    clock: Callable[[], float] = time.time
    _refused: set[int] = field(default_factory=set)
    _version: int = 0
    _starts_at: float | None = None

    @property
    def where(self) -> str:
        """The file's path."""
        if self.otherwise is not None and not self._is_in_file():
            return self.otherwise.where
        return f"encrypted file {self.envelope.path}"

    def _is_in_file(self) -> bool:
        try:
            return self.envelope.read().newest(self.account) is not None
        except KeyMissing:
            return True

    def current(self) -> Secret:
        """Return its newest version that has started. Raises as `KeySource.current`."""
        book, now_s = self.envelope.read(), self.clock()
        found, self._starts_at = book.serving(self.account, now_s, self._refused), book.next_start(self.account, now_s)
        if found is None and self.otherwise is not None:
            return self.otherwise.current()
        if found is None:
            raise KeyMissing(
                f"expected a key for a provider of kind {self.kind!r}, got none: run `fleet keys add {self.account}`; "
                f'or in fleet.toml set api_key_env = "{self.usual}" (and that variable), or api_key_file = "PATH"'
            )
        if found.state(now_s) == "revoked":
            raise KeyMissing(
                f"expected a key of {self.account} that may be used, got version {found.version}, which is revoked: "
                f"run `fleet keys rotate {self.account}`"
            )
        self._version = found.version
        return Secret(self.envelope.unseal(found), str(found.version), found.added_at)

    def refuse(self) -> bool:
        """Give another version than the one that was given last, which its provider refuses, if there is any.

        Returns:
            Whether that is news.
        """
        is_news = self._version not in self._refused
        self._refused.add(self._version)
        return is_news

    def mark(self) -> Hashable:
        """See `KeySource.mark`: also another one when the next version starts."""
        starts_at = self._starts_at
        has_started = starts_at is not None and starts_at <= self.clock()
        return (mark, has_started) if (mark := file_mark(self.envelope.path)) else 0


def file_mark(path: Path) -> Hashable:
    """Return which file lies at a path, and as of when; None: there is none, or it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _written_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
