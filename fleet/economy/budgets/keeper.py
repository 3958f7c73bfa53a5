"""A worker's side of budgets: reserve before a call, settle after it, and know which are full without asking.

Redis decides; what this process has heard only saves it questions. Implements `fleet.workers.ports.Budgets`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from fleet.config import PERIODS, BudgetSettings, Period
from fleet.config.budgets import RUN
from fleet.economy.budgets.layouts import FULL, MOST_STAND_S, NONE, BudgetReply, split_picos
from fleet.economy.budgets.scopes import Payer, about, asked_of, counting, wait_of
from fleet.economy.budgets.scripts import RESERVE, SETTLE
from fleet.errors import NotSoon, StoreUnavailable
from fleet.grants import Caller
from fleet.models import Priority
from fleet.store import bill_keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.patience import surely
from fleet.waits import Wait

#: Seconds between two looks at what is set while the fleet runs.
LOOK_EVERY_S = 1.0
#: Seconds for which a full budget is believed to be full at most: then one call asks again; and where calls in flight
#: have only reserved what is left, which may end in any process.
BELIEVED_S, BELIEVED_RESERVED_S = 60.0, 0.25
#: Where calls in flight have reserved what is left to a tenant or a run, its tasks try again after twice the time for
#: which that has been so, within these bounds in seconds, and spread over as long again: there may be 50,000 of them.
#: Some go sooner, as such calls end (`Freed`).
LEAST_AGAIN_S, MOST_AGAIN_S = 1.0, MOST_STAND_S / 2
#: Reservations that are settled in one step (count).
AT_ONCE = 200
#: Scopes of which it is known since when their rest is reserved (count).
MOST_RESERVED = 10_000
#: Settlements that wait for a Redis that takes none (count). Those beyond stay reserved, until they are taken for left
#: behind and charged so.
MOST_WAITING = 20_000
#: Seconds that an ending process waits for its last step.
CLOSE_S = 2.0
#: Fields of the hash of what is set live that are no scopes: how often it was changed, and a digest of fleet.toml's.
VERSION, FILE = "version", "file"

logger = logging.getLogger("fleet.worker")


class Reached(NamedTuple):
    """A budget of which 80% or 100% were reached: once each in its period."""

    scope: str
    period: Period
    percent: int


class Settlement(NamedTuple):
    """What one reservation came to.

    Args:
        reservation: Its id.
        scopes: All that may have counted it.
        usd_picos: What it cost; None: nobody knows, so what was reserved.
        is_unknown: It may be told later.
    """

    reservation: str
    scopes: tuple[str, ...]
    usd_picos: int | None
    is_unknown: bool = False


class Freed(NamedTuple):
    """Calls that have ended of a tenant or run whose tasks wait for what these had reserved.

    Args:
        scope: Whose.
        period: For whose money they wait.
        calls: How many have ended.
    """

    scope: str
    period: Period
    calls: int


def settle_call(ended: Sequence[Settlement]) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `settle.lua`; safe to repeat. What it replies: `ended_in` and `freed_in`."""
    scopes = _scopes_of(ended)
    told: list[Any] = []
    for one in ended:
        micros, picos = ("", 0) if one.usd_picos is None else split_picos(one.usd_picos)
        told += (one.reservation, micros, picos, int(one.is_unknown))
    return SETTLE.call(
        reserved_by=bill_keys.reservations(), lapsed=bill_keys.lapsed(), spent=map(bill_keys.spent, scopes),
        count=len(scopes), names=[*scopes, *told],
    )  # fmt: skip


def ended_in(reply: Sequence[int]) -> int:
    """Return how many reservations `settle.lua` has ended or corrected."""
    return int(reply[0])


def freed_in(reply: Sequence[int], ended: Sequence[Settlement]) -> list[Freed]:
    """Return for whom `settle.lua` has made room: it was told `ended`."""
    scopes = _scopes_of(ended) if len(reply) > 1 else []
    return [Freed(scopes[reply[at] - 1], PERIODS[reply[at + 1] - 1], reply[at + 2]) for at in range(1, len(reply), 3)]


def _scopes_of(ended: Sequence[Settlement]) -> list[str]:
    return list(dict.fromkeys(scope for one in ended for scope in one.scopes))


