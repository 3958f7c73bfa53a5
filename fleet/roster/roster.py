"""Check the least-loaded bot of a pool out, keep its lease alive, and seed the pools' bots.

A bot's place in the order is one number, `load * LOAD_UNIT + milliseconds of its last checkout`, so that the smallest
is the least loaded and, among equals, the one that has waited longest. Checking in is part of `finish.lua`.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from fleet.config import Settings
from fleet.errors import BotsQuarantined, ConfigurationError
from fleet.models import Bot, Priority, bot_name
from fleet.quoting import quote
from fleet.roster.drawing import WantedBot, drawn
from fleet.roster.health import HEAD_BYTES, ROW, SKILL, TEST_NUMBERS
from fleet.roster.quarantine import LOAD_UNIT, OUT, RELEASE
from fleet.store import keys
from fleet.store.client import Script, Store
from fleet.store.wire import Together

#: Seconds until a lease that nobody renews is reaped; a worker renews every third of it.
LEASE_S = 15.0
#: Start of the milliseconds in a score: 2025-01-01 UTC. They fill 40 bits in November 2059.
CLOCK_START_MS = 1_735_689_600_000
#: Expired leases that one checkout reaps at most. Each checkout adds one lease, so reaping outruns dying.
REAP_MOST = 16
#: Reaped leases that are kept in mind (count): all that a fleet of 10,000 slots holds.
REAPED_KEPT = 10_000
#: Times that bots of the wanted kind are drawn, while all that were are out; the last time of any model.
DRAWS = 4
_CHANCE = random.Random()

_SEED = Script.beside(
    __file__,
    "seed.lua",
    keys="bots leases quarantined",
    argv="life_s names*",
    constants={"OUT": OUT, "UNIT": LOAD_UNIT},
)
_CHECK_OUT = Script.beside(
    __file__,
    "check_out.lua",
    keys="bots leases claims quarantined reasons probation health reaped skills specialists results*",
    argv="lease_us life_s trial_tasks besides specialist_share among avoid tokens*",
    tables={"skill": SKILL, "row": ROW},
    constants={
        "OUT": OUT, "UNIT": LOAD_UNIT, "CLOCK_START_MS": CLOCK_START_MS, "REAP_MOST": REAP_MOST,
        "REAPED_KEPT": REAPED_KEPT, "HEAD_BYTES": HEAD_BYTES, **TEST_NUMBERS,
    },
    using=[RELEASE],
)  # fmt: skip
#: Classes of tasks for which is kept what their checkouts have in common; it is quickly made again.
_MOST_CLASSES = 1000
_RENEW = Script.beside(__file__, "renew.lua", keys="leases*", argv="lease_us life_s pairs*")
_CLAIM = Script.beside(
    __file__, "claim.lua", keys="bots leases claims", argv="bot token lease_us life_s", constants={"UNIT": LOAD_UNIT}
)
_GIVE_BACK = Script.beside(
    __file__, "give_back.lua", keys="bots leases claims", argv="pairs*", constants={"UNIT": LOAD_UNIT}
)
_HAS_RESULT, _CHECKED_OUT, _ALL_OUT = 0, 1, -2


@dataclass(frozen=True, slots=True)
class Checkout:
    """A bot that runs a task: the claim that `Roster.renew` keeps alive and `Finisher.finish` gives back."""

    task_id: str
    pool: str
    bot: str
    token: str

    @property
    def member(self) -> str:
        """The lease as it stands in `keys.bot_leases`."""
        return f"{self.bot}|{self.token}"


class Roster:
    """The bots of all pools.

    Result and roster keys are touched by one script: on a Redis Cluster the result key would need its pool's tag.

    Args:
        store: State Redis.
        settings: Pools and their numbers of bots.
        lease_s: Seconds a checkout lives without being renewed.
        avoid: Returns bots of a pool that are not to be checked out now for tasks of a priority: they have no money for
            them. Their names are sent only when the turn of one of them has come; then all pass over them for some
            seconds, unless nobody else is there.
        bot_of: Makes a bot by its name, with its remedy: for tasks that want one of some kind.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        lease_s: float = LEASE_S,
        avoid: Callable[[str, int], Sequence[str]] = lambda pool, priority: (),
        bot_of: Callable[[str], Bot] | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._avoid = avoid
        self._bot_of = bot_of
        self._lease_us = round(lease_s * 1_000_000)
        self._class_check_out = lru_cache(maxsize=_MOST_CLASSES)(self._in_common)

    async def seed(self) -> None:
        """Make the bots in Redis those that are configured, without touching the others' load. O(bots).

        For the start of a worker. Bots beyond the configured number take no new task; those that run one finish it.
        """
        await asyncio.gather(*(self._seed(pool) for pool in self._settings.pools))

    async def check_out(
        self,
        pool: str,
        *,
        task_id: str,
        token: str,
        kind: str = "default",
        priority: Priority = Priority.NORMAL,
        besides: Sequence[str] = (),
        wanted: WantedBot | None = None,
    ) -> Checkout | None:
        """Check the least-loaded bot of `pool` out for a task. O(log bots), one round trip.

        Args:
            pool: Name of a configured pool.
            task_id: The task; when it has a result, nothing is checked out.
            token: Unique per execution of a task. The same token again answers the same bot, so a call whose reply
                was lost can be repeated.
            kind: Class of the task; some of those go to bots that are better at it.
            priority: Of the task; some bots may have money for urgent ones alone.
            besides: Bots that have worked on it already: another one is wanted, best one against whom nothing speaks.
            wanted: What its bot must be like; None: any will do.

        Returns:
            The checkout, or None: the task was finished before and must not be paid for again.

        Raises:
            ConfigurationError: When there is no such pool.
            BotsQuarantined: When all bots of the pool are, or have no money, and the task has to wait; or when there is
                no other.
            StoreUnavailable: When Redis does not answer.
        """
        if pool not in self._settings.pools:
            raise ConfigurationError(
                f"pool: expected one of {', '.join(self._settings.pools)}, got {quote(pool)}; "
                f"correct the task, or add [pools.NAME] to fleet.toml and restart the workers"
            )
        attempt = partial(self._try_check_out, pool, task_id, token, kind, besides)
        if wanted is not None and self._bot_of is not None:
            attempt = partial(self._check_out_drawn, attempt, pool, wanted, self._bot_of, self._avoid(pool, priority))
        code, bot = await attempt()
        if code == _CHECKED_OUT and wanted is None and bot.decode() in (avoid := self._avoid(pool, priority)):
            code, bot = await self._try_check_out(pool, task_id, token, kind, besides, avoid)
        if code not in (_HAS_RESULT, _CHECKED_OUT, _ALL_OUT):  # never seeded here, or Redis has lost its data
            await self._seed(pool)
            code, bot = await attempt()
        if code == _HAS_RESULT:
            return None
        if code == _ALL_OUT:
            raise BotsQuarantined(
                f"pool {pool}: all its bots are quarantined; `fleet bots release` lets one work again"
            )
        if code != _CHECKED_OUT:
            raise ConfigurationError(
                f"pool {pool}: expected {self._settings.pools[pool].bots} bots in Redis, got none right after seeding; "
                f"see that nothing else deletes {keys.bots(pool)!r}, and that maxmemory-policy is noeviction"
            )
        return Checkout(task_id, pool, bot.decode(), token)

    async def claim(self, pool: str, bot: str, *, task_id: str, token: str) -> Checkout | None:
        """Check out the bot that has made a task's answer already, to judge it; None: there is no such bot any more.

        It makes no call, so neither a quarantine nor an empty budget stands in its way. Safe to repeat.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        call = _CLAIM.call(
            bots=keys.bots(pool), leases=keys.bot_leases(pool), claims=keys.bot_claims(pool), bot=bot, token=token,
            lease_us=self._lease_us, life_s=keys.STATE_TTL_S,
        )  # fmt: skip
        return Checkout(task_id, pool, bot, token) if await self._store.run(_CLAIM, *call) else None

    async def renew(self, held: Sequence[Checkout]) -> tuple[Checkout, ...]:
        """Push the expiry of all checkouts that this process holds. One round trip.

        Returns:
            Those that were lost: not renewed in time, and reaped. Their tasks may run on, because `finish` lets only
            one result count; their bots just do not know of them any more.
        """
        if not held:
            return ()
        pools = list(dict.fromkeys(checkout.pool for checkout in held))
        index = {pool: number for number, pool in enumerate(pools, start=1)}
        pairs = [part for checkout in held for part in (index[checkout.pool], checkout.member)]
        call = _RENEW.call(
            leases=map(keys.bot_leases, pools), lease_us=self._lease_us, life_s=keys.STATE_TTL_S, pairs=pairs
        )
        lost = await self._store.run(_RENEW, *call)
        return tuple(held[position] for position in lost)

    async def give_back(self, checkouts: Sequence[Checkout]) -> None:
        """Check bots of one pool in whose task goes back to its queue: nothing counts for or against them.

        Safe to repeat, and to leave out: their leases run out.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        pool = checkouts[0].pool
        call = _GIVE_BACK.call(
            bots=keys.bots(pool), leases=keys.bot_leases(pool), claims=keys.bot_claims(pool),
            pairs=[part for one in checkouts for part in (one.bot, one.token)],
        )  # fmt: skip
        await self._store.run(_GIVE_BACK, *call)

    async def next_release(self, pool: str) -> float | None:
        """Return when the first quarantine in a pool ends, in Unix seconds; None: when somebody says so; 0: none is."""
        first = await self._store.command("ZRANGE", keys.quarantined(pool), 0, 0, "WITHSCORES")
        end_s = float(first[1]) / 1e6 if first else 0.0
        return None if math.isinf(end_s) else end_s

    async def read_out(self, pools: Iterable[str]) -> set[str]:
        """Return the bots of the given pools that are quarantined. O(quarantined bots)."""
        replies = await asyncio.gather(
            *(self._store.command("ZRANGE", keys.quarantined(pool), 0, -1) for pool in pools)
        )
        return {name.decode() for names in replies for name in names}

    async def _seed(self, pool: str) -> None:
        names = [bot_name(pool, index) for index in range(1, self._settings.pools[pool].bots + 1)]
        call = _SEED.call(
            bots=keys.bots(pool), leases=keys.bot_leases(pool), quarantined=keys.quarantined(pool),
            life_s=keys.STATE_TTL_S, names=names,
        )  # fmt: skip
        await self._store.run(_SEED, *call)

    async def _try_check_out(
        self, pool: str, task_id: str, token: str, kind: str, besides: Sequence[str], avoid: Sequence[str] = (),
        among: Sequence[str] = (),
    ) -> tuple[int, bytes]:  # fmt: skip
        common = self._class_check_out(pool, kind, _listed(besides), _listed(among), _listed(avoid))
        reply = await self._store.run_together(common, [keys.result(task_id)], [token])
        code, _, bot = reply.partition(b"|")
        return int(code), bot

    async def _check_out_drawn(
        self,
        attempt: Callable[..., Coroutine[Any, Any, tuple[int, bytes]]],
        pool: str,
        wanted: WantedBot,
        bot_of: Callable[[str], Bot],
        avoid: Sequence[str],
    ) -> tuple[int, bytes]:
        """Check out the least loaded of a few bots that are as wanted; others are drawn when none of these is free."""
        code, bot = _ALL_OUT, b""
        for number in range(DRAWS):
            now = wanted if number < DRAWS - 1 else replace(wanted, models=frozenset())
            names = drawn(pool, self._settings.pools[pool], now, bot_of=bot_of, draw=_CHANCE)
            among = [name for name in names if name not in avoid]
            if among:
                code, bot = await attempt(among=among)
            if code != _ALL_OUT:
                break
        return code, bot

    def _in_common(self, pool: str, kind: str, besides: str, among: str, avoid: str) -> Together:
        """Return what the checkouts of a class of tasks have in common."""
        health = self._settings.health
        names, arguments = _CHECK_OUT.call(
            bots=keys.bots(pool),
            leases=keys.bot_leases(pool),
            claims=keys.bot_claims(pool),
            quarantined=keys.quarantined(pool),
            reasons=keys.quarantine_reasons(pool),
            probation=keys.probation(pool),
            health=keys.health(pool),
            reaped=keys.pool_reaped(pool),
            skills=keys.skills(pool, kind),
            specialists=keys.specialists(pool, kind),
            results=(),
            lease_us=self._lease_us,
            life_s=keys.STATE_TTL_S,
            trial_tasks=health.probation_tasks if health.watch else 0,
            besides=besides,
            specialist_share=health.specialists,
            among=among,
            avoid=avoid,
            tokens=(),
        )
        return Together(_CHECK_OUT, tuple(names), tuple(arguments))


def _listed(bots: Sequence[str]) -> str:
    """Return names as the script looks them up."""
    return f"|{'|'.join(bots)}|" if bots else ""
