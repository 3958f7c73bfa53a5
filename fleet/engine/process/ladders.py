"""The ladders of a worker process: the connected API of each rung, and what is told of a step down one; its tools, too.

Also here: what a process says of its pools and their models as it starts, and what harms no task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fleet import config
from fleet.batches import BatchApi
from fleet.config import ProviderSettings, Settings
from fleet.economy.prices import PriceList, told_unpriced
from fleet.engine.local_simulator import ensure_simulator
from fleet.engine.messages.queues import odd_queues
from fleet.engine.process.duties.revival import LocalSimulator
from fleet.engine.telemetry.event_limiter import QUIET_S as BLOCK_QUIET_S
from fleet.engine.telemetry.taps import Telemetry
from fleet.engine.telemetry.tool_errors import ToolErrorCounter
from fleet.errors import ConfigurationError, KeyMissing, VaultAway
from fleet.lessons import Notebook
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store.client import Store
from fleet.store.private.embedded import redis_lives
from fleet.vault.keyring import HeldKey, Keyring
from fleet.waits import Wait
from fleet.workers.bot.user_loops import Block
from fleet.workers.ladders import Turn
from fleet.workers.ports import BatchingProvider, Bill, Limiter, Provider
from fleet.workers.providers import check_model, make_provider
from fleet.workers.providers.unusable import Unusable
from fleet.workers.roads import Roads
from fleet.workers.rungs import Route, Rung, ladder_in_order, served_by_none

if TYPE_CHECKING:  # nobody who has no [tools] pays for them
    from fleet.workers.frameworks.tools import ToolApis

logger = logging.getLogger("fleet.worker")

#: A pool's step down its ladder is told at most once in so many seconds, over all workers.
QUIET_S = 60.0


async def make_ladders(
    settings: Settings, telemetry: Telemetry, notebook: Notebook, keyring: Keyring | None = None
) -> dict[str, tuple[Rung, ...]]:
    """Return each pool's ladder, its own rung first; all rungs of one provider share its connections.

    A rung that this process cannot call (no key, no address, no SDK) is shut, and harms no other.

    Args:
        settings: Everything.
        telemetry: Counts what calls do.
        notebook: What models refuse.
        keyring: Holds the keys; None: one that nobody renews.
    """
    calls = dict.fromkeys(call for pool in settings.pools for call in settings.calls_of(pool))
    maker = _Routes(settings, telemetry, notebook, keyring or Keyring(settings))
    routes = {call: await maker.make(*call) for call in calls}
    limits = limits_of(settings)
    ladders = {}
    for pool in settings.pools:
        own = [_of_pool(routes[call], settings.limit_names(*call, pool)) for call in settings.calls_of(pool)]
        ladders[pool] = ladder_in_order(settings.pools[pool], own, limits, maker.shut)
    return ladders


class _Routes:
    """Makes the routes of a process; knows why it can make no call under some limits."""

    def __init__(self, settings: Settings, telemetry: Telemetry, notebook: Notebook, keyring: Keyring) -> None:
        self._settings = settings
        self._keyring = keyring
        self._adapt = partial(_adapter, settings=settings, telemetry=telemetry, notebook=notebook)
        self._adapters: dict[str, Provider] = {}
        self.shut: dict[str, Wait] = {}

    async def make(self, name: str, model: str) -> Route:
        """Return the route to one model. An SDK takes seconds to load: that is done here, while nobody waits."""
        provider, names = self._settings.provider_named(name), self._settings.limit_names(name, model)
        held: list[HeldKey] = []
        try:
            for label in provider.labels:
                held.append(await self._keyring.hold(name, model, label, others_may_serve=len(names) > 1))
            lacking = [one.failure for one in held if one.failure is not None]
            if len(lacking) == len(held) and not any(isinstance(one, VaultAway) for one in lacking):
                raise lacking[0]
            await check_model(provider, model, key=next((one.value for one in held if one.value), ""))
            if name not in self._adapters:
                self._adapters[name] = self._adapt(name)
            api = self._adapters[name]
        except ConfigurationError as error:
            held.clear()
            api, self.shut[names[0]] = Unusable(error), replace(error.wait(about=names[0]), is_everyones=True)

        def route(limit: str, key: HeldKey | None, keys: tuple[Route, ...] = ()) -> Route:
            return Route(
                provider=api,
                provider_name=name,
                model=model,
                limit=limit,
                api_key="" if key is None else key.value,
                timeout_s=provider.timeout_s,
                simulated=provider.kind == "simulator",
                renew=partial(self._keyring.renewed, limit),
                keys=keys,
            )

        if not held:
            return route(names[0], None)
        ways = tuple(route(limit, key) for limit, key in zip(names, held, strict=True))
        for way, key in zip(ways, held, strict=True):
            key.takers.append(way.take)
        return ways[0] if len(ways) == 1 else route(names[0], held[0], ways)


def _of_pool(route: Route, limits: Collection[str]) -> Route:
    """Return a route with those keys alone that may serve a pool: it waits for no other."""
    if len(limits) >= len(route.keys):
        return route
    first, *others = [key for key in route.keys if key.limit in limits]
    if not others:
        return first
    return replace(route, limit=first.limit, api_key=first.api_key, renew=first.renew, keys=(first, *others))


def keys_among(routes: Iterable[Route]) -> list[Route]:
    """Return the routes of all keys: of a provider with several, one for each."""
    return [key for route in routes for key in (route.keys or (route,))]


def limits_of(settings: Settings) -> dict[str, config.LimitSettings]:
    """Return the limits of all pools, by `provider/model/key`."""
    return settings.limits_by_key


def shut_pools(ladders: Mapping[str, Sequence[Rung]], shut: Mapping[str, Wait]) -> dict[str, Wait]:
    """Return why this process can serve no task of some pools, by their names.

    Args:
        ladders: Of all pools.
        shut: Pools whose code this process cannot load, with why.
    """
    found = {pool: shut.get(pool) or served_by_none(ladder) for pool, ladder in ladders.items()}
    return {pool: wait for pool, wait in found.items() if wait is not None}


def tell_of_ladder(state: Store, turn: Turn) -> None:
    """Let the fleet know that a pool goes down its ladder, or is back."""
    if not turn.rung.is_own:
        record_event(
            state, catalogue.FALLBACK_TAKEN, quiet_s=QUIET_S, about=f"{turn.pool}/{turn.rung.number}",
            pool=turn.pool, rung=turn.rung.number, api=turn.rung.api, cause=turn.cause,
        )  # fmt: skip
    else:
        record_event(
            state, catalogue.FALLBACK_OVER, quiet_s=QUIET_S, about=turn.pool, pool=turn.pool, api=turn.rung.api
        )


def tell_of_block(block: Block, settings: Settings, state: Store) -> None:
    """Let the fleet know whose function has blocked its loop, and for how long: once that is known, or is too long."""
    if block.is_over or block.seconds > settings.worker.hang_s:
        record_event(
            state, catalogue.FUNCTION_BLOCKED, quiet_s=BLOCK_QUIET_S, about=block.function,
            function=block.function, at=block.at, s=round(block.seconds, 1),
        )  # fmt: skip


def _adapter(name: str, settings: Settings, telemetry: Telemetry, notebook: Notebook) -> Provider:
    """Return the connected API of a provider; the local simulator is started when it has no address."""
    provider = settings.providers.get(name, ProviderSettings(kind="simulator"))

    def make(base_url: str | None) -> Any:
        return telemetry.provider(make_provider(provider, base_url=base_url, name=name, lessons=notebook))

    if provider.kind != "simulator" or provider.base_url is not None:
        connected: Provider = make(None)
        return connected
    home = config.home_path()
    return LocalSimulator(
        home,
        lambda: ensure_simulator(settings, home),
        make,
        is_wanted=lambda: settings.redis.url is not None or redis_lives(home),
    )


def warn_of(settings: Settings, queues: Collection[str]) -> None:
    """Log that the simulator answers, which models have no price, and which queues are none of ours.

    Args:
        settings: Of this process.
        queues: From which it takes.
    """
    simulated = [pool for pool in settings.pools if settings.is_simulated(pool)]
    if simulated:
        logger.warning("simulated pools=%s: the simulator answers, not a real provider", ",".join(simulated))
    for model, tier in PriceList(settings).unpriced():
        logger.warning("unpriced model=%s tier=%s: %s", model, tier, told_unpriced(model, tier))
    for line in odd_queues(queues, settings):
        logger.warning("%s", line)


def batches_of(routes: Iterable[Route], standing: Callable[[str], Wait | None]) -> Callable[[str], BatchApi | None]:
    """Return what gives the batches of a `provider/model/key`; None where this process has no such key, or API.

    Args:
        routes: Of this process.
        standing: Returns why calls under a limit wait for its key, e.g. it is revoked; None: they need not.
            Nothing about a batch is asked under it meanwhile, either.
    """
    by_limit = {key.limit: key for route in routes for key in (route.keys or (route,))}

    def found(limit: str) -> BatchApi | None:
        route = by_limit.get(limit)
        if route is None or not isinstance(route.provider, BatchingProvider):
            return None

        def key() -> str:
            if (wait := standing(limit)) is not None:
                raise KeyMissing(wait.told)
            return route.api_key

        return route.provider.batches(key)

    return found


async def hold_tools(settings: Settings, keyring: Keyring) -> dict[str, HeldKey]:
    """Return the key of each tool API, by the tool's name; its value is empty where none is sent."""
    return {name: await keyring.hold_tool(name) for name in settings.tools}


def make_tools(
    settings: Settings, telemetry: Telemetry, state: Store, keyring: Keyring, keys: Mapping[str, HeldKey], *,
    roads: Roads, limiter: Limiter, bill: Bill,
) -> ToolApis | None:  # fmt: skip
    """Return the tool APIs of a process, on its loop; None when fleet.toml has none."""
    if not settings.tools:
        return None
    from fleet.workers.frameworks.tools import ToolApis

    return ToolApis(
        settings.tools, keys, roads=roads, limiter=limiter, bill=bill, errors=ToolErrorCounter(state, settings.pools),
        step=telemetry.tool, renew=keyring.renewed,
    )  # fmt: skip
