"""The breakers of a worker process: what is told when one opens or closes, and the pools whose gates open then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

import redis

from fleet import config
from fleet.config import ProviderSettings, Settings
from fleet.engine.admission import holds
from fleet.engine.admission.holds import LIFT, lift_call
from fleet.engine.transport.parking.opening import open_early, open_early_now
from fleet.resilience import BREAKING, Breakers, fingerprint_of
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import keys
from fleet.store.client import Store
from fleet.waits import CAUSES, Wait

logger = logging.getLogger("fleet.worker")


def make_breakers(
    settings: Settings, state: Store, broker: Store, secrets: Mapping[str, str], *, calm: Callable[[str], None]
) -> Breakers:
    """Return the breakers of all limits that this process may call under.

    Args:
        settings: Providers and pools.
        state: State Redis, where the breakers are.
        broker: Where the pools' gates are.
        secrets: API key of each limit, by `provider/model/key`; only a fingerprint of it is kept.
        calm: Lets nobody find a burst under a limit that opens.
    """

    def told(limit: str, wait: Wait | None) -> None:
        if wait is None:
            calm(limit)
            logger.info("breaker_closed limit=%s", limit)
            record_event(state, catalogue.BREAKER_CLOSED, limit=limit)
        else:
            logger.warning("breaker_opened limit=%s cause=%s", limit, wait.cause)
            record_event(state, catalogue.BREAKER_OPENED, limit=limit, cause=wait.cause, told=wait.told)

    async def open_gates(limit: str, is_first: bool) -> None:
        for about, names in behind(limit, settings).items():
            causes = BREAKING if about == limit else CAUSES
            await lift(broker, names, about=about, causes=causes, parked_too=is_first)

    prints = {limit: _fingerprint(limit, settings, secret) for limit, secret in secrets.items()}
    return Breakers(state, prints, on_closed=open_gates, on_turn=told)


def behind(limit: str, settings: Settings) -> dict[str, list[str]]:
    """Return the queues that a limit opens, by what they are told to wait for.

    A pool with a fallback ladder waits only when all its rungs do, and tells the first one's reason: any of them that
    opens is enough.
    """
    found: dict[str, list[str]] = {limit: []}
    for pool in settings.pools:
        limits = [f"{name}/{model}/{config.KEY_LABEL}" for name, model in settings.calls_of(pool)]
        for about in limits if limit in limits else ():
            found.setdefault(about, []).append(keys.queue(pool))
    return found


async def lift(broker: Store, queues: Iterable[str], *, about: str, causes: Collection[str], parked_too: bool) -> None:
    """Open what waits for one limit: the queues that it holds, and what is parked beside them."""
    names = list(queues)
    await broker.run(LIFT, *lift_call(names, about=about, cause=" ".join(causes)))
    for name in names if parked_too else ():
        await open_early(broker, name, about=about, causes=causes)


def lift_now(client: redis.Redis, queues: Iterable[str], *, about: str, causes: Collection[str] = BREAKING) -> None:
    """`lift` through a plain client, for commands; also what waits for other causes than a breaker's."""
    names = list(queues)
    holds.lift(client, names, about=about, cause=" ".join(causes))
    for name in names:
        open_early_now(client, name, about=about, causes=causes)


def _fingerprint(limit: str, settings: Settings, secret: str) -> str:
    provider = limit.partition("/")[0]
    return fingerprint_of(settings.providers.get(provider, ProviderSettings(kind="simulator")), secret)
