"""What a worker process does beside its tasks: bury poison, report its resources. Leases: `renewer.py`.

Each duty is a coroutine without an end, on the process's one loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from fleet.config import Settings
from fleet.config.fingerprint import fingerprint
from fleet.engine.messages import marks, weight
from fleet.engine.messages.broker import lapse
from fleet.engine.messages.envelope import is_usable, task_id_in
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.results import Done
from fleet.engine.telemetry.occupancy import Occupancy
from fleet.engine.transport import leases, suspicion
from fleet.errors import FleetError, Poison, StoreUnavailable
from fleet.quoting import quote
from fleet.signals import catalogue
from fleet.signals.crew import Trouble, troubles_of, unserved
from fleet.signals.events import record_event
from fleet.signals.neighbours import MARK_EVERY_S, leave_mark, lift_mark
from fleet.signals.recorder import CLEAN_EVERY_S, HeldKeyReport, Recorder
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK, told
from fleet.store.running.brokers import AnyStore, ask_each, each, main_of
from fleet.waits import Wait

logger = logging.getLogger("fleet.worker")

#: Seconds between two resource reports of a worker.
REPORT_EVERY_S = 2.0
#: Seconds that a list of pools that nobody serves is believed: it is written anew after each look at the crew.
UNSERVED_LIFE_S = round(2.5 * CLEAN_EVERY_S)
#: Seconds until a duty that failed begins again.
RESTART_S = 1.0
#: Poison messages buried in one go (count).
BURY_AT_ONCE = 16
#: What an earlier release went by, which counted the deaths of workers; nothing was proven by experiment.
LEFT_BY_EARLIER = "expected a worker to survive this task, got several that died while they held it"
#: Seconds that an ending worker waits for Redis to hear of it.
LEAVE_S = 1.0


async def for_ever(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Keep a duty going while the process lives, whatever happens to it: a machine without files, memory, a bug."""
    while True:
        try:
            return await duty()  # one that the settings switch off ends at once
        except Exception as error:  # noqa: BLE001 - a worker that lives must not look dead, nor lose what it holds
            name = getattr(getattr(duty, "func", duty), "__qualname__", "unknown")
            logger.error("duty failed duty=%s error=%s: %s; it begins again", name, type(error).__name__, quote(error))
        await asyncio.sleep(RESTART_S)


def _say(troubles: Iterable[Trouble], told: Collection[str]) -> set[str]:
    """Log what is wrong with the crew, each once until it is over; return the lines that hold now."""
    lines = {trouble.line for trouble in troubles}
    for line in sorted(lines.difference(told)):
        logger.warning("%s", line)
    return lines


