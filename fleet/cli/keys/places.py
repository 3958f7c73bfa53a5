"""A key as people name it (`openai`, `openai/team-b`, `tools/search`), and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.config import KEY_LABEL, TOOLS, KeySettings, Settings, ToolSettings
from fleet.errors import ConfigurationError
from fleet.quoting import quote

if TYPE_CHECKING:
    from fleet.vault import KeySource, KeyVersion

#: What `fleet keys` takes as a key's name.
METAVAR = "PROVIDER[/LABEL]"


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """One key.

    Args:
        settings: Everything.
        provider: Its name under [providers], or `tools/NAME`: what fingerprints and revocations are of.
        label: Of several keys of the provider.
    """

    settings: Settings
    provider: str
    label: str = KEY_LABEL

    @property
    def name(self) -> str:
        """What people know it by."""
        return self.provider if self.label == KEY_LABEL else f"{self.provider}/{self.label}"

    @property
    def scope(self) -> str:
        """The name of its scope: of one of several keys its own, else its provider's or tool's."""
        from fleet.engine.operations.keys.scopes import scope_name

        return scope_name(self.provider, self.label, self.settings)

    @property
    def tool(self) -> str:
        """The tool whose key it is; empty: it is a provider's."""
        kind, _, tool = self.provider.partition("/")
        return tool if kind == TOOLS else ""

    @property
    def table(self) -> KeySettings | ToolSettings:
        """What says where it comes from."""
        if self.tool:
            return self.settings.tools[self.tool]
        return self.settings.provider_named(self.provider).key_at(self.label)

    @property
    def key_settings(self) -> tuple[str, ...]:
        """The settings that say where it comes from; none: it is in the encrypted file, or none is needed."""
        return self.table.key_settings

    @property
    def is_sealed(self) -> bool:
        """True when it is in Fleet's own encrypted file."""
        return not self.tool and not self.key_settings

    @property
    def model(self) -> str:
        """The model that it is needed for; empty: no pool has one."""
        known, pools = self.settings.provider_named(self.provider), self.settings.pools
        models = [model for pool in pools for name, model in self.settings.calls_of(pool) if name == self.provider]
        return next(filter(known.needs_key_for, models), models[0] if models else "")

    @property
    def is_the_simulators(self) -> bool:
        """True when nobody looks at it."""
        return not self.tool and self.settings.provider_named(self.provider).kind == "simulator"

    @property
    def timeout_s(self) -> float:
        """Seconds that a call with it takes at most."""
        if self.tool:
            return self.settings.tools[self.tool].timeout_s
        return self.settings.provider_named(self.provider).timeout_s

    @property
    def rotate_days(self) -> float | None:
        """Days after which it is due to be replaced; None: never."""
        if isinstance(self.table, ToolSettings):
            return self.table.rotate_days
        return self.settings.provider_named(self.provider).rotate_days_of(self.label)

    def source(self) -> KeySource:
        """Return where it comes from."""
        from fleet.vault.choice import source_of, tool_source_of

        if self.tool:
            return tool_source_of(self.tool, self.settings)
        return source_of(self.provider, self.settings, self.model, self.label)

    def fingerprint(self) -> str:
        """Return the fingerprint of the key that calls use; of tokens, that of what they are had for.

        Raises:
            KeyMissing: It cannot be read. An exchange need not be made for it.
        """
        from fleet.vault import key_fingerprint
        from fleet.vault.exchange import ExchangeKey

        source = self.source()
        known_by = source.identity if isinstance(source, ExchangeKey) else source.current().known_by
        return key_fingerprint(self.provider, known_by)

    @property
    def shadowed_by(self) -> tuple[str, ...]:
        """Variables that are set here and would be used before its exchange by what else reads them."""
        found = None if self.tool else self.settings.provider_named(self.provider).exchange
        if found is None:
            return ()
        from fleet.vault.exchange import shadows_of

        return tuple(shadows_of(found, os.environ))

    def versions(self) -> tuple[KeyVersion, ...]:
        """Return its versions in the encrypted file; none where it comes from elsewhere.

        Raises:
            KeyMissing: The file cannot be read.
        """
        from fleet.vault.choice import envelope_of

        return envelope_of(self.settings).read().of(self.name) if self.is_sealed else ()


def places(settings: Settings) -> Iterator[KeyPlace]:
    """Yield all keys: those of providers, and of tools that send one."""
    used = {provider for pool in settings.pools for provider, _ in settings.calls_of(pool)}
    for provider in sorted({*settings.providers, *used}):
        for label in settings.provider_named(provider).labels:
            yield KeyPlace(settings, provider, label)
    for name in sorted(settings.tools):
        if settings.tools[name].has_key:
            yield KeyPlace(settings, f"{TOOLS}/{name}")


def place_of(name: str, settings: Settings) -> KeyPlace:
    """Return the key of a name.

    Raises:
        ConfigurationError: There is none, or the provider has several.
    """
    known = {place.name: place for place in places(settings)}
    if name in known:
        return known[name]
    several = [place.name for place in known.values() if place.provider == name]
    if several:
        raise ConfigurationError(f"expected one of the keys {', '.join(several)}, got their provider, {quote(name)}")
    raise ConfigurationError(f"expected a provider of {', '.join(known)}, got {quote(name)}")
