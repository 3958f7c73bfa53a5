"""The scope of each key as operators see it: what fleet.toml and Redis say, what holds, what is used of it today."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from fleet.config import TOOLS, Settings
from fleet.config.scopes import EVERYTHING, ScopeSettings
from fleet.economy.budgets.caps import used_today
from fleet.vault.key_scopes import configured_scopes, read_scopes
from fleet.vault.scopes import narrowed


@dataclass(frozen=True, slots=True)
class ScopeView:
    """The scope of one key.

    Args:
        name: `provider`: of all its keys; `provider/label`: of one of several; `tools/NAME`: of a tool's.
        configured: In fleet.toml; None: it has none there.
        live: As `fleet keys scope` has set it; None: it has not.
        used_today: Of what is capped, by the field that caps it.
    """

    name: str
    configured: ScopeSettings | None = None
    live: ScopeSettings | None = None
    used_today: Mapping[str, float] = field(default_factory=dict)

    @property
    def now(self) -> ScopeSettings:
        """What it serves now."""
        return narrowed(self.configured, self.live)

    def to_json(self) -> dict[str, Any]:
        """Return it for `--json` and the page."""
        parts = {"configured": self.configured, "set": self.live, "now": self.now}
        dumped = {name: None if one is None else one.model_dump(exclude_none=True) for name, one in parts.items()}
        return {**dumped, "used_today": dict(self.used_today)}


def scope_names(settings: Settings) -> list[str]:
    """Return the names of all scopes that there may be."""
    used = {name for pool in settings.pools for name, _ in settings.calls_of(pool)}
    names = sorted({*settings.providers, *used})
    several = [f"{name}/{label}" for name in names for label in settings.provider_named(name).keys]
    return [*names, *several, *(f"{TOOLS}/{name}" for name in sorted(settings.tools))]


def scope_name(provider: str, label: str, settings: Settings) -> str:
    """Return under which name the scope of a key is kept: of several its own, else its provider's, or its tool's."""
    is_one_of_several = provider in settings.providers and label in settings.providers[provider].keys
    return f"{provider}/{label}" if is_one_of_several else provider


def read_scope_views(client: redis.Redis, settings: Settings, names: Iterable[str]) -> dict[str, ScopeView]:
    """Return scopes by their names: one round trip, and two more for each that has caps.

    Args:
        client: Plain client of the state Redis.
        settings: With the scopes of fleet.toml.
        names: Which, of `scope_names`.
    """
    configured, live = configured_scopes(settings), read_scopes(client)
    views = {}
    for name in names:
        now = narrowed(configured.get(name), live.get(name))
        used = {} if now == EVERYTHING else used_today(client, f"key:{name}", now)
        views[name] = ScopeView(name, configured.get(name), live.get(name), used)
    return views
