"""A key's source in a played time: what it gives is up to the test, and a ring of keys goes by its clock."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from fleet.config import ProviderSettings, Settings
from fleet.errors import KeyMissing
from fleet.vault import HeldKey, Keyring, Secret


@dataclass
class PlayedSource:
    """A source without a mark, and a clock that goes when it is told to.

    Attributes:
        error: Why there is no key; None: there is one.
        now_s: The time.
        turns: Values of keys that the ring has told of as others.
        where: What the source is called.
    """

    error: KeyMissing | None = None
    now_s: float = 1000.0
    turns: list[str] = field(default_factory=list)
    where: str = "vault"

    def current(self) -> Secret:
        raise NotImplementedError

    def mark(self) -> Hashable:
        return None

    def ring(self) -> Keyring:
        settings = Settings(providers={"acme": ProviderSettings(kind="openai")})
        return Keyring(settings, source=lambda *_: self, clock=lambda: self.now_s, now_s=lambda: self.now_s)

    async def turn(self, held: HeldKey) -> None:
        self.turns.append(held.value)

    async def passes(self, ring: Keyring, seconds: float, revoked: Mapping[str, float] | None = None) -> None:
        """Let time pass, with a look every second."""
        for _ in range(round(seconds)):
            self.now_s += 1
            await ring.look(revoked or {}, self.turn)
