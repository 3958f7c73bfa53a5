"""A fingerprint of the settings that must be the same in all of a fleet's processes: a short digest of each table.

What differs from host to host on purpose has none: where Redis is, slots, ports, how logs look. Nor have secrets: not
keys, not where keys come from, not a login inside a URL.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from fleet.config.providers import KEY_SETTINGS
from fleet.config.settings import Settings

#: Hexadecimal digits of a digest: enough to tell two tables apart, far too few to tell what is in them.
DIGITS = 12
_TABLES = ("pools", "providers", "limits", "prices", "results", "dead_letters", "health", "diversity")
_SECRETS: dict[str, Any] = {
    "providers": {"__all__": {**dict.fromkeys(KEY_SETTINGS, True), "keys": {"__all__": set(KEY_SETTINGS)}}}
}
_LOGIN = re.compile(r"//[^/@]*@")


#: The last settings asked for and their fingerprint: a process has one, and asks every second.
_last: tuple[Settings, dict[str, str]] | None = None


def fingerprint(settings: Settings) -> dict[str, str]:
    """Return a digest of each table that all processes must agree on, by its name; equal tables have equal digests."""
    global _last
    if _last is None or _last[0] is not settings:
        tables: dict[str, Any] = settings.model_dump(mode="json", include=set(_TABLES), exclude=_SECRETS)
        tables["worker"] = {name: getattr(settings.worker, name) for name in ("inbox", "lowest_first_every")}
        _last = settings, {name: _digest(table) for name, table in tables.items()}
    return _last[1]


def _digest(table: object) -> str:
    text = _LOGIN.sub("//", json.dumps(table, sort_keys=True))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
