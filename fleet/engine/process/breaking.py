"""The breakers of a worker process: what is told when one opens or closes, and the pools whose gates open then."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from fleet import config
from fleet.config import ProviderSettings, Settings
from fleet.config.providers import LABEL
from fleet.config.scopes import CAPPED
from fleet.economy.budgets.scopes import about as about_budget
from fleet.economy.budgets.scopes import cap_scope
from fleet.engine.admission import holds
from fleet.engine.admission.gates import batched
from fleet.engine.admission.holds import LIFT, lift_call
from fleet.engine.transport.parking.opening import open_early, open_early_now
from fleet.errors import FleetError
from fleet.resilience import BREAKING, Breakers, BreakerView, fingerprint_of, read_breakers
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import AnyStore, Anywhere, ask_each, main_of
from fleet.vault.keyring import HeldKey, about_key
from fleet.waits import CAUSES, Wait

logger = logging.getLogger("fleet.worker")

#: How the names of limits are written: `provider/model/key`.
_LIMIT = re.compile(rf"[^\s\[]+/\S+/{LABEL}")
#: Seconds between two looks whether holds have outlived their breakers, over all workers.
LOOK_EVERY_S = 1.0
#: Holds that are read in one command (count).
HOLDS_AT_ONCE = 500
#: What a task had heard of a breaker before it closed may close its pool's gate so many seconds later.
LATE_S = 15.0


def make_breakers(
    settings: Settings,
    state: Store,
    broker: AnyStore,
    secrets: Mapping[str, str],
    *,
    calm: Callable[[str], None],
    key_wait: Callable[[str], Wait | None] = lambda limit: None,
) -> Breakers:
    """Return the breakers of all limits that this process may call under.

    Args:
        settings: Providers and pools.
        state: State Redis, where the breakers are.
        broker: Where the pools' gates are.
        secrets: API key of each limit, by `provider/model/key`; only a fingerprint of it is kept.
        calm: Lets nobody find a burst under a limit that opens, or under which failures are usual: their retries must
            not come on top of what has waited.
        key_wait: Why calls under a limit wait for its key; None: they need not.
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
    return Breakers(state, prints, on_closed=open_gates, on_turn=told, on_trouble=calm, key_wait=key_wait)


async def take_up(breakers: Breakers, settings: Settings, broker: AnyStore, held: HeldKey) -> None:
    """Let calls go with another key, or with one that may be used again: breakers and gates that it closed open.

    Args:
        breakers: Of this process.
        settings: Providers and pools.
        broker: Where the pools' gates are.
        held: The key.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    for limit in held.limits:
        await breakers.renewed(limit, _fingerprint(limit, settings, held.value))
        is_tools = bool(config.tool_of(limit))  # any pool's functions may use it
        queues = [keys.queue(pool) for pool in settings.pools if is_tools or limit in _limits_of(pool, settings)]
        for about in (about_key(held.provider), *((limit,) if is_tools else ())):
            await lift(broker, queues, about=about, causes=("key",), parked_too=True)


async def open_scoped(settings: Settings, broker: AnyStore, provider: str) -> None:
    """Let what waits for the scope of a key ask again: it is another one now.

    Args:
        settings: Pools.
        broker: Where their gates are.
        provider: Whose key; `provider/label`: one of several; `tools/NAME`: a tool's, which any pool's functions use.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    is_tools = bool(config.tool_of(provider))
    name = provider if is_tools else provider.partition("/")[0]
    queues = [keys.queue(pool) for pool in settings.pools if is_tools or name in dict(settings.calls_of(pool))]
    labels = () if is_tools else settings.provider_named(name).keys
    names = [name, *(f"{name}/{label}" for label in labels)]  # a call waits for the first of its keys, or for all
    caps = [about_budget(cap_scope(f"key:{one}", what), "day") for one in names for what, _ in CAPPED]
    for one in (about_key(name), *caps):
        await lift(broker, queues, about=one, causes=("key", "money"), parked_too=True)


