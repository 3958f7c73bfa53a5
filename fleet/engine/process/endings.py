"""How a task ends: its result is made, stored once, counted and logged. What it did before: `data_plane.py`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from fleet.engine.answers.opinion import Opinions
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.dead_letters import body_of, bury
from fleet.engine.outcomes.results import (
    Done,
    before_of,
    life_of,
    log_result,
    refusal,
    result_of,
    spent_before,
    summary_of,
)
from fleet.engine.outcomes.stored import read_result
from fleet.engine.process.delivery import Delivery
from fleet.engine.telemetry.taps import Telemetry
from fleet.engine.transport.several import sharing
from fleet.errors import FleetError, InvalidTask, StoreRefused, StoreUnavailable
from fleet.models import BotResult, BotTask
from fleet.outcome import NOTHING_BEFORE, Before
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.patience import at_last, patiently
from fleet.store.running.brokers import AnyStore, Brokers

logger = logging.getLogger("fleet.worker")

#: Seconds for which one of several brokers is asked whether a lease stands: less than a stopping worker has left.
FENCE_S = 1.0


class Endings:
    """Ends tasks. One per process, on its loop.

    Args:
        telemetry: Spans and counts of this process.
        state: Where results are.
        broker: Where messages and their leases are; the same store where there is one Redis.
        completion: Finishes a task in one atomic step.
    """

    def __init__(self, telemetry: Telemetry, *, state: Store, broker: AnyStore, completion: Finisher) -> None:
        self._telemetry, self._state, self._broker, self._completion = telemetry, state, broker, completion

    async def finish(
        self, task: BotTask, opinions: Opinions, delivery: Delivery, started_s: float, before: Before
    ) -> tuple[BotResult, bool]:
        """Return the task's result, and whether it is the one that stands."""
        outcome, bot = opinions.outcome(), opinions.chosen.bot
        ran_ms = round((time.monotonic() - started_s) * 1000)
        result = result_of(
            delivery.task_id, task, bot, outcome, queued_ms=delivery.queued_ms, ran_ms=ran_ms, before=before
        )
        store = partial(self._store, result, task.kind, opinions, outcome.provider_errors, delivery)
        with self._telemetry.step("finish"):
            try:
                stands = await patiently(store)
            except asyncio.CancelledError:  # its worker stops
                stands = await at_last(store)
        return result, stands

    async def serve(self, delivery: Delivery, kind: str, result: BotResult, *, saved_picos: int) -> Done:
        """End a task with the answer of an equal one: it counts for no bot.

        Args:
            delivery: Its message.
            kind: Its class.
            result: As it is delivered.
            saved_picos: What the answer has cost once, in 10^-12 dollars.
        """
        fence = await patiently(lambda: self._fence(delivery))
        end = Finish(result, kind=kind, fence=fence, saved_picos=saved_picos)
        if not await patiently(lambda: self._completion.finish(end)):
            return Done("discarded: not the first", ended_before=True)
        self._telemetry.finished(result)
        log_result(result)
        return Done(summary_of(result), result)

    async def _store(
        self, result: BotResult, kind: str, opinions: Opinions, errors: Mapping[str, int], delivery: Delivery
    ) -> bool:
        """Store the result, unless the message's lease was lost: then somebody else has the task, and pays for it."""
        request, burial = delivery.request, None
        if result.status == "failed" and not opinions.is_revoked:
            burial = bury(result, headers=request, body=body_of(request), provider_errors=errors)
        return await self._completion.finish(
            Finish(
                result,
                checkout=opinions.chosen.checkout,
                others=opinions.other_checkouts(),
                shares=opinions.parts(),
                deeds=opinions.deeds(),
                kind=kind,
                provider_errors=errors,
                fence=None if opinions.is_revoked else await self._fence(delivery),
                burial=burial,
                revoked=life_of(request) if opinions.is_revoked else None,
            )
        )

    async def _fence(self, delivery: Delivery) -> str | None:
        """Return the tag that the finishing script fences the result with; None: there is nothing to fence.

        With one Redis the script itself looks whether the lease still stands. With two the look comes right before
        it, and between the two only `finish` itself keeps a task at one result. That is all, too, when one of several
        brokers does not answer: a task that waited for it would keep its slot from the tasks of the others.
        """
        tag = delivery.tag
        try:
            async with asyncio.timeout(FENCE_S if isinstance(self._broker, Brokers) else None):
                broker = await sharing.store_of(self._broker, tag)
                if broker is self._state or not tag:
                    return tag
                if await broker.command("ZSCORE", keys.unacked_index(), tag) is not None:
                    return None
        except (StoreUnavailable, StoreRefused, TimeoutError):
            if isinstance(self._broker, Brokers):
                return None
            raise
        logger.warning("lease lost task=%s: its result is discarded", delivery.task_id)
        return tag  # the state Redis knows no leases: there this result is fenced, what it cost is counted

    async def result_of(self, task_id: str) -> BotResult | None:
        """Return the result that a task has, or None."""
        return read_result(await patiently(lambda: self._state.command("GET", keys.result(task_id))))

    async def count_before(self, task_id: str, headers: Mapping[str, Any]) -> None:
        """Count what a task that was revoked has cost before it was parked; once, however often it is asked for.

        One that has a typed result was counted with that: its message has come back after the death of a worker.
        """
        before = before_of(headers)
        if before != NOTHING_BEFORE and await self.result_of(task_id) is None:
            end = Finish(spent_before(task_id, before), provider_errors=before.failed, revoked=life_of(headers))
            await patiently(lambda: self._completion.finish(end))

    async def refuse(
        self, task_id: str, error: Exception, headers: Mapping[str, Any], body: bytes, queued_ms: int | None
    ) -> Done:
        """Give a task that cannot be worked on a failed result, and keep its message as a dead letter."""
        invalid = error if isinstance(error, FleetError) else InvalidTask(f"expected keyword arguments: {error}")
        before = before_of(headers)
        result = refusal(task_id, invalid, queued_ms, before)
        burial = bury(result, headers=headers, body=body, provider_errors=before.failed)
        end = Finish(result, checkout=None, burial=burial, provider_errors=before.failed)
        if not await patiently(lambda: self._completion.finish(end)):
            return Done("discarded: not the first", ended_before=True)
        self._telemetry.finished(result)
        log_result(result)
        return Done(summary_of(result), result)
