"""The life of a task in a worker process, in five steps: read, check out, ask, finish, tell. Runs on the one loop.

What it works with is handed in: `assembly.py` puts it together. How Celery comes here, and hears of the end: `pool.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from celery.exceptions import Reject

from fleet.config import KEY_LABEL, Settings
from fleet.engine.admission.standing import stand
from fleet.engine.answers.opinion import Opinions
from fleet.engine.answers.opinions import Panel, other_token
from fleet.engine.answers.twins import served
from fleet.engine.messages import pool_choice, routing
from fleet.engine.messages.expiry import check_expiry
from fleet.engine.messages.inbox import Inbox
from fleet.engine.messages.weight import is_quick
from fleet.engine.outcomes.completion import Finisher
from fleet.engine.outcomes.dead_letters import body_of
from fleet.engine.outcomes.follow_ups import has_canvas, request_of
from fleet.engine.outcomes.results import (
    Done,
    before_of,
    log_result,
    summary_of,
)
from fleet.engine.process.canvas import Canvas, without_canvas
from fleet.engine.process.checkouts import Checkouts
from fleet.engine.process.delivery import Delivery
from fleet.engine.process.endings import Endings
from fleet.engine.process.waiting_room import OF_PROCESS, Stay, WaitingRoom
from fleet.engine.telemetry.event_limiter import QUIET_S
from fleet.engine.telemetry.taps import Telemetry
from fleet.errors import (
    BotsQuarantined,
    Expired,
    FleetError,
    GiveUp,
    InvalidTask,
    KeyRejected,
    NotDelegated,
    NotSoon,
    StoreError,
    Waits,
)
from fleet.models import Bot, BotResult, BotTask
from fleet.outcome import Before, Parking
from fleet.quoting import brief
from fleet.roster import Checkout, WantedBot, seated
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently
from fleet.store.running.brokers import AnyStore
from fleet.waits import MOST_TOLD, Wait

logger = logging.getLogger("fleet.worker")

#: Seconds between two tasks that look whether a bot is back, once the first one of a pool ought to be.
PROBE_BOTS_S = 1.0


class DataPlane:
    """Turns delivered messages into results. One per process.

    Args:
        settings: Pools.
        telemetry: Spans and counts of this process.
        state: Where results, bots and signals are.
        broker: Where messages and their leases are; the same store where there is one Redis.
        checkouts: Gives out bots.
        panel: Lets bots work on a task.
        completion: Finishes a task in one atomic step.
        held: The checkouts of the tasks that run, by token: what is in here is renewed.
        note: Told of each answer that stands.
        canvas: Sends what follows a task.
        room: Knows what has to wait, and puts it back.
    """

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        *,
        state: Store,
        broker: AnyStore,
        checkouts: Checkouts,
        panel: Panel,
        completion: Finisher,
        held: MutableMapping[str, Checkout],
        note: Callable[[BotTask, Bot, BotResult], None],
        canvas: Canvas,
        room: WaitingRoom,
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._state = state
        self._broker = broker
        self._checkouts = checkouts
        self._panel = panel
        self._completion = completion
        self._held = held
        self._note = note
        self._canvas = canvas
        self._room = room
        self._twins = room.twins
        self._endings = Endings(telemetry, state=state, broker=broker, completion=completion)
        self._inbox = Inbox(broker, settings)

    async def work(self, task_id: str, request: dict[str, Any]) -> Done:
        """Turn one delivered message into the task's one result.

        Args:
            task_id: The Celery task id.
            request: Celery's request dict: headers plus `args`, `kwargs` and `delivery_info`.
        """
        with self._telemetry.task(task_id, request):
            done = await self._work(Delivery.of(task_id, request))
            if has_canvas(request):
                await self._follow(done, task_id, request)
            return done

    async def _follow(self, done: Done, task_id: str, request: Mapping[str, Any]) -> None:
        """Send what follows a task in a canvas, if it has ended."""
        if done.result is not None or done.ended_before:
            await self._canvas.follow(task_id, request, done.result)

    async def _work(self, delivery: Delivery) -> Done:
        try:
            task, pools = (
                self._read(delivery) if is_quick(delivery.request) else await asyncio.to_thread(self._read, delivery)
            )
        except (InvalidTask, Expired, TypeError) as error:
            return await self._refuse(delivery, error)
        if delivery.queue == self._settings.worker.inbox or delivery.overtakes(task):
            return Done(await self._inbox.pass_on(delivery.task_id, task, delivery.request))
        task, before = routing.in_time_left(task, delivery.queued_ms), before_of(delivery.request)
        while True:
            done = await self._try(delivery, task, pools[0], before)
            if isinstance(done, Done):
                return done
            before = await self._wait(delivery, done)

    def _try(self, delivery: Delivery, task: BotTask, pool: str, before: Before) -> Coroutine[Any, Any, Done | Stay]:
        """Return how a task ended, or what it waits for. No coroutine of its own: most tasks pass here."""
        tries = self._try_once_for_all if self._twins.has(task) else self._enter
        return tries(delivery, task, pool, before)

    async def _try_once_for_all(self, delivery: Delivery, task: BotTask, pool: str, before: Before) -> Done | Stay:
        """Return what becomes of a task whose equal ones have the same answer."""
        done: Done | Stay | None = None
        try:
            kept = await self._kept(delivery, task, pool, before)
        except NotSoon as error:
            return Stay(pool, Parking(error.wait(), before.parked_again(), is_alone=True))
        if kept is not None:
            return await self._serve(delivery, task, kept, before)
        try:
            done = await self._enter(delivery, task, pool, before)
        finally:
            wait = done.parking.wait if isinstance(done, Stay) else None
            self._twins.leave(task, pool, delivery.task_id, done, wait)
        return done

    async def _kept(self, delivery: Delivery, task: BotTask, pool: str, before: Before) -> BotResult | None:
        """Return the result of an equal task, if this one may have its answer; who may not is refused as always."""
        try:
            self._room.delegations.check(delivery.task_id, task, pool, delivery.request)
        except NotDelegated:
            return None
        return await self._twins.enter(task, pool, delivery.task_id, before)

    async def _spared(
        self, delivery: Delivery, task: BotTask, checkout: Checkout, before: Before
    ) -> Done | Stay | None:
        """Return what an equal task spares one, or what it waits for, where the persona of its bot counts."""
        pool = checkout.pool
        try:
            kept = await self._twins.of_bot(task, pool, delivery.task_id, before, bot=checkout.bot)
        except NotSoon as error:
            return Stay(pool, Parking(error.wait(), before.parked_again(), is_alone=True), (checkout,))
        if kept is None:
            return None
        await self._room.give_back((checkout,))
        return await self._serve(delivery, task, kept, before)

    async def _serve(self, delivery: Delivery, task: BotTask, kept: BotResult, before: Before) -> Done:
        """End a task with the answer of an equal one."""
        result = served(kept, task, delivery.task_id, queued_ms=delivery.queued_ms, before=before)
        return await self._endings.serve(delivery, task.kind, result, saved_picos=kept.spent_usd_picos)

    async def _enter(self, delivery: Delivery, task: BotTask, pool: str, before: Before) -> Done | Stay:
        """Return how a task ended that is to be asked, or what it waits for."""
        wait = self._room.closed(pool) or self._room.spending.standing(pool, task)
        if wait is not None and task.priority > wait.lowest:
            return Stay(pool, Parking(wait, before.parked_again(), is_alone=not wait.is_everyones))
        try:
            self._room.delegations.check(delivery.task_id, task, pool, delivery.request)
        except NotDelegated as error:
            return await self._refuse(delivery, error)
        if not task.context:
            return await self._begin(delivery, task, pool, before)
        try:
            wanted = await self._room.contexts.enter(task, pool, delivery.task_id)
        except GiveUp as error:
            return await self._refuse(delivery, error)
        except Waits as error:
            wait = replace(error.wait(), is_everyones=False)
            return Stay(pool, Parking(wait, before.parked_again(), is_alone=True))
        done: Done | Stay | None = None
        try:
            done = await self._begin(delivery, task, pool, before, wanted)
        finally:
            self._room.contexts.leave(task, delivery.task_id, done)
        return done

    async def _begin(
        self, delivery: Delivery, task: BotTask, pool: str, before: Before, wanted: WantedBot | None = None
    ) -> Done | Stay:
        """Check a bot out and let it work; `wanted` says what it must be like."""
        started_s, wanted = time.monotonic(), seated(task, wanted)
        try:
            with self._telemetry.step("checkout"):
                checkout = await self._checkouts.check_out(pool, task, delivery, before, wanted)
        except Waits as error:
            found = await self._wait_of(error, pool, task)
            if wanted is None:
                return Stay(pool, Parking(found, before.parked_again()))
            # The bots that fit are out; others may work for other tasks.
            return Stay(pool, Parking(replace(found, is_everyones=False), before.parked_again(), is_alone=True))
        except StoreError as error:
            told = Wait("configuration", about=f"Redis, bots of pool {pool}", told=brief(str(error), MOST_TOLD))
            return Stay(pool, Parking(told, before.parked_again()))
        if checkout is None:
            self._completion.close_mark(delivery.task_id)
            return Done("done before", ended_before=True)
        self._held[checkout.token] = checkout
        try:
            if self._twins.has(task) and (spared := await self._spared(delivery, task, checkout, before)) is not None:
                return spared
            opinions = await self._panel.ask(task, checkout, task_id=delivery.task_id, before=before, wanted=wanted)
            if opinions.parking is not None:
                return Stay(pool, opinions.parking, opinions.asked)
            result, stands = await self._endings.finish(task, opinions, delivery, started_s, before)
        finally:
            self._let_go(checkout)
        self._checkouts.over(pool, task, delivery.task_id)
        self._tell(task, opinions, result, stands)
        if not stands:
            return Done("discarded: not the first", ended_before=True)
        return Done(summary_of(result), result, is_doubtful=opinions.chosen.outcome.fault is not None)

    async def _wait(self, delivery: Delivery, stay: Stay) -> Before:
        """Let a task wait, and its pool where it holds for all of it: in Redis; return only where that cannot be.

        That is on pools of Celery's own, and in a direct call of the task: it waits here then.

        Raises:
            GoneBack: Its message has gone back.
            Reject: Redis has refused to put it back.
        """
        parking = stay.parking
        if self._room.spending.is_of_bot(stay.pool, parking.wait):  # another bot may have money left
            await self._room.give_back(stay.checkouts)
            return parking.before
        if parking.wait.is_everyones and not parking.is_alone and parking.wait.cause not in OF_PROCESS:
            await self._room.hold(stay.pool, parking.wait)
        if delivery.tag is not None:
            try:
                gone = await self._room.put_back(delivery.tag, delivery.task_id, parking, stay.checkouts)
            except FleetError as error:  # its message is held still: the pool's own way back, or its lease's end
                raise Reject(str(error), requeue=True) from error
            self._twins.parked(delivery.task_id)
            raise gone
        await self._room.give_back(stay.checkouts)
        await stand(parking.wait)
        return parking.before

    async def _wait_of(self, error: Waits, pool: str, task: BotTask) -> Wait:
        """Return why a task waits that got no bot.

        Where all are out it looks again with the first release; who lets one go earlier is noticed too (`StaleHolds`).
        Then one task goes ahead: a crowd that finds no bot would only leave its queue and come back.
        """
        if not isinstance(error, BotsQuarantined):
            return replace(error.wait(about=pool, opens_at=None), is_everyones=True)
        released_at = await patiently(lambda: self._checkouts.next_release(pool))
        of_money = self._room.spending.wait_for_bots(pool, task.priority.value, released_at)
        if of_money is not None:
            return of_money
        wait = error.wait(about=pool, opens_at=released_at)
        return replace(wait, is_everyones=True, probe_every_s=PROBE_BOTS_S)

    def stop(self, tag: str, job: asyncio.Future[Any] | None) -> bool:
        """End the work on a revoked task, whose cost is counted. False when no bot works on it: it has cost nothing.

        Args:
            tag: Delivery tag of its message.
            job: What runs `work` for it.
        """
        return job is not None and self._panel.stop(tag, job)

    def _read(self, delivery: Delivery) -> tuple[BotTask, list[str]]:
        """Return the task of a message and the pools that it may go to.

        Raises:
            InvalidTask: When it isn't a task, or no pool takes it.
            Expired: When it came too late.
            TypeError: When its arguments have no names.
        """
        check_expiry(delivery.request, None, CLOCK.now_s())
        task = BotTask.parse(*delivery.request["args"], **delivery.request["kwargs"])
        if task.expires_at is not None:
            check_expiry({}, task.expires_at, CLOCK.now_s())
        task = routing.delivered(task, delivery.queue, delivery.priority, self._settings)
        return task, pool_choice.candidates(task, self._settings)

    def _let_go(self, first: Checkout) -> None:
        """Renew none of the checkouts of a task any more."""
        number, held = 0, self._held.pop(first.token, None)
        while held is not None:
            number += 1
            held = self._held.pop(other_token(first.token, number), None)

    def _tell(self, task: BotTask, opinions: Opinions, result: BotResult, stands: bool) -> None:
        """Note, count and log a finished task."""
        chosen = opinions.chosen
        if stands:
            if result.status != "failed":
                self._room.did_well(chosen.checkout.pool, task.priority)
            self._note(task, chosen.bot, result)
            self._telemetry.finished(result)
        log_result(result)
        if isinstance(error := chosen.outcome.error, KeyRejected):
            limit = error.about or f"{result.provider}/{result.model}/{KEY_LABEL}"
            record_event(self._state, catalogue.KEY_REJECTED, quiet_s=QUIET_S, about=limit, limit=limit)

    async def _refuse(self, delivery: Delivery, error: Exception) -> Done:
        request = delivery.request
        return await self._endings.refuse(delivery.task_id, error, request, body_of(request), delivery.queued_ms)

    async def result_of(self, task_id: str) -> BotResult | None:
        """Return the result that a task has, or None."""
        return await self._endings.result_of(task_id)

    async def refuse(self, task_id: str, error: FleetError, headers: Mapping[str, Any], body: bytes) -> Done:
        """Give a task whose message no slot gets a failed result, and tell its canvas."""
        done = await self._endings.refuse(task_id, error, headers, without_canvas(body), None)
        await self._follow(done, task_id, request_of(headers, body))
        return done

    async def count_before(self, task_id: str, headers: Mapping[str, Any]) -> None:
        """Count what a revoked task has cost before it was parked, once; as `Endings.count_before`."""
        await self._endings.count_before(task_id, headers)
