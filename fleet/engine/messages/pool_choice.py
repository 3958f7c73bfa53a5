"""Which pool a task goes to: the one it names, else of those that can begin with it the one with the fewest waiting
tasks per bot: not one that is held, paused, or served by no worker while another one is open."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis

from fleet import config
from fleet.asking import not_allowed
from fleet.config import Settings
from fleet.engine.messages import queues
from fleet.engine.messages.broker import broker
from fleet.engine.messages.delegated import takes_signed_only
from fleet.errors import InvalidTask, StoreUnavailable
from fleet.models import BotTask, Priority
from fleet.quoting import listed, quote
from fleet.store import keys
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently
from fleet.store.running.brokers import MAIN, AnyStore, Anywhere, Brokers, main_of
from fleet.waits import Wait

#: Less than one task per bot: puts pools with equal backlogs into an order.
TIE = 1e-6
#: Pools whose backlogs are read for one choice (count); and of many tasks that are spread at once, for each pool read.
LOOKED_AT, TASKS_A_POOL = 8, 4
#: Lots for each pool that is read (count): one that has most of the bots is drawn again and again.
LOTS_A_POOL = 8
#: The least urgent priority there is.
LOWEST = Priority.BULK
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
        open_to = lowest.get(pool, LOWEST)
        return (task.priority > open_to) + (open_to == UNSERVED)

    least = min(map(distance, taking))
    return [pool for pool in taking if distance(pool) == least]


#: What Redis is asked before pools can be chosen: lists of commands, each answered with their replies.
Questions = Generator[list[tuple[Any, ...]], Sequence[Any], None]


class Dispatcher:
    """Chooses pools. Reads backlogs once and counts along until `refresh` is called.

    Of more pools that take a task it chooses among a few that it draws by lot: what a choice costs does not grow with
    the pools (Mitzenmacher, The Power of Two Choices, 2001; here `LOOKED_AT`). Each bot is a lot: drawn alike, small
    pools would be handed more than they can do, while a large one that is seldom seen idles. Only where all that were
    drawn are closed to the task are the gates of all read, and others drawn among those that are open.

    Args:
        client: Of the broker; None for who asks Redis itself what is in `questions` before each choice.
        settings: Pools.
        tasks: How many are to be spread before the next `refresh` (count): over a quarter as many pools.
    """

    def __init__(self, client: Anywhere | None, settings: Settings, *, tasks: int = 1) -> None:
        self._most = max(tasks // TASKS_A_POOL, LOOKED_AT)
        self._client = client
        self._settings = settings
        self._taking: dict[tuple[str | None, str], list[str]] = {}
        self._load: dict[str, float] = {}
        self._lowest: dict[str, int] = {}
        #: What holds for a pool once a task waits there: its probe.
        self._lowest_behind: dict[str, int] = {}
        #: The pools that tasks of one class are spread over.
        self._drawn: dict[Hashable, list[str]] = {}

    def refresh(self) -> None:
        """Read the backlogs again with the next choice that needs them."""
        for known in (self._load, self._lowest, self._lowest_behind, self._drawn):
            known.clear()

    def choose(self, task: BotTask) -> str:
        """Return the pool for one task; raises like `candidates`."""
        taking = self._candidates(task)
        if len(taking) == 1:
            return taking[0]
        kind = _class_of(task, taking)
        if kind not in self._drawn:
            if self._client is None:
                raise RuntimeError(
                    "expected the answers to `questions` first: this dispatcher has no client of its own"
                )
            _ask(self._client, self.questions([task]))
        pools = self._drawn[kind]
        if self._lowest:
            pools = soonest(task, pools, self._lowest)
        pool = min(pools, key=self._load.__getitem__)
        self._load[pool] += 1 / self._settings.pools[pool].bots
        if pool in self._lowest_behind:
            self._lowest[pool] = self._lowest_behind.pop(pool)
        return pool

    def questions(self, tasks: Iterable[Any]) -> Questions:
        """Yield what Redis has to be asked before pools can be chosen for these tasks; nothing if all is known."""
        for one in tasks:
            with suppress(InvalidTask):  # said when it comes to the choice
                task = one if type(one) is BotTask else BotTask.parse(one)
                taking = self._candidates(task)
                kind = _class_of(task, taking)
                if len(taking) > 1 and kind not in self._drawn:
                    self._drawn[kind] = yield from self._draw(task, taking)

    def _draw(self, task: BotTask, taking: list[str]) -> Generator[Any, Any, list[str]]:
        """Draw pools, and learn of them; of the others only where it must be."""
        drawn = self._by_lot(taking)
        yield from self._read(drawn)
        if len(drawn) < len(taking) and not any(task.priority <= self._lowest.get(one, LOWEST) for one in drawn):
            (closing,) = yield [("MGET", *gate_keys(taking))]
            drawn = self._by_lot(soonest(task, taking, lowest_of(taking, closing)))
            yield from self._read(drawn)
        return drawn

    def _by_lot(self, pools: list[str]) -> list[str]:
        """Return the first pools whose lots are drawn; fewer where all lots were those of a few."""
        if len(pools) <= self._most:
            return pools
        return list(dict.fromkeys(_drawn(pools, self._settings, LOTS_A_POOL * self._most)))[: self._most]

    def _read(self, pools: list[str]) -> Questions:
        """Learn each pool's waiting tasks per bot, unless they are counted along; equals are put in an order by lot."""
        if not (new := [pool for pool in pools if pool not in self._load]):
            return
        places = backlog_keys(new)
        *lengths, closing = yield [*(("LLEN", key) for _, key in places), ("MGET", *gate_keys(new))]
        self._load |= {name: _tie(self._settings.pools[name].bots) for name in new}
        for (pool, _), length in zip(places, lengths, strict=True):
            self._load[pool] += length / self._settings.pools[pool].bots
        if behind := lowest_of(new, closing):
            idle = {pool for pool in behind if self._load[pool] < TIE}
            lowest = lowest_of(new, closing, idle=idle, now_s=CLOCK.now_s())
            self._lowest |= lowest
            self._lowest_behind |= {pool: least for pool, least in behind.items() if lowest.get(pool) != least}

    def _candidates(self, task: BotTask) -> list[str]:
        if asks_of_pools(task):
            return candidates(task, self._settings)
        if (task.pool, task.kind) not in self._taking:
            self._taking[(task.pool, task.kind)] = candidates(task, self._settings)
        return self._taking[(task.pool, task.kind)]


