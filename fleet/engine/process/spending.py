"""What budgets mean for a worker process: who need not be asked, whose reservations are charged, and what is told.

The budgets themselves: `fleet/economy/budgets/`. That a call reserves before it is sent: `workers/roads.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from fleet.config import Settings
from fleet.economy.budgets import BudgetKeeper, Payer, Reached, Settlement, scope_in, settle_call
from fleet.economy.budgets.keeper import FILE
from fleet.economy.budgets.layouts import LIFE_S
from fleet.economy.budgets.scripts import SETTLE
from fleet.engine.process.breaking import lift
from fleet.errors import FleetError
from fleet.models import BotTask
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.signals.recorder import split_reports
from fleet.store import bill_keys, keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.waits import Wait

#: Seconds between two looks at reservations over all workers, and how old one of a dead process is at least.
SWEEP_EVERY_S, DEAD_S = 15.0, 45.0
#: Seconds after which a reservation is charged whoever has made it: longer than any wait for a turn and any answer.
LEASE_S = 900.0
#: Reservations that are looked at in one step, and steps of one sweep (count).
SOME, STEPS = 500, 40

logger = logging.getLogger("fleet.worker")


class Spending:
    """A worker process's part in budgets. Belongs to its event loop.

    Args:
        store: State Redis.
        settings: Budgets, pools and their ladders.
        process: Id by which it reports: by that its reservations are known when it dies.

    Attributes:
        keeper: Reserves and settles for its calls.
    """

    def __init__(self, store: Store, settings: Settings, *, process: str) -> None:
        self.keeper = BudgetKeeper(store, settings.budgets, process=process, on_reached=partial(_tell_of, store))
        self._store = store
        self._pools = settings.pools
        self._budgets = settings.budgets

    def standing(self, pool: str, task: BotTask) -> Wait | None:
        """Return why a task's call would not leave soon for want of money, as this process has heard. Never waits.

        A pool with a fallback ladder is asked for at the ladder: a rung may cost nothing.
        """
        if self._pools[pool].fallback:
            return None
        return self.keeper.standing(Payer(pool, tenant=task.tenant, run=task.run), task.priority.value)

    def bots_out(self, pool: str) -> list[str]:
        """Return the bots of a pool that have no money, as this process has heard: others take their tasks."""
        return self.keeper.bots_out(pool)

    def is_of_bot(self, pool: str, wait: Wait) -> bool:
        """True when a task waits for the budget of its bot alone, so that another one may take it at once."""
        kind, _, bot = scope_in(wait.about).partition(":")
        return kind == "bot" and bot in self.keeper.bots_out(pool)

    def wait_for_bots(self, pool: str) -> Wait | None:
        """Return why a pool waits whose bots are out, when some of them are for want of money; None: none is."""
        out = self.keeper.bots_out(pool)
        if not out:
            return None
        return Wait(
            "money", self.keeper.opens_at(out), f"budget bot:*, pool {pool}",
            "the bots that are not quarantined have spent their budgets", probe_every_s=1.0,
        )  # fmt: skip

    async def load(self, broker: Store) -> None:
        """Hear of the budgets; let what waits for money ask again, when fleet.toml says something else than before.

        Args:
            broker: Where tasks wait.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        await self.keeper.load()
        told = json.dumps({scope: budget.model_dump() for scope, budget in self._budgets.items()}, sort_keys=True)
        digest = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        live = bill_keys.budgets_live()
        before = await self._store.command("HGET", live, FILE)
        if before == digest.encode() or (before is None and not self._budgets):
            return
        queues = [keys.queue(pool) for pool in self._pools]
        if before is not None:
            await lift(broker, queues, about="", causes=("money", "budget"), parked_too=True)
        await self._store.command("HSET", live, FILE, digest)
        await self._store.command("EXPIRE", live, LIFE_S)

    async def sweep(self) -> None:
        """Charge what dead processes have reserved, for ever; one worker at a time looks."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                life_ms = round(SWEEP_EVERY_S * 900)
                if await self._store.command("SET", keys.turn("budgets"), "1", "NX", "PX", life_ms) is not None:
                    await charge_the_dead(self._store)
            except FleetError as error:
                logger.warning("reservations not looked at error=%s", error)


async def charge_the_dead(store: Store) -> int:
    """Charge the reservations of processes that are gone as they stand; return how many.

    Whether their calls were sent nobody knows. What a call is found to have cost later corrects its charge, within a
    day. Bounded: some thousands in one go.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    rows: list[bytes] = await store.command("HGETALL", keys.workers())
    now_s = CLOCK.now_s()
    living, _ = split_reports(dict(zip(rows[::2], rows[1::2], strict=True)), now_s=now_s)
    alive, cursor, ended = {report.process for report in living}, b"0", 0
    for _ in range(STEPS):
        cursor, flat = await store.command("HSCAN", bill_keys.reservations(), cursor, "COUNT", SOME)
        dead = [one for one in map(_reservation, flat[::2], flat[1::2]) if one.is_dead(alive, now_s)]
        if dead:
            ended += int(await store.run(SETTLE, *settle_call([one.charged for one in dead])))
        if cursor == b"0":
            break
    if ended:
        logger.warning("reservations_charged count=%d: their processes are gone", ended)
    return ended


class _Reservation:
    """One reservation as Redis has it."""

    def __init__(self, name: str, process: str, at_s: float, scopes: Sequence[str]) -> None:
        self._process, self._at_s = process, at_s
        self.charged = Settlement(name, tuple(scopes), None, is_unknown=True)

    def is_dead(self, alive: set[str], now_s: float) -> bool:
        """True when nobody will settle it any more."""
        age_s = now_s - self._at_s
        return age_s > LEASE_S or (age_s > DEAD_S and self._process not in alive)


def _reservation(name: bytes, text: bytes) -> _Reservation:
    found: list[Any] = json.loads(text)
    process, at_s, _, scopes = found
    return _Reservation(name.decode(), process, at_s, scopes)


def _tell_of(store: Store, reached: Reached) -> None:
    """Let the fleet know that 80% or 100% of a budget are spent."""
    logger.warning("budget_warning scope=%s period=%s percent=%d", reached.scope, reached.period, reached.percent)
    record_event(
        store, catalogue.BUDGET_WARNING, scope=reached.scope, period=reached.period, percent=reached.percent
    )  # fmt: skip
