"""The breakers of a worker process: what is told when one opens or closes, and the pools whose gates open then."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import cast

import redis

from fleet import config
from fleet.config import ProviderSettings, Settings
from fleet.resilience import BREAKING, Breakers, fingerprint_of
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import keys
from fleet.store.client import Store
from fleet.waits import Wait

logger = logging.getLogger("fleet.worker")


def make_breakers(settings: Settings, state: Store, broker: Store, secrets: Mapping[str, str]) -> Breakers:
    """Return the breakers of all limits that this process may call under.

    Args:
        settings: Providers and pools.
        state: State Redis, where the breakers are.
        broker: Where the pools' gates are.
        secrets: API key of each limit, by `provider/model/key`; only a fingerprint of it is kept.
    """
    pools: dict[str, list[str]] = {}
    for pool in settings.pools:
        pools.setdefault(f"{settings.limit_of(pool)[0]}/{config.KEY_LABEL}", []).append(pool)

    def told(limit: str, wait: Wait | None) -> None:
        if wait is None:
            logger.info("breaker_closed limit=%s", limit)
            record_event(state, catalogue.BREAKER_CLOSED, limit=limit)
        else:
            logger.warning("breaker_opened limit=%s cause=%s", limit, wait.cause)
            record_event(state, catalogue.BREAKER_OPENED, limit=limit, cause=wait.cause, told=wait.told)

    async def open_gates(limit: str) -> None:
        await lift(broker, (keys.queue(pool) for pool in pools.get(limit, ())), about=limit)

    prints = {limit: _fingerprint(limit, settings, secret) for limit, secret in secrets.items()}
    return Breakers(state, prints, on_closed=open_gates, on_turn=told)


async def lift(broker: Store, queues: Iterable[str], *, about: str) -> None:
    """Delete what holds these queues because of one limit's breaker."""
    for name in queues:
        if _is_held(await broker.command("GET", keys.hold(name)), about):
            await broker.command("DEL", keys.hold(name))
            await broker.command("XADD", keys.bell(), "MAXLEN", 1, "*", "x", 1)


def lift_now(client: redis.Redis, queues: Iterable[str], *, about: str) -> None:
    """`lift` through a plain client, for commands."""
    for name in queues:
        if _is_held(cast(bytes | None, client.get(keys.hold(name))), about):
            client.delete(keys.hold(name))
            client.xadd(keys.bell(), {"x": 1}, maxlen=1, approximate=False)


def _is_held(text: bytes | None, about: str) -> bool:
    """True when this is the hold of one limit's breaker."""
    try:
        held = Wait.from_json(text) if text else None
    except ValueError:
        return False
    return held is not None and held.about == about and held.cause in BREAKING


def _fingerprint(limit: str, settings: Settings, secret: str) -> str:
    provider = limit.partition("/")[0]
    return fingerprint_of(settings.providers.get(provider, ProviderSettings(kind="simulator")), secret)
