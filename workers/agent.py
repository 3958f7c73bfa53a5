"""The agent: runs one task with one bot, and always comes back with an Outcome.

It owns the deadline and the task boundary. Retries of calls stand in `bot/context.py`; Celery, Redis, queues and
results are not known here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Callable

from fleet.config import Settings
from fleet.errors import BadAnswer, BotFunctionFailed, DeadlineExceeded, FleetError, HeldUp, RateLimited
from fleet.faults import Fault
from fleet.models import Bot, BotTask, Norms
from fleet.outcome import Outcome, Status
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.function import FunctionRunner, load_bot
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.user_function import FunctionThreads
from fleet.workers.bot.user_loops import Block, UserLoops
from fleet.workers.bot.validator import load_validator, validate
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway, Meter
from fleet.workers.judge import too_short

#: Threads that plain bot functions may have per slot: one at work, one left over from a task past its deadline.
THREADS_PER_SLOT = 2

logger = logging.getLogger(__name__)


class Agent:
    """Runs tasks. One per process, used from its event loop.

    Args:
        gateway: Where calls go.
        settings: Its pools and slots; the pools' bot functions and validators are loaded here.
        share: Fresh random numbers from 0 to 1, for jitter.
        on_block: Told when a user's `async def` function blocks its loop.

    Attributes:
        loops: Where users' `async def` functions run.

    Raises:
        ConfigurationError: When a pool's `function` or `validator` cannot be used.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        *,
        share: Callable[[], float] = random.random,
        on_block: Callable[[Block], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._pools = settings.pools
        self._share = share
        pools = self._pools.items()
        self._functions = {name: load_bot(pool.function) for name, pool in pools if pool.function}
        self._validators = {name: load_validator(pool.validator) for name, pool in pools if pool.validator}
        max_threads = settings.slots_per_process * THREADS_PER_SLOT
        self.loops = UserLoops(settings.worker.hang_s, on_block)
        self._runner = FunctionRunner(max_threads, self.loops)
        self._validator_threads = FunctionThreads(max_threads)

    async def run(
        self,
        task: BotTask,
        bot: Bot,
        *,
        task_id: str,
        deadline_s_left: float | None = None,
        norms: Norms | None = None,
        stop: asyncio.Event | None = None,
    ) -> Outcome:
        """Work on one task until it is done, has failed for good, or its time is over.

        Args:
            task: What to do.
            bot: Who does it; its pool decides the route and the function.
            task_id: For the log.
            deadline_s_left: Seconds until the task's absolute deadline; 0 or less fails at once and calls nobody.
                None: the task's `deadline_s`, else the pool's, from now on.
            norms: What is usual for the task's kind; None: no answer is too short.
            stop: Set before a cancellation that ends this bot's work only: the outcome tells what it has used.

        Returns:
            An Outcome, whatever happened. Any other cancellation from outside (the worker's end) is let through.

        Raises:
            HeldUp: Another task's function held it up for too long: it is to go back to its queue.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        pool = self._pools[bot.pool]
        allowed_s = (task.deadline_s or pool.deadline_s) if deadline_s_left is None else deadline_s_left
        deadline = Deadline(started + allowed_s)
        context = BotContext(bot, task, pool, gateway=self._gateway, deadline=deadline, share=self._share)
        answer: str | None = None
        error: FleetError | None = None
        try:
            answer = await self._answer_in_time(task, context, deadline)
        except asyncio.CancelledError:
            if stop is None or not stop.is_set():
                raise
            error = FleetError("expected an answer, got stopped: its bot was quarantined, or the task revoked")
        except HeldUp:
            raise
        except DeadlineExceeded as late:
            error = _explain_deadline(late, allowed_s, context.meter)
        except FleetError as failure:
            error = failure
        except Exception as bug:  # noqa: BLE001 - the task boundary: recorded, and every task has an Outcome
            error = _record_bug(bug, task_id, bot)
        return self._outcome(context, answer, error, clock() - started - deadline.stood_s, norms)

    async def close(self) -> None:
        """End what users' functions left running."""
        await self.loops.close()

    async def _answer_in_time(self, task: BotTask, context: BotContext, deadline: Deadline) -> str:
        """Return the answer; enforce the deadline by cancelling the work wherever it stands."""
        if deadline.left_s <= 0:
            raise DeadlineExceeded("its time was over before it began")
        scope = deadline.scope()
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
        answer = await (context.answer() if function is None else self._runner.run(function, task, context))
        validator = self._validators.get(context.pool)
        if validator is not None:
            try:
                await validate(
                    validator, task, answer,
                    threads=self._validator_threads, loops=self.loops, deadline=context.deadline,
                )  # fmt: skip
            except BadAnswer:
                context.bad_answers += 1
                raise
        return answer

    def _outcome(
        self, context: BotContext, answer: str | None, error: FleetError | None, seconds: float, norms: Norms | None
    ) -> Outcome:
        meter, route = context.meter, self._gateway.route(context.pool)
        answered: Status = "degraded" if context.degraded else "ok"
        ran_ms = round(max(0.0, seconds - meter.limited_s) * 1000)
        fault = _fault_of(error)
        reply = answer if isinstance(answer, ChatReply) else None
        is_call = reply is not None and bool(reply.tool_calls)
        if (
            answer is not None
            and not is_call
            and norms is not None
            and context.schema is None
            and too_short(answer, ran_ms, norms)
        ):
            fault = Fault.TOO_SHORT
        return Outcome(
            status="failed" if error else answered,
            answer=None if answer is None else str(answer),
            tool_calls=reply.tool_calls if reply is not None else (),
            more_answers=reply.others if reply is not None else (),
            tier=context.tier,
            sent=context.sent,
            error=error,
            usage=meter.usage,
            cost_usd_picos=meter.cost_usd_picos,
            attempts=meter.calls,
            provider_errors=dict(meter.failed),
            limited_ms=round(meter.limited_s * 1000),
            ran_ms=ran_ms,
            provider=route.provider_name,
            model=route.model,
            simulated=route.simulated,
            fault=fault,
            bad_answers=context.bad_answers,
            cut_tokens=meter.cut_tokens,
            left_out=tuple(sorted(meter.left_out)),
            reasoning=context.reasoning[: self._pools[context.pool].reasoning_chars],
        )


def _fault_of(error: FleetError | None) -> Fault | None:
    """Return what the bot may be to blame for; None when a provider, a key, the time or Fleet is."""
    if isinstance(error, BadAnswer):
        return None if error.fault is Fault.SPENT else error.fault or Fault.REJECTED
    return Fault.CRASHED if isinstance(error, BotFunctionFailed) and error.crashed else None


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