class BudgetKeeper:
    """Reserves and settles for the calls of one process. Belongs to its event loop.

    Args:
        store: State Redis.
        configured: Budgets in fleet.toml, by scope.
        process: Id of this process: by that its reservations are known when it dies.
        on_reached: Told once when 80%, and when 100% of a budget are spent.
        on_freed: Told when calls have ended for whose money tasks wait.
        clock: Unix time in seconds, as Redis has it.
    """

    def __init__(
        self,
        store: Store,
        configured: Mapping[str, BudgetSettings],
        *,
        process: str,
        on_reached: Callable[[Reached], None] = lambda reached: None,
        on_freed: Callable[[list[Freed]], None] = lambda freed: None,
        clock: Callable[[], float] = CLOCK.now_s,
    ) -> None:
        self._store = store
        self._configured = configured
        self._process = process
        self._on_reached, self._on_freed = on_reached, on_freed
        self._clock = clock
        self._id, self._numbers = secrets.token_hex(8), itertools.count()  # a worker's children have its process id
        self._live: dict[str, str] = {}
        self._known: frozenset[str] = frozenset(configured)
        #: Scopes that had no room, with why, and until when that is believed.
        self._full: dict[str, tuple[Wait, float]] = {}
        #: Tenants and runs whose rest is reserved by calls in flight: since when, and when a call was last refused.
        self._reserved: dict[str, tuple[float, float]] = {}
        self._open: dict[str, tuple[str, ...]] = {}
        self._ended: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        #: How many have ended, how many of them Redis has counted, and who waits until it has counted so many.
        self._told, self._counted = 0, 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._given_up = 0

    # -- what calls ask

    def counting(self, pool: str, caller: Caller) -> tuple[str, ...]:
        """Return the scopes whose budgets may count a call; empty: none does, and there is nothing to ask."""
        if not self._known and not caller.run:
            return ()
        return counting(Payer(pool, caller.bot, caller.tenant, caller.run), self._known)

    async def reserve(
        self, scopes: tuple[str, ...], usd_micros: float, *, priority: Priority, is_learnt: bool = True
    ) -> str:
        """Reserve what a call is taken to cost in all of these scopes, or in none.

        Args:
            scopes: As `counting` has named them.
            usd_micros: What it is taken to cost, with parts of a micro-dollar.
            priority: Of its task.
            is_learnt: False: that is the most that it may cost, for nothing is known of its kind. Where a budget is
                less than that in all, such calls go one at a time.

        Returns:
            The id to settle it by; empty: no budget counts it.

        Raises:
            NotSoon: One has no room.
            StoreUnavailable: Redis does not answer: nothing may be sent.
        """
        reservation = f"{self._id}-{next(self._numbers):x}"
        call = RESERVE.call(
            live=bill_keys.budgets_live(), reserved_by=bill_keys.reservations(),
            of_tenants=bill_keys.budget_shares("tenant"), of_bots=bill_keys.budget_shares("bot"),
            of_runs=bill_keys.budget_shares(RUN), spent=map(bill_keys.spent, scopes), id=reservation,
            process=self._process, micros_asked=math.ceil(usd_micros), priority=priority.value,
            is_learnt=int(is_learnt), scopes=asked_of(scopes, self._configured),
        )  # fmt: skip
        self._open[reservation] = scopes
        try:
            reply = BudgetReply.unpack(await self._store.run(RESERVE, *call))
        except BaseException:  # it may be reserved all the same
            self.settle(reservation, 0)
            raise
        if reply.told_scope:
            self._on_reached(Reached(scopes[reply.told_scope - 1], PERIODS[reply.told_period - 1], reply.told_percent))
        if reply.code in (FULL, NONE):
            del self._open[reservation]
        if reply.code == FULL:
            scope, wait = scopes[reply.scope - 1], wait_of(reply, scopes, usd_micros)
            stands = bool(reply.returns) and not wait.is_everyones and not scope.startswith("bot:")
            if stands:
                is_own = bool(reply.is_own) and is_learnt  # what is not learnt may be in a second
                wait = replace(wait, opens_at=self._clock() + self._again_s(scope, is_own=is_own))
            if not reply.is_own:
                is_woken = (
                    scope.partition(":")[0] in ("tenant", RUN) and reply.reserved > 0 and reply.used < reply.allowed
                )
                self._believe(scope, wait, is_reserved=is_woken)
            raise NotSoon(self._spread(scope, wait))
        for scope in scopes if self._full else ():
            if scope in self._full and priority.value > self._full[scope][0].lowest:
                del self._full[scope]  # it has room again
        return "" if reply.code == NONE else reservation

    def settle(self, reservation: str, usd_picos: int | None, *, is_unknown: bool = False) -> None:
        """Count what a call came to, and give back what it had reserved beyond that. Never waits, never raises.

        Args:
            reservation: As `reserve` named it; empty: there is none.
            usd_picos: What it cost, in 10^-12 dollars; None: nobody knows, so what was reserved.
            is_unknown: That is what the bill has of it for now; it may be told later.
        """
        scopes = self._open.pop(reservation, None)
        if scopes is None:
            return
        if len(self._ended) >= MOST_WAITING:
            self._given_up += 1
            if self._given_up % AT_ONCE == 1:
                logger.error("budgets not settled given_up=%d: they stay reserved, Redis takes none", self._given_up)
            return
        self._ended.append(Settlement(reservation, scopes, usd_picos, is_unknown or usd_picos is None))
        self._told += 1
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())

    # -- what this process knows

    @property
    def is_any_full(self) -> bool:
        """True when a budget is full, as this process has heard."""
        return bool(self._full)

    def standing(self, payer: Payer, priority: int) -> Wait | None:
        """Return why a call would not leave soon, as this process has heard; None: ask. Never waits."""
        return self.standing_in(payer.scopes, priority) if self._full else None

    def standing_in(self, scopes: Iterable[str], priority: int) -> Wait | None:
        """As `standing`, of scopes by their names."""
        for scope in scopes if self._full else ():
            wait, until = self._full.get(scope, (None, 0.0))
            if wait is not None and until <= self._clock():
                del self._full[scope]
            elif wait is not None and priority > wait.lowest:
                return self._spread(scope, wait)
        return None

    def bots_out(self, pool: str, priority: int) -> list[str]:
        """Return the bots of a pool whose own budgets are known to be full: others had better be checked out.

        Args:
            pool: The pool.
            priority: Of the task: a bot that keeps what is left for more urgent ones has none for it.
        """
        if not self._full:
            return []
        now_s = self._clock()
        full = [(scope.partition(":")[2], *known) for scope, known in self._full.items() if scope.startswith("bot:")]
        return [
            bot for bot, wait, until in full
            if bot.rpartition("-")[0] == pool and until > now_s and priority > wait.lowest
        ]  # fmt: skip

    def of_bots(self, bots: Sequence[str]) -> tuple[float | None, int]:
        """Return when the first of these bots may call again (None: nobody knows), and the priorities it may now.

        That is the least urgent one for which some of them have money; -1: none.
        """
        waits = [self._full[f"bot:{bot}"][0] for bot in bots if f"bot:{bot}" in self._full]
        opens = (wait.opens_at for wait in waits if wait.opens_at is not None)
        return min(opens, default=None), max((wait.lowest for wait in waits), default=-1)

    def _again_s(self, scope: str, *, is_own: bool) -> float:
        """Return after how many seconds a task of a scope tries again whose rest calls in flight have reserved."""
        now_s = self._clock()
        since_s, last_s = self._reserved.get(scope, (now_s, now_s))
        if now_s - last_s > 4 * MOST_AGAIN_S:
            since_s = now_s
        if len(self._reserved) >= MOST_RESERVED:
            self._reserved.clear()
        self._reserved[scope] = since_s, now_s
        return MOST_AGAIN_S if is_own else max(LEAST_AGAIN_S, min(MOST_AGAIN_S, 2 * (now_s - since_s)))

    def _spread(self, scope: str, wait: Wait) -> Wait:
        """Return a wait with a time of its own for each task that waits alone for what calls in flight reserve."""
        if wait.opens_at is None or scope not in self._reserved:
            return wait
        ahead_s = wait.opens_at - self._clock()
        if ahead_s > MOST_AGAIN_S:  # it is used up until its period ends
            return wait
        return replace(wait, opens_at=wait.opens_at + random.uniform(0, max(LEAST_AGAIN_S, ahead_s)))

    def _believe(self, scope: str, wait: Wait, *, is_reserved: bool) -> None:
        latest = self._clock() + (BELIEVED_RESERVED_S if is_reserved else BELIEVED_S)
        self._full[scope] = wait, latest if wait.opens_at is None else min(wait.opens_at, latest)

    def _forget_full(self, freed: Iterable[Freed]) -> None:
        """Believe no longer that there is no room: the next call asks."""
        for one in freed:
            wait, _ = self._full.get(one.scope, (None, 0.0))
            if wait is not None and wait.about == about(one.scope, one.period):
                del self._full[one.scope]

    # -- duties

    async def load(self) -> None:
        """Hear what is set while the fleet runs.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        flat = await self._store.command("HGETALL", bill_keys.budgets_live())
        words = [part.decode("utf-8", "replace") for part in flat]
        live = dict(zip(words[::2], words[1::2], strict=True))
        if live != self._live:
            self._full.clear()
            self._live = live
            self._known = frozenset(self._configured) | live.keys() - {VERSION, FILE}

    async def keep(self) -> None:
        """Hear what is set while the fleet runs, for ever: one command a second."""
        while True:
            with suppress(StoreUnavailable):  # whoever reserves says so
                await self.load()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _settle_all(self) -> None:
        """Settle what has ended, all that came meanwhile in one step; patient whatever Redis says."""
        while self._ended:
            step = self._ended[:AT_ONCE]
            reply = await surely(partial(self._store.run, SETTLE, *settle_call(step)), "budgets not settled")
            del self._ended[: len(step)]
            if len(reply) > 1:
                self._forget_full(freed := freed_in(reply, step))
                self._on_freed(freed)
            self._counted += len(step)
            for number, heard in self._waiting:
                if number <= self._counted and not heard.done():
                    heard.set_result(None)
            self._waiting = [one for one in self._waiting if not one[1].done()]

    async def counted(self) -> None:
        """Return once Redis has counted all that has ended until now, or nobody tells it. No command of its own."""
        if self._told > self._counted and self._settling is not None:
            heard = asyncio.get_running_loop().create_future()
            self._waiting.append((self._told, heard))
            await asyncio.wait([heard, self._settling], return_when=asyncio.FIRST_COMPLETED)

    async def flush(self, within_s: float) -> None:
        """Wait until what has ended is settled: so many seconds at most."""
        if self._settling is not None:
            await asyncio.wait([self._settling], timeout=within_s)

    async def close(self) -> None:
        """Settle what has ended; what Redis does not hear of is charged as reserved once this process is missed."""
        for reservation in tuple(self._open):
            self.settle(reservation, None)
        await self.flush(CLOSE_S)
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.wait([self._settling])
