"""Whether a call may leave: its budgets, its breaker and its limiter, asked in this order; what they hear of its end.

What is sent, and what it costs, is `gateway.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from fleet.config.scopes import ScopeAsk
from fleet.entries import Entry
from fleet.errors import NotSoon
from fleet.grants import Caller, Grant
from fleet.models import Priority
from fleet.usage import Usage
from fleet.waits import Wait
from fleet.workers.meter import Meter
from fleet.workers.ports import Bill, Breakers, CostShares, Limiter
from fleet.workers.road import Road, let_go
from fleet.workers.rungs import together
from fleet.workers.silence.first_steps import FirstSteps
from fleet.workers.silence.restraint import Restraint
from fleet.workers.silence.under_way import Hanging, UnderWay

#: How far away (s) the turn of a call may be: a task that waits longer leaves its slot to others.
PATIENCE_S = 5.0
#: Longest time (s) that a call keeps its place in the limiter's order, whatever its patience.
LONGEST_TURN_S = 3600.0


class Budgets(Protocol):
    """What may be spent: by fleet, pool, tenant, bot, run. Where nothing is limited, nothing here is awaited."""

    def counting(self, pool: str, caller: Caller) -> tuple[str, ...]:
        """Return the scopes whose budgets may count a call; empty: none does. Never waits."""
        ...

    async def reserve(
        self, scopes: tuple[str, ...], usd_micros: float, *, priority: Priority, is_learnt: bool = True
    ) -> str:
        """Reserve what a call is taken to cost in all of these scopes or none; return what to settle it by.

        Where nothing is learnt, that is the most that it may cost.

        Raises:
            NotSoon: One has no room.
            StoreUnavailable: Redis does not answer: nothing may be sent.
        """
        ...

    def settle(self, reservation: str, usd_picos: int | None, *, is_unknown: bool = False) -> None:
        """Count what a call came to; None: nobody knows, so what was reserved. Never waits, never raises.

        Where it `is_unknown`, that is what the bill has for now; it may be told later.
        """
        ...


class Scopes(Protocol):
    """Whom keys serve."""

    def concerns(self, task: str) -> bool:
        """True when any scope may have a say in a task's calls. Never waits."""
        ...

    def check(self, limit: str, ask: ScopeAsk, task: str) -> None:
        """Refuse a call that no scope allows. Never waits.

        Raises:
            OutOfScope: It is never served.
            NotSoon: Not for now.
        """
        ...

    async def reserve(self, limit: str, task: str, tokens: int, usd_micros: float, priority: Priority) -> str:
        """Reserve a call, and what it uses at most, in the daily caps of its key and of its task's delegation.

        Returns:
            What to settle it by; empty: nothing counts it, and nobody was asked.

        Raises:
            NotSoon: One has no room.
            StoreUnavailable: Redis does not answer: nothing may be sent.
        """
        ...

    async def reserve_of_key(self, limit: str, tokens: int, usd_micros: float, priority: Priority) -> str:
        """The same in the daily caps of one of several keys: which one a call goes with is known with its grant."""
        ...

    def settle(self, capped: str, usd_picos: int | None, tokens: int, *, is_sent: bool = True) -> None:
        """Count what a call came to. Never waits, never raises."""
        ...