def _drawn(pools: Sequence[str], settings: Settings, lots: int) -> list[str]:
    """Return whose lots are drawn, one after the other; each bot is one."""
    return random.choices(pools, [settings.pools[pool].bots for pool in pools], k=lots)


def _tie(bots: int) -> float:
    """Return a pool's place among equals: it is the first as often as it has bots (Efraimidis, Spirakis, 2006)."""
    return (1 - random.random() ** (1 / bots)) * TIE


def _class_of(task: BotTask, taking: list[str]) -> Hashable:
    """Return what tasks have in common that are spread over the same pools."""
    return task.priority, tuple(taking) if asks_of_pools(task) else (task.pool, task.kind)


def _ask(client: Anywhere, questions: Questions) -> None:
    """Ask Redis through a plain client."""
    replies: Sequence[Any] | None = None
    shut = set[str]()
    with suppress(StopIteration):
        while True:
            commands = next(questions) if replies is None else questions.send(replies)
            replies = [0] * len(commands)
            for name, places in _by_broker(client, commands).items():
                one = client.of_name(name) if isinstance(client, Brokers) else client
                try:
                    with one.pipeline(transaction=False) as pipe:
                        for at in places:
                            pipe.execute_command(*commands[at])  # type: ignore[no-untyped-call]
                        for at, reply in zip(places, pipe.execute(), strict=True):
                            replies[at] = reply
                except (redis.ConnectionError, redis.TimeoutError):
                    if name == MAIN:
                        raise
                    shut.update(commands[at][1] for at in places)
            _shut(commands, replies, shut)


async def ask_patiently(where: AnyStore, questions: Questions) -> None:
    """Ask Redis from a loop, and wait while the main broker is away."""
    replies: Sequence[Any] | None = None
    shut = set[str]()
    with suppress(StopIteration):
        while True:
            commands = next(questions) if replies is None else questions.send(replies)
            replies = await asyncio.gather(*(_answer(where, command, shut) for command in commands))
            _shut(commands, replies, shut)


async def _answer(where: AnyStore, command: tuple[Any, ...], shut: set[str]) -> Any:
    if not isinstance(where, Brokers) or command[0] != "LLEN" or (name := _broker_of(where, command)) == MAIN:
        return await patiently(partial(main_of(where).command, *command))
    try:
        return await where.of_name(name).command(*command)
    except StoreUnavailable:
        shut.add(command[1])
        return 0


def _by_broker(where: Anywhere, commands: Sequence[tuple[Any, ...]]) -> dict[str, list[int]]:
    """Return the places of commands by the name of the broker that is to answer: that of a list, else the main one."""
    found: dict[str, list[int]] = {}
    for at, command in enumerate(commands):
        is_spread = isinstance(where, Brokers) and command[0] == "LLEN"
        found.setdefault(_broker_of(where, command) if is_spread else MAIN, []).append(at)
    return found


def _broker_of(where: Anywhere | AnyStore, command: tuple[Any, ...]) -> str:
    return where.homes.get(queues.queue_of(command[1])[0], MAIN) if isinstance(where, Brokers) else MAIN


def _shut(commands: Sequence[tuple[Any, ...]], replies: Any, shut: Collection[str]) -> None:
    """Have the pools of lists whose broker is away look as if no worker served them: others are chosen."""
    pools = {queues.pool_of(queues.queue_of(key)[0]) for key in shut}
    for at, command in enumerate(commands) if pools else ():
        if command[0] == "MGET" and command[1] == keys.unserved():
            known = json.loads(replies[at][0]) if replies[at][0] else []
            replies[at] = [json.dumps(sorted({*known, *filter(None, pools)})).encode(), *replies[at][1:]]


def choose_pool(task: BotTask) -> str:
    """Return the pool for one task; while Redis is away any that takes it: publishing waits for Redis, not the caller.

    Raises:
        InvalidTask: When no pool takes it.
    """
    settings = config.current()
    try:
        return Dispatcher(broker().client, settings).choose(task)
    except redis.RedisError:
        return _drawn(candidates(task, settings), settings, 1)[0]
