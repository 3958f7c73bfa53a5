"""What budgets mean for a worker process: who need not be asked, what dead ones had reserved, and what is told.

The budgets themselves: `fleet/economy/budgets/`. That a call reserves before it is sent: `workers/roads.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from fleet.config import Settings
from fleet.economy.bill.export import Export
from fleet.economy.bill.notes import lives
from fleet.economy.bill.sweep import Sweeper, longest_call_s, noted_reservations
from fleet.economy.bill.writer import Writer
from fleet.economy.budgets import (
    BudgetKeeper,
    Payer,
    Reached,
    Settlement,
    about_bots,
    charge_batch,
    ended_in,
    scope_in,
    settle_call,
)
from fleet.economy.budgets.keeper import FILE
from fleet.economy.budgets.layouts import LAPSED_S, LIFE_S
from fleet.economy.budgets.runs import forget_left_runs
from fleet.economy.budgets.scripts import SETTLE
from fleet.engine.process.breaking import lift
from fleet.engine.process.duties.waking import Waking
from fleet.errors import FleetError
from fleet.models import BotTask
from fleet.quoting import clock
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.signals.recorder import split_reports
from fleet.store import bill_keys, keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.running.brokers import AnyStore
from fleet.vault.key_scopes import configured_scopes
from fleet.waits import Wait

#: Seconds between two looks at reservations over all workers, and how old one of a dead process is at least.
SWEEP_EVERY_S, DEAD_S = 15.0, 45.0
#: Seconds after which a reservation is ended whoever has made it: longer than most waits for a turn and any answer.
LEASE_S = 900.0
#: Seconds between two looks for charges that are too old to be corrected.
TIDY_EVERY_S = 3600.0
#: Longest time (s) until a pool whose bots are all out tries whether one is back.
LOOK_AGAIN_S = 60.0
#: Children that have ended of which a worker knows (count): of older ones nothing is left.
MOST_GONE = 1000
#: Reservations that are looked at in one step, and steps of one sweep (count).
SOME, STEPS = 500, 40

logger = logging.getLogger("fleet.worker")


class Spending:
    """A worker process's part in budgets. Belongs to its event loop.

    Args:
        store: State Redis.
        settings: Budgets, pools and their ladders.
        process: Id by which it reports: by that its reservations are known when it dies.
        broker: Where tasks wait; None: in the same Redis.

    Attributes:
        keeper: Reserves and settles for its calls.
    """

    def __init__(self, store: Store, settings: Settings, *, process: str, broker: AnyStore | None = None) -> None:
        self._waking = Waking(broker or store, settings.pools)
        self.on_reached = partial(_tell_of, store)
        self.keeper = BudgetKeeper(
            store, settings.budgets, process=process, on_reached=self.on_reached, on_freed=self._waking.heard
        )
        self._store = store
        self._pools = settings.pools
        self._budgets = settings.budgets
        self._scopes = configured_scopes(settings)
        self._longest_call_s = longest_call_s(settings)
        #: Ids of the newest children of this process that have ended.
        self._gone: dict[str, None] = {}

    async def close(self) -> None:
        """Settle what has ended; wake nobody any more."""
        await self.keeper.close()
        await self._waking.close()

    def child_ended(self, process: str) -> None:
        """Hear that a child of this process has ended: nobody settles its calls any more."""
        self._gone[process] = None
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def standing(self, pool: str, task: BotTask) -> Wait | None:
        """Return why a task's call would not leave soon for want of money, as this process has heard. Never waits.

        A pool with a fallback ladder is asked for at the ladder: a rung may cost nothing.
        """
        if not self.keeper.is_any_full or self._pools[pool].fallback:
            return None
        return self.keeper.standing(Payer(pool, tenant=task.tenant, run=task.run), task.priority.value)

    def bots_out(self, pool: str, priority: int) -> list[str]:
        """Return the bots of a pool that have no money for such tasks, as this process has heard: others take them."""
        return self.keeper.bots_out(pool, priority)

    def is_of_bot(self, pool: str, wait: Wait) -> bool:
        """True when a task waits for the budget of its bot alone, so that another one may take it at once."""
        kind, _, bot = scope_in(wait.about).partition(":")
        return kind == "bot" and bot in self.keeper.bots_out(pool, wait.lowest + 1)

    def wait_for_bots(self, pool: str, priority: int, released_at: float | None) -> Wait | None:
        """Return why a pool waits whose bots are out, when some of them are for want of money; None: none is.

        One task looks again at least once a minute: a bot may be back from its quarantine long before another one's
        budget opens, and earlier than was said.

        Args:
            pool: The pool.
            priority: Of the task that found none.
            released_at: When the first of its quarantines ends (Unix time); None: nobody knows; 0: there is none.
        """
        out = self.keeper.bots_out(pool, priority)
        if not out:
            return None
        opens_at, lowest = self.keeper.of_bots(out)
        known = [at for at in (opens_at, released_at) if at]
        told = "the bots that are not quarantined have spent their budgets"
        if lowest >= 0:
            told = "the bots that are not quarantined keep what is left of their budgets for more urgent tasks"
        if known:
            told += f"; the first bot is back at {clock(min(known), CLOCK.now_s())}"
        look_at = min([*known, CLOCK.now_s() + LOOK_AGAIN_S])
        return Wait("money", look_at, about_bots(pool), told, probe_every_s=1.0, lowest=lowest)

    async def load(self, broker: AnyStore) -> None:
        """Hear of the budgets; let what waits for money ask again, when fleet.toml says something else than before.

        Args:
            broker: Where tasks wait.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        await self.keeper.load()
        limits = {scope: budget.model_dump() for scope, budget in self._budgets.items()}
        limits |= {f"key:{name}": one.model_dump(exclude_none=True) for name, one in self._scopes.items()}
        told = json.dumps(limits, sort_keys=True)
        digest = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        live = bill_keys.budgets_live()
        before = await self._store.command("HGET", live, FILE)
        if before == digest.encode() or (before is None and not limits):
            return
        queues = [keys.queue(pool) for pool in self._pools]
        if before is not None:
            await lift(broker, queues, about="", causes=("money", "budget"), parked_too=True)
        await self._store.command("HSET", live, FILE, digest)
        await self._store.command("EXPIRE", live, LIFE_S)

    def writer(self, process: Callable[[], str], export: Export | None) -> Writer:
        """Return this process's writer of the bill: what it enters, budgets have counted before.

        Args:
            process: Returns the id by which this process reports; empty: it does not.
            export: Where entries go one by one as well; None: nowhere.
        """
        return Writer(self._store, process=process, export=export, before=self.keeper.counted)

    def sweeper(
        self, limits: Iterable[str], living: Callable[[], Collection[str] | None], export: Export | None
    ) -> Sweeper:
        """Return what enters the calls of dead processes into the bill, and charges their budgets the same.

        Args:
            limits: `provider/model/key` of the calls of this process.
            living: Returns the ids of the processes that report; None: not known yet.
            export: Where entries go one by one as well; None: nowhere.
        """
        return Sweeper(
            self._store,
            limits,
            living,
            books=[charge_batch],
            export=export,
            longest_call_s=self._longest_call_s,
            gone=self._gone,
        )

    async def sweep(self) -> None:
        """End what dead processes have reserved, for ever; one worker at a time looks."""
        loop = asyncio.get_running_loop()
        tidied_s = loop.time() - TIDY_EVERY_S
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await forget_left_runs(self._store)
                life_ms = round(SWEEP_EVERY_S * 900)
                if await self._store.command("SET", keys.turn("budgets"), "1", "NX", "PX", life_ms) is not None:
                    await end_the_dead(self._store, self._gone)
                    if loop.time() - tidied_s >= TIDY_EVERY_S:
                        tidied_s = loop.time()
                        await forget_lapsed(self._store)
            except FleetError as error:
                logger.warning("reservations not looked at error=%s", error)


