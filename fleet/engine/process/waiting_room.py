"""What becomes of a task that must wait: its pool's hold is put, its message goes back to Redis, its bot is free again.

In this order, so that nothing is lost wherever the process dies: until the message has gone back this process holds it,
and a bot that is not given back is free when its lease runs out. When a task waits is told in `data_plane.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from celery.exceptions import Ignore

from fleet.engine.admission.holds import LIFT, PUT_HOLD, hold_call, lift_call
from fleet.engine.admission.standing import due_at
from fleet.engine.answers.twins import Twins
from fleet.engine.process.delegations import Delegations
from fleet.engine.process.shared_contexts import SharedContexts
from fleet.engine.process.spending import Spending
from fleet.engine.telemetry.event_limiter import QUIET_S
from fleet.engine.transport import leases
from fleet.engine.transport.parking.waiting import PutBack, put_back
from fleet.errors import FleetError
from fleet.outcome import Parking
from fleet.roster import Checkout, Roster
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.patience import patiently
from fleet.store.running.brokers import AnyStore, home, others
from fleet.waits import Cause, Wait

logger = logging.getLogger("fleet.worker")

#: Reasons of this process alone: other workers may do better, so the task is theirs at once.
OF_PROCESS: frozenset[Cause] = frozenset({"machine", "function"})


class GoneBack(Ignore):
    """A task waits in Redis: its message has gone back, nobody holds it, and there is nothing to tell but that.

    Args:
        wait: Why.
    """

    def __init__(self, wait: Wait) -> None:
        super().__init__(str(wait))
        self.wait = wait

    def __reduce__(self) -> tuple[type[GoneBack], tuple[Wait]]:
        return GoneBack, (self.wait,)


@dataclass(frozen=True, slots=True)
class Stay:
    """What a task waits for in a pool, and the bots to be given back."""

    pool: str
    parking: Parking
    checkouts: tuple[Checkout, ...] = ()


class WaitingRoom:
    """Puts back what has to wait. One per process, on its loop.

    Args:
        broker: Where messages and holds are.
        state: Where events are.
        roster: Takes bots back.
        closed: Why calls of a pool would wait, as far as this process knows; None: they need not. Never waits.
        spending: Knows who has no money left.
        delegations: Knows which tasks must be signed.
        contexts: Knows what tasks need that name documents.
        twins: Has the answers of equal tasks.
    """

    def __init__(
        self,
        broker: AnyStore,
        state: Store,
        roster: Roster,
        *,
        closed: Callable[[str], Wait | None],
        spending: Spending,
        delegations: Delegations,
        contexts: SharedContexts,
        twins: Twins,
    ) -> None:
        self.closed = closed
        self.spending = spending
        self.delegations = delegations
        self.contexts = contexts
        self.twins = twins
        self._broker = broker
        self._state = state
        self._roster = roster
        #: Pools that this process has let wait, and why: what does well there ends it.
        self._held: dict[str, Wait] = {}
        self._jobs: set[asyncio.Future[None]] = set()

    async def hold(self, pool: str, wait: Wait) -> None:
        """Let all tasks of a pool wait; said once a while, however many meet the same. Patient while Redis is away."""
        at, known = due_at(wait), self._held.get(pool)
        found = self._held[pool] = replace(wait, opens_at=at)
        queue = keys.queue(pool)
        call = hold_call(queue, found)
        held = await patiently(lambda: home(self._broker, queue).run(PUT_HOLD, *call))
        for store in others(self._broker, queue):  # what it may have left there waits too
            self._do(_leniently(store.run(PUT_HOLD, *call)))
        if held and (known is None or known.cause != wait.cause or at - (known.opens_at or 0) > QUIET_S):
            until = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
            logger.warning("hold_put pool=%s cause=%s opens_at=%s: %s", pool, wait.cause, until, wait)
            record_event(
                self._state, catalogue.HOLD_PUT, quiet_s=QUIET_S, about=f"{pool}:{wait.cause}",
                pool=pool, cause=wait.cause, opens_at=until, why=str(wait),
            )  # fmt: skip
            if wait.cause == "key" and not wait.about.startswith("["):  # else nobody has refused it
                record_event(self._state, catalogue.KEY_REJECTED, quiet_s=QUIET_S, about=wait.about, limit=wait.about)

    def hold_soon(self, pool: str, wait: Wait) -> None:
        """`hold` without waiting for it: for a task that waits in its slot, and is at work there."""
        self._do(self.hold(pool, wait))

    def did_well(self, pool: str, priority: int) -> None:
        """End the hold that this process has put, if it is still there: a task of it was answered. Never waits.

        Args:
            pool: Its pool.
            priority: Of the task; one that is too urgent for the hold says nothing of those that it stops.
        """
        wait = self._held.get(pool)
        if wait is not None and priority > wait.lowest:
            del self._held[pool]
            self._do(self._lift(pool, wait))

    async def _lift(self, pool: str, wait: Wait) -> None:
        call = lift_call([keys.queue(pool)], about=wait.about, cause=wait.cause)
        for store in others(self._broker, keys.queue(pool)):
            self._do(_leniently(store.run(LIFT, *call)))
        if await patiently(lambda: home(self._broker, keys.queue(pool)).run(LIFT, *call)):
            logger.info("hold_lifted pool=%s cause=%s", pool, wait.cause)
            record_event(
                self._state, catalogue.HOLD_LIFTED, quiet_s=QUIET_S, about=f"{pool}:{wait.cause}", pool=pool,
                cause=wait.cause,
            )  # fmt: skip

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def put_back(self, tag: str, task_id: str, parking: Parking, checkouts: Sequence[Checkout] = ()) -> GoneBack:
        """Put a task's message back, then give its bots back; return what Celery is told.

        A task of which nothing was sent goes to the head of its list, where it was. One that waits alone is parked
        until its time. One that has failed a call comes back behind the others of its priority.

        Raises:
            StoreError: When Redis refuses it.
        """
        wait, at = parking.wait, None
        if wait.cause not in OF_PROCESS and (parking.sent or parking.is_alone):
            at = due_at(wait)
            if wait.cause != "budget":  # which opens when it is raised, however often it is tried
                wait = replace(wait, opens_at=at)
        await put_back(self._broker, PutBack(tag, task_id, wait, at, parking.sent, parking.before))
        if wait.cause == "machine":
            leases.narrow()
        logger.debug("parked task=%s: %s", task_id, wait)
        await self.give_back(checkouts)
        return GoneBack(wait)

    async def give_back(self, checkouts: Sequence[Checkout]) -> None:
        """Give bots back whose task waits; nothing counts for or against them."""
        try:
            if checkouts:
                await self._roster.give_back(checkouts)
        except FleetError as error:
            logger.warning("bots not given back task=%s error=%s: their leases run out", checkouts[0].task_id, error)


async def _leniently(asked: Awaitable[object]) -> None:
    """Have a broker do something about what a pool may have left there; one that is away serves nothing of it."""
    with suppress(FleetError):
        await asked