class Janitor:
    """The duties of one worker process.

    Args:
        broker: Where messages and their leases are.
        state: Where bots and signals are.
        refuse: Gives a task a failed result: (task id, why, headers, body).
        unanswered: Gives limits whose calls have had no answer for far longer than usual: calls, and seconds.
        tool_waits: Counts tasks that wait in their slots, for a tool or a first answer, by pool and limit.
        held_keys: Tells of the keys of this process.
    """

    def __init__(
        self,
        broker: AnyStore,
        state: Store,
        refuse: Callable[[str, FleetError, Mapping[str, Any], bytes], Awaitable[Done]],
        unanswered: Callable[[], Mapping[str, tuple[int, float]]] = dict,
        tool_waits: Callable[[], Mapping[str, Mapping[str, int]]] = dict,
        held_keys: Callable[[], Iterable[HeldKeyReport]] = tuple,
    ) -> None:
        self._broker = broker
        self._state = state
        self._refuse = refuse
        self._unanswered, self._tool_waits, self._held_keys = unanswered, tool_waits, held_keys
        self._recorder: Recorder | None = None
        self._settings: Settings | None = None
        #: When the crew was looked at last, and whether producers have been told of pools that nobody serves.
        self._looked_at, self._tells_unserved = 0.0, True

    def reports_as(self) -> str:
        """Return the id by which this process reports; empty: it does not."""
        return "" if self._recorder is None else leases.process_id()

    def living(self) -> frozenset[str] | None:
        """Return the ids of the processes that report; None: nobody has looked lately, as while Redis was away."""
        if self._recorder is None or self._recorder.looked_at < CLOCK.now_s() - 3 * CLEAN_EVERY_S:
            return None
        return frozenset(report.process for report in self._recorder.living)

    async def bury_poison(self) -> None:
        """Give messages that an earlier release has found to be poison a failed result, for ever.

        Any worker may; one is enough. A message that cannot be buried is put aside, so that it stops none behind it.
        """
        while True:
            await asyncio.sleep(leases.RENEW_EVERY_S)
            for store in each(self._broker):
                try:
                    for message in await store.command("LRANGE", keys.poison(), 0, BURY_AT_ONCE - 1):
                        await self._bury(store, message)
                except Exception as error:  # noqa: BLE001 - the task boundary: no message may end this duty, however odd
                    logger.warning("poison not buried error=%s: %s", type(error).__name__, quote(error))

    async def bury(self, task_id: str, proven: Poison, headers: Mapping[str, Any], body: bytes) -> Done:
        """Give a poisonous task its failed result, and say so.

        Raises:
            StoreError: When Redis does not take it.
        """
        done = await self._refuse(task_id, proven, headers, body)
        logger.error("poison task=%s: %s", quote(task_id), proven)
        record_event(self._state, catalogue.POISON_BURIED, task=task_id, proof=str(proven))
        return done

    async def sweep_marks(self, settings: Settings) -> None:
        """Remove marks of idempotency keys, and of suspects, whose task is nowhere any more, for ever: now and then."""
        while True:
            await asyncio.sleep(marks.SWEEP_EVERY_S)
            try:
                removed = sum(map(int, await ask_each(self._broker, partial(self._sweep, settings))))
            except FleetError as error:
                logger.warning("marks not swept error=%s", error)
            else:
                if removed:
                    logger.info("swept marks=%d: their tasks were purged or forgotten", removed)

    async def _sweep(self, settings: Settings, store: Store) -> int:
        has_results = store is main_of(self._broker)
        call = marks.sweep_call(settings, has_results=has_results)
        removed, *notes = await store.run(marks.SWEEP, *call)
        if notes:
            await lapse(self._broker, notes)
        await store.run(suspicion.ABSOLVE, *suspicion.stale_call())
        return int(removed)

    async def _bury(self, store: Store, message: bytes) -> None:
        task_id = task_id_in(message)
        try:
            if is_usable(task_id):
                assert task_id is not None
                await self.bury(task_id, Poison(LEFT_BY_EARLIER), *parts_of(message))
            else:
                await _put_aside(store, message)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the task boundary: no letter may block those behind it
            logger.error("poison put aside task=%s error=%s kept_in=%s",
                quote(task_id), type(error).__name__, keys.unreadable(),
            )  # fmt: skip
            await _put_aside(store, message)
        await store.command("LREM", keys.poison(), 1, message)

    async def report(
        self, occupancy: Occupancy, apart: Callable[[], int], settings: Settings, shut: Mapping[str, Wait]
    ) -> None:
        """Write this process's resources where the signals are read, and log what is wrong with the crew, for ever.

        Args:
            occupancy: Its slots and queues.
            apart: Counts its suspects.
            settings: Its own.
            shut: Pools that it ought to serve and cannot, with why.
        """
        recorder = self._recorder = Recorder(
            self._state, name=occupancy.name, process=leases.process_id(), settings=fingerprint(settings),
            shut=shut,
        )  # fmt: skip
        said: set[str] = set()
        record_event(self._state, catalogue.WORKER_STARTED, worker=occupancy.name, pid=os.getpid())
        was_off = False
        while True:
            try:
                await recorder.report(
                    slots=occupancy.slots, busy=occupancy.busy, most_slots=occupancy.most_slots,
                    beat_at=occupancy.beat_at, apart=apart(), queues=tuple(occupancy.queues),
                    unanswered=self._unanswered(), tool_waits=self._tool_waits(), held_keys=tuple(self._held_keys()),
                )  # fmt: skip
                said = _say(troubles_of(recorder.living, settings, now_s=recorder.looked_at), said)
                await self._tell_unserved(recorder, settings)
                if CLOCK.is_off and not was_off:
                    logger.warning("clock off: this host's is %s; tasks go by that of Redis", told(CLOCK.ahead_s))
                    ahead_s = round(CLOCK.ahead_s)
                    record_event(self._state, catalogue.CLOCK_OFF, worker=occupancy.name, ahead_s=ahead_s)
                was_off = CLOCK.is_off
            except FleetError as error:
                logger.warning("report failed error=%s", error)
            await asyncio.sleep(REPORT_EVERY_S)

    async def _tell_unserved(self, recorder: Recorder, settings: Settings) -> None:
        """Tell producers, after each look at the crew, which pools nobody serves: they choose others if they may."""
        if recorder.looked_at == self._looked_at:
            return
        pools = unserved(recorder.living, settings)
        if pools:
            await main_of(self._broker).command("SET", keys.unserved(), json.dumps(pools), "EX", UNSERVED_LIFE_S)
        elif self._tells_unserved:
            await main_of(self._broker).command("DEL", keys.unserved())
        self._looked_at, self._tells_unserved = recorder.looked_at, bool(pools)

    async def watch_neighbours(self, settings: Settings) -> None:
        """Leave this fleet's mark in Redis, and log if there is another one's, for ever."""
        self._settings, told = settings, dict.fromkeys((*each(self._broker), self._state), "")
        while True:
            for store, before in told.items():
                try:
                    told[store] = await leave_mark(store, settings) or ""
                except FleetError as error:
                    logger.warning("mark not left error=%s", error)
                if told[store] not in (before, ""):
                    logger.warning("%s", told[store])
            await asyncio.sleep(MARK_EVERY_S)

    async def leave(self) -> None:
        """Tell that this process ends as it should; a Redis that does not answer is not waited for."""
        if self._settings is not None:
            with suppress(FleetError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await asyncio.gather(
                        *(lift_mark(store, self._settings) for store in {*each(self._broker), self._state})
                    )
        if self._recorder is not None:
            with suppress(FleetError, TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._recorder.leave()


async def _put_aside(store: Store, message: bytes) -> None:
    """Keep a message for an operator to look at."""
    await store.command("LPUSH", keys.unreadable(), weight.cut(message))
    await store.command("LTRIM", keys.unreadable(), 0, leases.UNREADABLE_KEPT - 1)
    await store.command("EXPIRE", keys.unreadable(), keys.STATE_TTL_S)