def behind(limit: str, settings: Settings) -> dict[str, list[str]]:
    """Return the queues that a limit opens, by what they are told to wait for.

    A pool with a fallback ladder waits only when all its rungs do, and tells the first one's reason: any of them that
    opens is enough.
    """
    found: dict[str, list[str]] = {limit: []}
    for pool in settings.pools:
        limits = _limits_of(pool, settings)
        for about in limits if limit in limits else ():
            found.setdefault(about, []).append(keys.queue(pool))
    return found


async def lift(
    broker: AnyStore, queues: Iterable[str], *, about: str, causes: Collection[str], parked_too: bool
) -> None:
    """Open what waits for one limit: the queues that it holds, and what is parked beside them."""
    names = list(queues)
    call = lift_call(names, about=about, cause=" ".join(causes))
    await ask_each(broker, lambda store: store.run(LIFT, *call))
    for name in names if parked_too else ():
        await open_early(broker, name, about=about, causes=causes)


async def open_mended(broker: AnyStore, settings: Settings, pools: Iterable[str], limits: Collection[str]) -> None:
    """Open pools that a process was the one to hold that lacked a key, or their code, or had other code.

    Args:
        broker: Where the pools' gates are.
        settings: Providers and pools.
        pools: Those that this process can serve.
        limits: Those that it can call under, and whose breakers are closed.
    """
    for pool in await _held(broker, list(pools)):
        own = [limit for limit in _limits_of(pool, settings) if limit in limits]
        for about in (f"[pools.{pool}]", f"validator {settings.pools[pool].validator}", *own):
            await lift(broker, [keys.queue(pool)], about=about, causes=("key", "configuration"), parked_too=False)


async def _held(broker: AnyStore, pools: Sequence[str]) -> list[str]:
    """Return those pools that are held: hardly ever more than a few, whatever their number."""
    places, are_held = [keys.hold(keys.queue(pool)) for pool in pools], set[str]()
    for some in batched(places, HOLDS_AT_ONCE):
        for found in await ask_each(broker, partial(_read, some)):
            are_held.update(place for place, hold in zip(some, found, strict=True) if hold is not None)
    return [pool for pool, place in zip(pools, places, strict=True) if place in are_held]


async def _read(names: Sequence[str], store: Store) -> list[bytes | None]:
    found: list[bytes | None] = await store.command("MGET", *names)
    return found


def lift_now(client: Anywhere, queues: Iterable[str], *, about: str, causes: Collection[str] = BREAKING) -> None:
    """`lift` through a plain client, for commands; also what waits for other causes than a breaker's."""
    names = list(queues)
    holds.lift(client, names, about=about, cause=" ".join(causes))
    for name in names:
        open_early_now(client, name, about=about, causes=causes)


def _limits_of(pool: str, settings: Settings) -> list[str]:
    """Return all limits that a pool calls under: of its models, and of its ladder's rungs."""
    return [limit for name, model in settings.calls_of(pool) for limit in settings.limit_names(name, model, pool)]


def _fingerprint(limit: str, settings: Settings, secret: str) -> str:
    if tool := config.tool_of(limit):
        return fingerprint_of(settings.tools[tool], secret)
    provider = limit.partition("/")[0]
    found = settings.providers.get(provider, ProviderSettings(kind="simulator"))
    # Tokens of one identity differ from process to process: each would close what another one has opened.
    return fingerprint_of(found, "" if found.exchange is not None else secret)


