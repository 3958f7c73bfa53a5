"""A worker's duty that watches how keys and bots are used: every five seconds one worker of the fleet reads the bill.

What is unusual is decided in `signals/unusual`, what is done about it in `consequences.py`; here it is counted. If the
worker that looks dies, another one goes on within half a minute from what was written in the last minute.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import redis

from fleet.config import Settings
from fleet.economy.bill.rows import DAY_S, MOST_ROWS, OTHER, ROW
from fleet.engine.admission.gates import BACKLOG, waiting_calls, waiting_in
from fleet.engine.outcomes.revocation import state_here
from fleet.engine.process.duties.consequences import Consequences
from fleet.errors import FleetError
from fleet.signals import catalogue
from fleet.signals.counted.sums import read_counters
from fleet.signals.unusual.alarms import key_of
from fleet.signals.unusual.detector import LOOK_S
from fleet.signals.unusual.watch import Overuse, UseWatch, scaled
from fleet.signals.windows import bot_index
from fleet.store import bill_keys, keys, vault_keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import AnyStore, ask_by_name
from fleet.store.running.turns import has_turn

logger = logging.getLogger("fleet.worker")

#: Seconds that a worker has the turn without renewing it, and between two writings of what is usual.
TURN_S, KEEP_EVERY_S = 20, 60.0
#: Seconds between two looks beyond which what was between them is not laid on one look's account.
GAP_S = 60.0

#: Calls of the day by pool, number of the bot and limit, as the bill has them.
Tally = Mapping[tuple[str, int, str], float]


@dataclass(slots=True)
class _Look:
    """What the last look saw."""

    at_s: float
    tally: Tally
    waiting: Mapping[str, int]
    tasks: int
    calls: int


class UnusualUse:
    """Watches the use of keys and bots. One per process; one of them looks for all.

    Args:
        settings: Pools, limits, and what is done about unusual use.
        state: State Redis.
        broker: Where tasks wait.
        client: Gives a plain client of the state Redis, for what is done.
    """

    def __init__(
        self, settings: Settings, state: Store, broker: AnyStore, client: Callable[[], redis.Redis] = state_here
    ) -> None:
        self._settings = settings
        self._state, self._broker, self._client = state, broker, client
        self._me = uuid.uuid4().hex
        self._watch: UseWatch | None = None
        #: Tasks that wait in each pool, by broker, as it was last known.
        self._counts: dict[str, list[int]] = {}
        self._last: _Look | None = None
        self._kept_s = 0.0
        self._consequences = Consequences(settings)
        self._is_full_told = False

    async def attend(self) -> None:
        """Look every five seconds, for ever. It costs a worker two commands, and the one that looks a dozen."""
        if self._settings.keys.anomaly.act == "off":
            await asyncio.to_thread(lambda: self._consequences.end_all(self._client()))
            return
        while True:
            await asyncio.sleep(LOOK_S * random.uniform(0.95, 1.05))
            try:
                if await has_turn(self._state, keys.turn("unusual"), self._me, life_s=TURN_S):
                    await self.look(CLOCK.now_s())
                else:
                    self._watch = self._last = None
                    self._counts = {}
            except (FleetError, redis.RedisError) as error:
                logger.warning("use of keys not looked at error=%s", type(error).__name__)

    async def look(self, now_s: float) -> list[Overuse]:
        """Look once, and tell and do what is to be told and done.

        Raises:
            FleetError, redis.RedisError: When Redis does not answer.
        """
        if self._watch is None:
            self._watch, self._kept_s = UseWatch.of(await self._read(vault_keys.usual())), now_s
        now = await self._seen(now_s)
        before, self._last = self._last, now
        if before is None or now_s - before.at_s > GAP_S:
            return []
        return await asyncio.to_thread(self._judge, self._watch, before, now)

    def _judge(self, watch: UseWatch, before: _Look, now: _Look) -> list[Overuse]:
        found, client = self._weigh(watch, before, now), self._client()
        of_limits: defaultdict[str, float] = defaultdict(float)
        for (_, _, limit), calls in now.tally.items():
            of_limits[limit] += calls
        keep = partial(_keep, client, watch)
        self._consequences.follow(client, watch, found, of_limits, now.at_s, keep)
        if now.at_s - self._kept_s >= KEEP_EVERY_S:
            self._kept_s = now.at_s
            keep()
        return found

    async def _read(self, key: str) -> dict[str, bytes]:
        parts = await self._state.command("HGETALL", key)
        return {name.decode(): told for name, told in zip(parts[::2], parts[1::2], strict=True)}

    async def _seen(self, now_s: float) -> _Look:
        rows = await self._state.command("HGETALL", bill_keys.bots(int(now_s // DAY_S)))
        tally, is_full = await asyncio.to_thread(_tally, rows)
        if is_full and not self._is_full_told:
            self._is_full_told = True
            logger.warning("use of bots beyond %d rows of the bill's day is not watched", MOST_ROWS)
        wanted = (catalogue.COMPLETIONS.name, catalogue.ATTEMPTS.name)
        done, calls = await read_counters(self._state, (*self._settings.pools, catalogue.NOBODY), wanted)
        return _Look(now_s, tally, await self._waiting(), done, calls)

    async def _waiting(self) -> dict[str, int]:
        """Return how many tasks wait in each pool, those that are parked among them.

        At a broker that is away as many as when it was asked last: nothing comes there meanwhile.
        """
        found = await ask_by_name(self._broker, self._waiting_at)
        if not found.keys() <= self._counts.keys():
            self._last = None  # what is counted for the first time has not just come
        self._counts.update(found)
        return dict(zip(self._settings.pools, map(sum, zip(*self._counts.values(), strict=True)), strict=True))

    async def _waiting_at(self, store: Store) -> list[int]:
        queues = list(map(keys.queue, self._settings.pools))
        lists = waiting_in([await store.run(BACKLOG, *call) for call in waiting_calls(queues)])
        parked = await asyncio.gather(*(store.command("ZCARD", keys.parked_order(one)) for one in queues))
        return [one.total + int(more) for one, more in zip(lists, parked, strict=True)]

    def _weigh(self, watch: UseWatch, before: _Look, now: _Look) -> list[Overuse]:
        """Return who is under alarm. Asked for is what came, done or not: what drains from a backlog came before."""
        seconds = now.at_s - before.at_s
        made: defaultdict[str, float] = defaultdict(float)
        of_pools: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        done: defaultdict[str, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        for (pool, bot, limit), calls in now.tally.items():
            was = before.tally.get((pool, bot, limit), 0.0)
            new = scaled(calls - was if calls >= was else calls, seconds)  # a new day counts from 0
            made[key_of(limit)] += new
            done[pool][bot] += new
            of_pools[pool][key_of(limit)] += calls
        asked = dict(made)
        calls_a_task = now.calls / now.tasks if now.tasks and now.calls else 1.0
        for pool, shares in of_pools.items():
            more = scaled(now.waiting.get(pool, 0) - before.waiting.get(pool, 0), seconds) * calls_a_task
            for key, calls in shares.items():
                asked[key] += more * calls / max(1.0, sum(shares.values()))
        anomaly = self._settings.keys.anomaly
        return watch.look(
            {key: max(0.0, calls) for key, calls in asked.items()}, done,
            hour=int(now.at_s // 3600 % 24), made=made,
            most_rpm=anomaly.most_rpm or math.inf, most_bot_rpm=anomaly.most_bot_rpm or math.inf,
        )  # fmt: skip


def _keep(client: redis.Redis, watch: UseWatch) -> None:
    """Write down what is usual, for the worker that goes on if this one dies."""
    if kept := watch.packed():
        client.hset(vault_keys.usual(), mapping=kept)  # type: ignore[arg-type]
        client.expire(vault_keys.usual(), keys.STATE_TTL_S)


def _tally(rows: list[bytes]) -> tuple[Tally, bool]:
    """Return the calls of the day from the bill's rows by bot, and whether there were more than it has room for.

    What another release has written is left out.
    """
    found: defaultdict[tuple[str, int, str], float] = defaultdict(float)
    is_full = False
    for name, packed in zip(rows[::2], rows[1::2], strict=True):
        if name == OTHER.encode():
            is_full = True
        elif len(packed) == ROW.struct.size and (place := _place(name)) is not None:
            found[place] += ROW.struct.unpack(packed)[0]
    return found, is_full


@lru_cache(maxsize=2 * MOST_ROWS)
def _place(name: bytes) -> tuple[str, int, str] | None:
    """Return pool, number of the bot and limit of a row."""
    try:
        pool, bot, limit, _ = json.loads(name)
    except ValueError:
        return None
    return pool, bot_index(bot), limit
