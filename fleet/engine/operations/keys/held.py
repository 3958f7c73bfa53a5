"""The keys of the fleet as its workers have them, with their scopes: for the page, the metrics and `fleet keys`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import redis

from fleet.config import Settings
from fleet.config.scopes import CAPPED, EVERYTHING
from fleet.engine.operations.keys.scopes import ScopeView, read_scope_views, scope_name, scope_names
from fleet.signals.recorder import HeldKeyReport, WorkerReport, split_reports
from fleet.signals.view import KeyUse, KeyView
from fleet.store import keys


def read_key_views(client: redis.Redis, settings: Settings, living: Iterable[WorkerReport]) -> tuple[KeyView, ...]:
    """Return all keys that workers have; one round trip, and two more for each key whose day is capped.

    Args:
        client: Plain client of the state Redis.
        settings: With the scopes of fleet.toml.
        living: The workers' reports.
    """
    held: dict[str, list[HeldKeyReport]] = {}
    for worker in living:
        for one in worker.held_keys:
            held.setdefault(one.key, []).append(one)
    if not held:
        return ()
    known = set(scope_names(settings))
    names = {key: name for key in held if (name := _scope_of(key, settings)) in known}
    scopes = read_scope_views(client, settings, set(names.values()))
    return tuple(_view(key, held[key], scopes.get(names.get(key, ""))) for key in sorted(held))


def read_living(client: redis.Redis, now_s: float) -> list[WorkerReport]:
    """Return the reports of the workers that live.

    Args:
        client: Plain client of the state Redis.
        now_s: Unix time in seconds, by its clock.
    """
    told: Mapping[bytes, bytes] = client.hgetall(keys.workers())  # type: ignore[assignment]
    living, _ = split_reports(dict(told), now_s=now_s)
    return list(living)


def _scope_of(key: str, settings: Settings) -> str:
    provider, _, label = key.partition("/")
    return key if provider == "tools" else scope_name(provider, label, settings)


def _view(key: str, held: list[HeldKeyReport], scope: ScopeView | None) -> KeyView:
    prints = tuple(sorted({one.fingerprint for one in held if one.fingerprint}))
    waits = next((one.waits for one in held if one.waits), "")
    newest = max(held, key=lambda one: one.made_at or 0.0)
    now = EVERYTHING if scope is None else scope.now
    return KeyView(
        key=key,
        state="waits" if waits else "changes" if len(prints) > 1 else "serves",
        fingerprints=prints,
        source=newest.source,
        made_at=newest.made_at,
        expires_at=min((one.expires_at for one in held if one.expires_at is not None), default=None),
        workers=len(held),
        waits=waits or next((one.failure for one in held if one.failure), ""),
        scope="" if now == EVERYTHING else now.told(),
        used=() if scope is None else tuple(uses_of(scope)),
    )


def uses_of(scope: ScopeView) -> Iterator[KeyUse]:
    """Yield what is used today of what a scope caps."""
    for what, unit in CAPPED:
        if what in scope.used_today:
            used, allowed = scope.used_today[what], getattr(scope.now, what)
            yield KeyUse(line=f"{used:,.6g} of {allowed:,} {unit}", share=used / allowed)