class StaleHolds:
    """A worker's duty for holds that have outlived their reason: no queue stays held behind a breaker that has closed,
    or for want of a bot that is back.

    Such a hold is put by a task that had heard "open" a moment before the closing, and it lets one task through per
    interval: of a key every 15 minutes. Whoever has put it may have died, and Redis may have lost the breakers.

    Args:
        settings: Pools.
        state: State Redis, where the breakers are.
        broker: Where the pools' gates are.
        limits: Those under which this process can call: a key that it lacks is none of a breaker's reasons.
    """

    def __init__(self, settings: Settings, state: Store, broker: AnyStore, limits: Iterable[str]) -> None:
        self._state = state
        self._broker = broker
        self._callable = frozenset(limits)
        self._limits = {pool: _limits_of(pool, settings) for pool in settings.pools}
        self._bots = {name: pool.bots for name, pool in settings.pools.items()}
        #: What was lifted at the last look: a task that put such a hold is parked only behind it.
        self._lifted: dict[str, Wait] = {}

    async def attend(self) -> None:
        """Lift such holds, for ever. In health this costs the fleet one command a second, and a small one a worker."""
        is_first = True
        while True:
            try:
                if is_first or await self._is_our_turn():
                    await self.look(is_first=is_first)
                is_first = False
            except FleetError as error:
                logger.warning("holds not compared with breakers error=%s", type(error).__name__)
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.5, 1.5))

    async def look(self, *, is_first: bool = False) -> None:
        """Lift such holds, once.

        Args:
            is_first: This process has just begun: what is told of a provider or model that a pool does not use, as it
                is configured now, has gone as well.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        again, self._lifted = self._lifted, {}
        holds_now = await self._holds()
        held = {pool: wait for pool, wait in holds_now.items() if _is_of_breaker(wait)}
        for pool, wait in holds_now.items():
            if wait.cause == "bots" and await self._has_bots(pool):
                self._lifted[pool] = wait
                logger.info("hold_lifted pool=%s cause=bots: a bot of it is back", pool)
                record_event(self._state, catalogue.HOLD_LIFTED, pool=pool, cause=wait.cause)
        if held:
            limits = {wait.about for wait in held.values()}.union(*(self._limits[pool] for pool in held))
            views = {view.limit: view for view in await read_breakers(self._state, limits)}
            for pool, wait in held.items():
                if self._is_stale(pool, wait, views, is_first):
                    self._lifted[pool] = wait
                    logger.info("hold_lifted pool=%s cause=%s: its breaker is closed", pool, wait.cause)
                    record_event(self._state, catalogue.HOLD_LIFTED, pool=pool, cause=wait.cause)
        for pool, wait in {**again, **self._lifted}.items():
            await lift(self._broker, [keys.queue(pool)], about=wait.about, causes=(wait.cause,), parked_too=True)

    async def _is_our_turn(self) -> bool:
        life_ms = round(LOOK_EVERY_S * 900)
        return await main_of(self._broker).command("SET", keys.turn("holds"), "1", "NX", "PX", life_ms) is not None

    async def _holds(self) -> dict[str, Wait]:
        """Return the pools that are held, and why."""
        names = [keys.hold(keys.queue(pool)) for pool in self._limits]
        found = {}
        for texts in await ask_each(self._broker, lambda store: store.command("MGET", *names)):
            for pool, text in zip(self._limits, texts, strict=True):
                with suppress(ValueError):  # an operator sees to what cannot be read
                    if text:
                        found[pool] = Wait.from_json(text)
        return found

    async def _has_bots(self, pool: str) -> bool:
        """True when a bot of a pool is not, or no longer, quarantined."""
        now_us = round(CLOCK.now_s() * 1e6)
        return int(await self._state.command("ZCOUNT", keys.quarantined(pool), now_us, "+inf")) < self._bots[pool]

    def _is_stale(self, pool: str, wait: Wait, views: Mapping[str, BreakerView], is_first: bool) -> bool:
        """Return whether a pool's hold has outlived its reason: any rung of a fallback ladder that opens is enough."""
        is_of_others = wait.about not in self._limits[pool]
        if views[wait.about].is_closed and (is_of_others or wait.about in self._callable):
            return True
        if is_of_others:
            return is_first
        return any(_closed_lately(views[limit]) for limit in self._limits[pool] if limit in self._callable)


def _is_of_breaker(wait: Wait) -> bool:
    return wait.cause in BREAKING and wait.probe_every_s > 0 and _LIMIT.fullmatch(wait.about) is not None


def _closed_lately(view: BreakerView) -> bool:
    return view.is_closed and view.since is not None and CLOCK.now_s() - view.since < LATE_S
