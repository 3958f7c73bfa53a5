"""The versions of keys in an encrypted file, and what may be done with them. Pure: the file is `envelope.py`'s."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from fleet.config import KEY_LABEL
from fleet.errors import ConfigurationError

#: A key's scope, until keys have scopes of their own.
SCOPE = "default"
#: What may become of a version.
State = Literal["ahead", "current", "draining", "revoked"]


def account_of(provider: str, label: str) -> str:
    """Return what a key is called in the file: its provider, and its label where that has several."""
    return provider if label == KEY_LABEL else f"{provider}/{label}"


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a provider's key.

    Args:
        provider: Its name under [providers], or `provider/label` (`account_of`).
        version: Counts from 1.
        added_at: Unix time in seconds.
        fingerprint: See `fingerprints.py`.
        sealed: The key, encrypted; empty: thrown away, for it was revoked.
        revoked_at: Unix time in seconds from when no call may use it; None: it may be used.
        scope: What it is for.
        starts_at: Unix time in seconds from when new calls use it; None: since it was added.
    """

    provider: str
    version: int
    added_at: float
    fingerprint: str
    sealed: str = field(repr=False)
    revoked_at: float | None = None
    scope: str = SCOPE
    starts_at: float | None = None

    @property
    def bound_to(self) -> str:
        """What its encryption is bound to: under another name, scope or number it cannot be opened."""
        return f"{self.provider}\n{self.scope}\n{self.version}"

    def is_started(self, now_s: float) -> bool:
        """True unless it is to serve later."""
        return self.starts_at is None or self.starts_at <= now_s

    def state(self, now_s: float) -> State:
        """Return what may be done with it; a draining one serves no new call on the host that replaced it, but until
        the next one starts.
        """
        if self.revoked_at is None:
            return "current" if self.is_started(now_s) else "ahead"
        return "draining" if self.revoked_at > now_s else "revoked"


@dataclass(frozen=True, slots=True)
class Book:
    """All versions, the oldest first. Immutable: what changes one returns another."""

    versions: tuple[KeyVersion, ...] = ()

    def of(self, provider: str) -> tuple[KeyVersion, ...]:
        """Return the versions of a provider's key, the oldest first."""
        return tuple(one for one in self.versions if one.provider == provider)

    def newest(self, provider: str) -> KeyVersion | None:
        """Return the newest version, also when it is revoked."""
        return max(self.of(provider), key=lambda one: one.version, default=None)

    def serving(self, provider: str, now_s: float, without: Container[int] = ()) -> KeyVersion | None:
        """Return the version that new calls use: the newest that has started, and no older one instead.

        One that is ahead serves at once where that one is revoked or refused.

        Args:
            provider: Whose.
            now_s: Unix time in seconds.
            without: Versions that the provider refuses.
        """
        versions = sorted(self.of(provider), key=lambda one: one.version)
        ahead = [one for one in versions if one.state(now_s) == "ahead" and one.version not in without]
        newest = next((one for one in reversed(versions) if one.is_started(now_s)), None)
        if newest is not None and newest.state(now_s) != "revoked" and newest.version not in without:
            return newest
        return ahead[0] if ahead else newest

    def next_start(self, provider: str, now_s: float) -> float | None:
        """Return the Unix time (s) at which the next version starts; None: none is ahead."""
        return min(
            (one.starts_at for one in self.of(provider) if one.starts_at and one.starts_at > now_s), default=None
        )

    def with_key(self, added: KeyVersion, *, old_until: float | None) -> Book:
        """Return it with one more version.

        Args:
            added: The version.
            old_until: Unix time in seconds from when those before may be used no more; None: there must be none.

        Raises:
            ConfigurationError: The provider has a key that may be used, and nothing was said of it.
        """
        before = self.of(added.provider)
        if old_until is None and any(one.revoked_at is None for one in before):
            raise ConfigurationError(
                f"expected a provider without a key, got {added.provider}, which has one: "
                f"`fleet keys rotate {added.provider}` adds a version"
            )
        book = self if old_until is None else self._ended(added.provider, old_until)
        return Book((*book.versions, added))

    def revoked(self, provider: str, version: int, at_s: float) -> Book:
        """Return it with one version that may be used no more from `at_s` on."""
        return Book(
            tuple(
                replace(one, revoked_at=at_s) if (one.provider, one.version) == (provider, version) else one
                for one in self.versions
            )
        )

    def swept(self, now_s: float) -> Book:
        """Return it without the values of versions that are revoked; what they were stays known."""
        return Book(tuple(replace(one, sealed="") if one.state(now_s) == "revoked" else one for one in self.versions))

    def _ended(self, provider: str, at_s: float) -> Book:
        return Book(
            tuple(
                replace(one, revoked_at=at_s) if one.provider == provider and one.revoked_at is None else one
                for one in self.versions
            )
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """Return it for JSON."""
        return [asdict(one) for one in self.versions]

    @classmethod
    def from_rows(cls, rows: list[dict[str, Any]]) -> Book:
        """Read what `to_rows` wrote.

        Raises:
            TypeError, ValueError: It is something else.
        """
        return cls(tuple(KeyVersion(**row) for row in rows))
