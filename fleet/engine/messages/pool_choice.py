"""Which pool a task goes to: the one it names, else of those that can begin with it the one with the fewest waiting
tasks per bot: not one that is held, paused, or served by no worker while another one is open."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import redis

from fleet import config
from fleet.asking import not_allowed
from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.engine.messages.broker import broker
from fleet.engine.messages.delegated import takes_signed_only
from fleet.errors import InvalidTask
from fleet.models import BotTask, Priority
from fleet.quoting import listed, quote
from fleet.store import keys
from fleet.store.clock import CLOCK
from fleet.waits import Wait

#: Less than one task per bot: puts pools with equal backlogs into an order.
TIE = 1e-6
#: Pools that an error names one by one (count).
MOST_NAMED = 12
#: Stands for the least urgent priority that may be taken of a pool that no worker serves.
UNSERVED = -2


def candidates(task: BotTask, settings: Settings) -> list[str]:
    """Return the pools a task may go to: the one it names, else all that take its kind and allow its further fields.

    Raises:
        InvalidTask: When the named pool does not exist, no pool takes the task's kind, or none allows its fields or
            has its tier.
    """
    taking = _taking(task, settings)
    if task.tier is not None:
        taking = _having(task.tier, taking, settings)
    return _allowing(task, taking, settings) if task.extra_body or task.extra_headers else taking


def _taking(task: BotTask, settings: Settings) -> list[str]:
    if task.pool is not None:
        if task.pool not in settings.pools:
            raise InvalidTask(f"pool: expected one of {_named(settings.pools)}, got {quote(task.pool)}")
        return [task.pool]
    taking = [name for name, pool in settings.pools.items() if not pool.kinds or task.kind in pool.kinds]
    taking = [name for name in taking if not takes_signed_only(name, settings)]
    if not taking:
        raise InvalidTask(f"kind: expected one that a pool takes, got {quote(task.kind)}; name a pool, or add the kind")
    return taking


def _allowing(task: BotTask, taking: list[str], settings: Settings) -> list[str]:
    """Return those pools that let a task set all of its further fields and headers."""
    refused = {name: not_allowed(task, settings.pools[name].allow) for name in taking}
    if allowing := [name for name in taking if not refused[name]]:
        return allowing
    field, names = refused[taking[0]][0]
    raise InvalidTask(
        f"{field}: expected names that its pool allows, got {listed(names, len(names))}; add them to `allow` in "
        f"[pools.{taking[0]}], or set them there for all tasks"
    )


def asks_of_pools(task: BotTask) -> bool:
    """True when a task asks for what some of the pools that take its kind may not have."""
    return bool(task.extra_body or task.extra_headers) or task.tier is not None


def _having(tier: str, taking: list[str], settings: Settings) -> list[str]:
    """Return those pools whose API takes a service tier, as far as that is known."""
    known = {name: _tiers_of(name, settings) for name in taking}
    if having := [name for name in taking if not known[name] or tier in known[name]]:
        return having
    pool = settings.pools[taking[0]]
    raise InvalidTask(
        f"tier: expected one of {', '.join(known[taking[0]])}, which the API of its pool has, got {quote(tier)}; if "
        f'that is one of them, price it: [prices."{pool.provider}/{pool.model}".tiers.{tier}]'
    )


def _tiers_of(pool: str, settings: Settings) -> tuple[str, ...]:
    """Return the tiers that a pool's API is known to take, with those that have prices of their own; empty: any."""
    found = settings.pools[pool]
    known = settings.provider_named(found.provider).known_tiers
    price = settings.prices.get(f"{found.provider}/{found.model}")
    return (*known, *(() if price is None else price.tiers)) if known else ()


def _named(pools: Collection[str]) -> str:
    """Return the names of all pools, or of a few when there are many: an error is short."""
    return ", ".join(pools) if len(pools) <= MOST_NAMED else listed(pools, len(pools))


def backlog_keys(pools: Iterable[str]) -> list[tuple[str, str]]:
    """Return (pool, list key) of every list whose length makes up the pools' backlogs."""
    return [(p, queues.list_key(keys.queue(p), step)) for p in pools for step in queues.PRIORITY_STEPS]


def gate_keys(pools: Iterable[str]) -> list[str]:
    """Return the keys, for one `MGET`, of all that closes pools; `lowest_of` reads their values."""
    names = [keys.queue(pool) for pool in pools]
    return [keys.unserved(), *map(keys.gate, names), *map(keys.hold, names)]