class Roads:
    """The ways of all calls of a process. Belongs to one event loop.

    Args:
        limiter: The fleet-wide limiter.
        breakers: Whether calls are worth sending.
        clock: Unix time in seconds, as Redis has it.
        bill: Where a grant that is not used is void; None: nowhere.
        budgets: What may be spent; None: anything.
        costs: How much of the most that they may cost calls do; None: all of it.
    """

    def __init__(
        self,
        limiter: Limiter,
        breakers: Breakers,
        clock: Callable[[], float],
        bill: Bill | None = None,
        budgets: Budgets | None = None,
        costs: CostShares | None = None,
    ) -> None:
        self.limiter = limiter
        self._bill = bill
        self.breakers = breakers
        self.clock = clock
        self._budgets = budgets
        self._costs = costs
        self.under_way = UnderWay()
        self.restraint = Restraint(self.under_way, breakers, clock)
        self.steps = FirstSteps(breakers)
        #: Whom keys serve; None: everybody.
        self.scopes: Scopes | None = None

    def closed(self, limit: str) -> Wait | None:
        """Return why calls under a limit do not go soon, as this process has heard; None: try. Never waits."""
        return self.breakers.standing(limit) or self.limiter.standing(limit)

    def unanswered(self) -> dict[str, tuple[int, float]]:
        """Return limits whose calls have no answer for far longer than usual: how many, and for how many seconds."""
        return self.under_way.unanswered(asyncio.get_running_loop().time())

    def silent(self, *, at_least_s: float) -> dict[str, tuple[int, float, float]]:
        """Return limits under which nothing is answered, by calls of which it is well known how long they take."""
        return self.under_way.silent(asyncio.get_running_loop().time(), at_least_s=at_least_s)

    def answered_elsewhere(self, limit: str) -> None:
        """Hear that the API of a limit answers again: calls of before that still hang count no more among others."""
        now = asyncio.get_running_loop().time()
        self.under_way.believe(limit, now)
        let_go(self, limit, now)

    def hanging(self) -> dict[str, Hanging]:
        """Return the tasks whose calls hang, by pool."""
        return self.under_way.hanging(asyncio.get_running_loop().time())

    async def turn(
        self,
        limits: Sequence[str],
        most: Usage,
        *,
        asked: Entry,
        cost_usd_micros: float,
        meter: Meter,
        caller: Caller,
        patience_s: float,
        offers: tuple[str, ...] = (),
    ) -> Road:
        """Wait until a call may leave. What it is taken to cost is reserved first, where a budget counts it.

        Args:
            limits: `provider/model/key`, one for each key that it may go with.
            most: The most that it may use.
            asked: The call as the bill enters it if nobody settles it.
            cost_usd_micros: The most that it may cost.
            meter: Where to write how long it took.
            caller: For whom it is.
            patience_s: How far away its turn may be.
            offers: Tools that it offers to the model.

        Raises:
            OutOfScope: Its key, or the delegation of its task, does not serve such calls.
            NotSoon: It cannot leave soon; nothing is reserved.
            StoreUnavailable: Redis does not answer.
        """
        budgets, reservation, capped = self._budgets, "", ""
        scopes_of = None if self.scopes is None or not self.scopes.concerns(asked.task) else self.scopes
        if scopes_of is not None:
            scopes_of.check(limits[0], ScopeAsk(asked.pool, caller.bot, caller.tenant, tools=offers), asked.task)
            reserves = most.total_tokens, cost_usd_micros, caller.priority
            capped = await scopes_of.reserve(limits[0], asked.task, *reserves)
        if budgets is not None and cost_usd_micros > 0 and (scopes := budgets.counting(asked.pool, caller)):
            try:
                reservation = await self._reserved(budgets, scopes, limits[0], cost_usd_micros, caller)
            except BaseException:
                self._uncount(capped)
                raise
            asked = asked._replace(reservation=reservation)
        note = "" if self._bill is None else self._bill.opened(asked)
        loop, is_probe = asyncio.get_running_loop(), False
        waits: tuple[Wait, ...] = ()
        started = loop.time()
        try:
            if self.steps.are_due(asked.pool, limits):
                await self.steps.turn(limits)
            while True:
                if len(limits) == 1 and not waits:
                    is_probe = await self.breakers.admit(limits[0])
                else:
                    limits, is_probe, waits = await self._admitted(limits, waits)
                trusted, tries = (limits, True) if is_probe else (self.restraint.trusted(limits), False)
                if not trusted:
                    tries = await self.restraint.wait(limits[0], pool=asked.pool, patience_s=patience_s)
                    if not tries:
                        continue
                    trusted = limits[:1]
                grant = await self.limiter.acquire(
                    trusted[0] if len(trusted) == 1 else trusted,
                    tokens=most.total_tokens,
                    timeout_s=LONGEST_TURN_S,
                    caller=replace(caller, is_probe=True) if is_probe else caller,
                    input_tokens=most.input_tokens,
                    cost_usd_micros=cost_usd_micros,
                    patience_s=patience_s,
                    note=note,
                )
                if not tries and self.restraint.doubts(grant.limit):  # it fell silent meanwhile
                    self._give_back(grant)
                    continue
                wait = None if is_probe else self.breakers.standing(grant.limit)
                if wait is None and scopes_of is not None:
                    wait, of_key = await self._capped_key(scopes_of, grant, reserves)
                    capped = f"{capped} {of_key}".strip()
                if wait is None:
                    break
                self._give_back(grant)  # its breaker has opened meanwhile, or its key's day is used up
                if is_probe:
                    is_probe = False
                    self.breakers.spare(grant.limit)
                limits, waits = [limit for limit in limits if limit != grant.limit], (*waits, wait)
        except BaseException as error:
            if is_probe:
                self.breakers.spare(limits[0])
            if budgets is not None and reservation:
                budgets.settle(reservation, 0)
            self._uncount(capped)
            if waits and isinstance(error, NotSoon):
                raise NotSoon(together([error.wait(), *waits])) from error
            raise
        finally:
            now = loop.time()
            meter.limited_s += now - started
        if reservation or capped:
            grant = grant._replace(reservation=reservation, capped=capped)
        return Road(self, grant, asked, now, is_probe=is_probe)

    async def _capped_key(
        self, scopes: Scopes, grant: Grant, reserves: tuple[int, float, Priority]
    ) -> tuple[Wait | None, str]:
        """Reserve a call in the caps of the key that it was granted; return why it has no room, or what it reserved."""
        try:
            return None, await scopes.reserve_of_key(grant.limit, *reserves)
        except NotSoon as error:
            return error.wait(), ""
        except BaseException:
            self._give_back(grant)
            raise

    def _give_back(self, grant: Grant) -> None:
        self.limiter.settle(grant, used_tokens=0)
        if self._bill is not None:
            self._bill.void(grant.limit, grant.ticket)

    async def _admitted(
        self, limits: Sequence[str], waits: tuple[Wait, ...]
    ) -> tuple[Sequence[str], bool, tuple[Wait, ...]]:
        """Ask the breakers of several keys.

        Args:
            limits: One for each key.
            waits: Why the call cannot go with others.

        Returns:
            The limits that let it through, whether it is a probe (which goes under one alone), why others do not.

        Raises:
            NotSoon: None does.
            StoreUnavailable: Redis does not answer.
        """
        admitted = []
        for limit in limits:
            try:
                if await self.breakers.admit(limit):
                    return (limit,), True, waits
            except NotSoon as error:
                waits = (*waits, error.wait())
            else:
                admitted.append(limit)
        if not admitted:
            raise NotSoon(together(waits))
        return admitted, False, waits

    async def _reserved(
        self, budgets: Budgets, scopes: tuple[str, ...], limit: str, most_micros: float, caller: Caller
    ) -> str:
        """Reserve what the fleet has learnt that a call costs; where that is too much, by the newest that it has."""
        share = 1.0 if self._costs is None else await self._costs.share(limit, caller.kind)
        try:
            return await budgets.reserve(scopes, most_micros * share, priority=caller.priority, is_learnt=share < 1.0)
        except NotSoon:
            newest = share if self._costs is None else await self._costs.share(limit, caller.kind, newest=True)
            if newest >= share:
                raise
            return await budgets.reserve(scopes, most_micros * newest, priority=caller.priority)

    def _uncount(self, capped: str) -> None:
        if self.scopes is not None and capped:
            self.scopes.settle(capped, 0, 0, is_sent=False)

    def counts(self, pool: str, caller: Caller, task: str) -> bool:
        """True when a budget, or whom its key serves, counts a call before it is sent. Never waits."""
        is_scoped = self.scopes is not None and self.scopes.concerns(task)
        return is_scoped or (self._budgets is not None and bool(self._budgets.counting(pool, caller)))

    def settle_budgets(self, grant: Grant, usd_picos: int | None, *, is_unknown: bool, tokens: int = 0) -> None:
        """Count what a call came to in its budgets. Never waits, never raises.

        Args:
            grant: Under which it went.
            usd_picos: What the bill has of it, in 10^-12 dollars; None: it has no price.
            is_unknown: Nobody knows what it has cost, and it may be told later.
            tokens: That it has used.
        """
        if self.scopes is not None and grant.capped:
            self.scopes.settle(grant.capped, usd_picos, tokens)
        if self._budgets is not None and grant.reservation:
            self._budgets.settle(grant.reservation, usd_picos, is_unknown=is_unknown)
