"""The agent: runs one task with one bot, and always comes back with an Outcome.

It owns the deadline and the task boundary. Retries of calls stand in `bot_context.py`; Celery, Redis, queues and
results are not known here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fleet.config import Settings
from fleet.errors import DeadlineExceeded, FleetError, RateLimited
from fleet.models import Bot, BotTask, Usage
from workers.bot_context import BotContext
from workers.bot_function import FunctionRunner, load_function
from workers.gateway import Gateway, Meter

#: Threads that plain bot functions may have per slot: one at work, one left over from a task past its deadline.
THREADS_PER_SLOT = 2

Status = Literal["ok", "degraded", "failed"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task.

    Attributes:
        status: ok; degraded (an answer was cut off at its token limit); failed.
        answer: Text, unless failed.
        error: Why it failed.
        attempts: Calls sent to the provider, answered or not.
        provider_errors: Those of them that failed, retried or not: error type -> count.
        limited_ms: Time spent waiting for grants, summed over calls.
        ran_ms: The rest of the time.
    """

    status: Status
    answer: str | None
    error: FleetError | None
    usage: Usage
    cost_usd_micros: int | None
    attempts: int
    provider_errors: Mapping[str, int]
    limited_ms: int
    ran_ms: int
    provider: str
    model: str
    simulated: bool


class Agent:
    """Runs tasks. One per process, used from its event loop.

    Args:
        gateway: Where calls go.
        settings: Its pools and slots; the pools' bot functions are loaded here.
        share: Fresh random numbers from 0 to 1, for jitter.

    Raises:
        ConfigurationError: When a pool's `function` cannot be used.
    """

    def __init__(self, gateway: Gateway, settings: Settings, *, share: Callable[[], float] = random.random) -> None:
        self._gateway = gateway
        self._pools = settings.pools
        self._share = share
        self._functions = {name: load_function(pool.function) for name, pool in self._pools.items() if pool.function}
        self._runner = FunctionRunner(max_threads=settings.slots_per_process * THREADS_PER_SLOT)

    async def run(self, task: BotTask, bot: Bot, *, task_id: str, deadline_s_left: float | None = None) -> Outcome:
        """Work on one task until it is done, has failed for good, or its time is over.

        Args:
            task: What to do.
            bot: Who does it; its pool decides the route and the function.
            task_id: For the log.
            deadline_s_left: Seconds until the task's absolute deadline; 0 or less fails at once and calls nobody.
                None: the task's `deadline_s`, else the pool's, from now on.

        Returns:
            An Outcome, whatever happened. Only a cancellation from outside (the worker's end) is let through.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        pool = self._pools[bot.pool]
        allowed_s = (task.deadline_s or pool.deadline_s) if deadline_s_left is None else deadline_s_left
        deadline = started + allowed_s
        context = BotContext(bot, task, pool, gateway=self._gateway, deadline=deadline, share=self._share)
        answer: str | None = None
        error: FleetError | None = None
        try:
            answer = await self._answer_in_time(task, context, deadline)
        except DeadlineExceeded as late:
            error = _explain_deadline(late, allowed_s, context.meter)
        except FleetError as failure:
            error = failure
        except Exception as bug:  # noqa: BLE001 - the task boundary: recorded, and every task has an Outcome
            error = _record_bug(bug, task_id, bot)
        return self._outcome(context, answer, error, clock() - started)

    async def _answer_in_time(self, task: BotTask, context: BotContext, deadline: float) -> str:
        """Return the answer; enforce the deadline by cancelling the work wherever it stands."""
        if deadline <= asyncio.get_running_loop().time():
            raise DeadlineExceeded("its time was over before it began")
        scope = asyncio.timeout_at(deadline)
        try:
            async with scope:
                answer = await self._answer(task, context)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded("its time ran out") from error
        if scope.expired():
            raise DeadlineExceeded("its time ran out, and the bot function did not stop when it was cancelled")
        return answer

    async def _answer(self, task: BotTask, context: BotContext) -> str:
        function = self._functions.get(context.pool)
        if function is None:
            return await context.chat(task.conversation())
        return await self._runner.run(function, task, context)

    def _outcome(self, context: BotContext, answer: str | None, error: FleetError | None, seconds: float) -> Outcome:
        meter, route = context.meter, self._gateway.route(context.pool)
        answered: Status = "degraded" if context.degraded else "ok"
        return Outcome(
            status="failed" if error else answered,
            answer=answer,
            error=error,
            usage=meter.usage,
            cost_usd_micros=meter.cost_usd_micros,
            attempts=meter.calls,
            provider_errors=dict(meter.failed),
            limited_ms=round(meter.limited_s * 1000),
            ran_ms=round(max(0.0, seconds - meter.limited_s) * 1000),
            provider=route.provider_name,
            model=route.model,
            simulated=route.simulated,
        )


def _explain_deadline(late: DeadlineExceeded, allowed_s: float, meter: Meter) -> DeadlineExceeded:
    """Say where the time went."""
    return DeadlineExceeded(
        f"expected an answer within {max(0.0, allowed_s):.1f} s, got none ({late}): {meter.limited_s:.1f} s waiting "
        f"under the limit, {meter.calling_s:.1f} s in {meter.calls} provider calls, "
        f"{meter.failed[RateLimited.__name__]} of them answered 429; raise deadline_s or the limit, or submit less"
    )


def _record_bug(bug: Exception, task_id: str, bot: Bot) -> FleetError:
    """Log where it happened, without the exception's message: it may quote the prompt."""
    frames = "".join(traceback.format_tb(bug.__traceback__))
    logger.error("task_crashed task=%s bot=%s error=%s\n%s", task_id, bot.name, type(bug).__name__, frames)
    return FleetError(
        f"expected an answer, got {type(bug).__name__} inside Fleet: a bug; the worker's log has the place"
    )