def lowest_of(
    pools: Collection[str], values: Sequence[bytes | None], *, idle: Collection[str] = (), now_s: float = 0.0
) -> dict[str, int]:
    """Return the least urgent priority that may be taken now (-1: none) of each pool that isn't open to all.

    Args:
        pools: Their names.
        values: Of `gate_keys`.
        idle: Those in which no task waits: one that is held, and whose next probe is due, is open to it.
        now_s: Unix time of Redis in seconds.
    """
    unserved, *closing = values
    found: dict[str, int] = {}
    for place, (pool, value) in enumerate(zip([*pools, *pools], closing, strict=True)):
        with suppress(ValueError):  # an operator sees to what cannot be read
            if value:
                if place < len(pools):
                    lowest = int(value)
                else:
                    hold = Wait.from_json(value)
                    if pool in idle and _is_probe_due(hold, now_s):
                        continue
                    lowest = hold.lowest
                found[pool] = min(lowest, found.get(pool, lowest))
    shut = frozenset(json.loads(unserved)) if unserved else frozenset()
    return found | {pool: UNSERVED for pool in pools if pool in shut}


def _is_probe_due(hold: Wait, now_s: float) -> bool:
    return hold.probe_every_s > 0 and hold.opens_at is not None and hold.opens_at <= now_s


def soonest(task: BotTask, taking: list[str], lowest: Mapping[str, int]) -> list[str]:
    """Return those pools that let the task through; if none does, those that a worker serves; else all of them."""

    def distance(pool: str) -> int:
        open_to = lowest.get(pool, Priority.BULK)
        return (task.priority > open_to) + (open_to == UNSERVED)

    least = min(map(distance, taking))
    return [pool for pool in taking if distance(pool) == least]


def least_loaded(taking: list[str], backlog: Mapping[str, int], settings: Settings) -> str:
    """Return the pool with the fewest waiting tasks per bot; equals are drawn by lot."""
    return min(taking, key=lambda name: (backlog.get(name, 0) / settings.pools[name].bots, random.random()))


class Dispatcher:
    """Chooses pools for a producer. Reads the backlogs once and counts along until `refresh` is called.

    Args:
        client: Of the broker; None for who reads the backlogs itself, and lets it `learn`.
        settings: Pools.
    """

    def __init__(self, client: redis.Redis | None, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._taking: dict[tuple[str | None, str], list[str]] = {}
        self._share = {name: 1 / pool.bots for name, pool in settings.pools.items()}
        self._load: dict[str, float] = {}
        self._lowest: dict[str, int] = {}
        #: What holds for a pool once a task waits there: its probe.
        self._lowest_behind: dict[str, int] = {}

    def refresh(self) -> None:
        """Read the backlogs again, if any were needed so far."""
        if self._load:
            self._read()

    def choose(self, task: BotTask) -> str:
        """Return the pool for one task; raises like `candidates`."""
        taking = self._taking.get((task.pool, task.kind))
        if asks_of_pools(task):
            taking = candidates(task, self._settings)
        elif taking is None:
            taking = self._taking[(task.pool, task.kind)] = candidates(task, self._settings)
        if len(taking) == 1:
            return taking[0]
        if not self._load:
            self._read()
        if self._lowest:
            taking = soonest(task, taking, self._lowest)
        pool = min(taking, key=self._load.__getitem__)
        self._load[pool] += self._share[pool]
        if pool in self._lowest_behind:
            self._lowest[pool] = self._lowest_behind.pop(pool)
        return pool

    def _read(self) -> None:
        """Work out each pool's waiting tasks per bot; equals are put in an order by lot."""
        if self._client is None:
            raise RuntimeError("expected `learn` before a choice: this dispatcher has no client of its own")
        places = backlog_keys(self._settings.pools)
        with self._client.pipeline(transaction=False) as pipe:
            for _, key in places:
                pipe.llen(key)
            pipe.mget(gate_keys(self._settings.pools))
            *lengths, closing = pipe.execute()
        self.learn(places, lengths, closing)

    def learn(self, places: Iterable[tuple[str, str]], lengths: Iterable[int], closing: Sequence[bytes | None]) -> None:
        """Take the lengths of `backlog_keys` for the backlogs, and the values of `gate_keys` for what closes pools."""
        self._load = {name: random.random() * TIE for name in self._settings.pools}
        for (pool, _), length in zip(places, lengths, strict=True):
            self._load[pool] += length * self._share[pool]
        self._lowest = self._lowest_behind = lowest_of(self._settings.pools, closing)
        if self._lowest:
            idle = {pool for pool in self._lowest if self._load[pool] < TIE}
            self._lowest = lowest_of(self._settings.pools, closing, idle=idle, now_s=CLOCK.now_s())
            behind = self._lowest_behind.items()
            self._lowest_behind = {pool: lowest for pool, lowest in behind if self._lowest.get(pool) != lowest}


def choose_pool(task: BotTask) -> str:
    """Return the pool for one task; while Redis is away any that takes it: publishing waits for Redis, not the caller.

    Raises:
        InvalidTask: When no pool takes it.
    """
    settings = config.current()
    try:
        return Dispatcher(broker().client, settings).choose(task)
    except redis.RedisError:
        return least_loaded(candidates(task, settings), {}, settings)