async def end_the_dead(store: Store, gone: Collection[str] = ()) -> int:
    """Give back what processes that are gone have reserved for calls that never had their grant; return how many.

    A call that had it has a note, and is left to the bill's sweep, which charges what it enters (`charge_batch`): notes
    are looked at after reservations, and a note goes only after its reservation. What lives and is older than any call
    is charged as it stands. Either is corrected within a day by who settles it after all. Bounded: some thousands in
    one go.

    Args:
        store: State Redis.
        gone: Ids of child processes that have ended though their worker lives.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    rows: list[bytes] = await store.command("HGETALL", keys.workers())
    now_s = CLOCK.now_s()
    living, _ = split_reports(dict(zip(rows[::2], rows[1::2], strict=True)), now_s=now_s)
    alive, cursor, ended = {report.process for report in living}, b"0", Counter[str]()
    for _ in range(STEPS):
        cursor, flat = await store.command("HSCAN", bill_keys.reservations(), cursor, "COUNT", SOME)
        found = list(map(_reservation, flat[::2], flat[1::2]))
        over = [one for one in found if one.is_over(alive, gone, now_s)]
        noted = await noted_reservations(store) if over else set()
        for what, some in (
            ("given_back", [one.given_back for one in over if not lives(one.process, alive, gone)]),
            ("charged", [one.charged for one in over if lives(one.process, alive, gone)]),
        ):
            left = [one for one in some if one.reservation not in noted]
            if left:
                ended[what] += ended_in(await store.run(SETTLE, *settle_call(left)))
        if cursor == b"0":
            break
    if ended["given_back"]:
        logger.warning("reservations_given_back count=%d: their processes are gone, unsent", ended["given_back"])
    if ended["charged"]:
        logger.warning("reservations_charged count=%d: nobody has settled them", ended["charged"])
    return ended.total()


async def forget_lapsed(store: Store) -> int:
    """Forget charges that nobody has corrected within a day; return how many.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    cursor, forgotten, oldest_s = b"0", 0, CLOCK.now_s() - LAPSED_S
    for _ in range(STEPS):
        cursor, flat = await store.command("HSCAN", bill_keys.lapsed(), cursor, "COUNT", SOME)
        old = [name for name, text in zip(flat[::2], flat[1::2], strict=True) if json.loads(text)[1] < oldest_s]
        if old:
            forgotten += int(await store.command("HDEL", bill_keys.lapsed(), *old))
        if cursor == b"0":
            break
    return forgotten


class _Reservation:
    """One reservation as Redis has it."""

    def __init__(self, name: str, process: str, at_s: float, scopes: Sequence[str]) -> None:
        self.process, self._at_s = process, at_s
        self.charged = Settlement(name, tuple(scopes), None, is_unknown=True)
        self.given_back = self.charged._replace(usd_picos=0)

    def is_over(self, alive: set[str], gone: Collection[str], now_s: float) -> bool:
        """True when nobody will settle it any more, as it seems."""
        age_s = now_s - self._at_s
        return age_s > LEASE_S or (age_s > DEAD_S and not lives(self.process, alive, gone))


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
