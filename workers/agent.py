"""The agent: runs one task with one bot, and always comes back with an Outcome.

It owns the deadline and the task boundary. Retries of calls stand in `bot/context.py`; Celery, Redis, queues and
results are not known here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from fleet.config import Settings
from fleet.errors import (
    BadAnswer,
    BotFunctionFailed,
    CapReached,
    ConfigurationError,
    DeadlineExceeded,
    FleetError,
    HeldUp,
    NotSoon,
    Waits,
)
from fleet.faults import Fault
from fleet.models import Bot, BotTask, Norms
from fleet.outcome import Before, Outcome, Parking, Status
from fleet.waits import Wait
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.footing import Instead
from fleet.workers.bot.function import FunctionRunner
from fleet.workers.bot.inquiry import MustWait
from fleet.workers.bot.peers import Peers
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.user_function import FunctionThreads, UserFunction
from fleet.workers.bot.user_loops import Block, UserLoops
from fleet.workers.bot.validator import Validator, load_validator
from fleet.workers.deadline import Deadline
from fleet.workers.frameworks.own_bots import load_own
from fleet.workers.gateway import Gateway
from fleet.workers.judge import too_short
from fleet.workers.meter import Meter
from fleet.workers.occupants import Occupants
from fleet.workers.rungs import Rung

if TYPE_CHECKING:  # loaded where there are tools
    from fleet.workers.frameworks.tools import ToolApis

#: Threads that plain bot functions may have per slot: one at work, one left over from a task past its deadline.
THREADS_PER_SLOT = 2

logger = logging.getLogger(__name__)


class Agent:
    """Runs tasks. One per process, used from its event loop.

    Args:
        gateway: Where calls go.
        settings: Its pools and slots; the pools' bot functions, agents and validators are loaded here.
        share: Fresh random numbers from 0 to 1, for jitter.
        on_block: Told when a user's `async def` function blocks its loop.
        on_wait: Told of a pool and its wait, when a task keeps its slot and waits for what holds for all of the pool.
        slots: How many tasks may run at once; by default as the settings say.
        peers_of: Other processes that serve a pool, for its validator; None: there are none.
        tools: The tool APIs of bot functions; None: there are none.

    Attributes:
        loops: Where users' `async def` functions run.
        shut: Why no task of a pool can be worked on here, by its name: its `function`, `agent` or `validator` is of no
            use.
        occupants: The tasks at work here.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        *,
        share: Callable[[], float] = random.random,
        on_block: Callable[[Block], None] | None = None,
        on_wait: Callable[[str, Wait], None] = lambda pool, wait: None,
        slots: Callable[[], int] | None = None,
        peers_of: Callable[[str], Peers | None] = lambda pool: None,
        tools: ToolApis | None = None,
    ) -> None:
        self._gateway = gateway
        self._tools = tools
        self._on_wait = on_wait
        self._pools = settings.pools
        self._share = share
        self.occupants = Occupants(slots or (lambda: settings.slots_per_process), gateway.roads.hanging)
        pools = self._pools.items()
        self.shut: dict[str, Wait] = {}
        self._functions = self._loaded(
            {name: partial(load_own, pool, _kinds_of(name, settings)) for name, pool in pools if pool.own_bot}
        )
        max_threads = settings.slots_per_process * THREADS_PER_SLOT
        self.loops = UserLoops(settings.worker.hang_s, on_block)
        self._runner = FunctionRunner(max_threads, self.loops)
        threads = FunctionThreads(max_threads)
        self._validators = {
            name: Validator(
                loaded,
                threads=threads,
                loops=self.loops,
                on_broken=partial(on_wait, name),
                peers=peers_of(name),
                now_s=gateway.now_s,
            )
            for name, loaded in self._loaded(
                {name: partial(load_validator, pool.validator) for name, pool in pools if pool.validator}
            ).items()
        }

    async def run(
        self,
        task: BotTask,
        bot: Bot,
        *,
        task_id: str,
        deadline_s_left: float | None = None,
        norms: Norms | None = None,
        stop: asyncio.Event | None = None,
        before: Before | None = None,
        spent_picos: int = 0,
    ) -> Outcome:
        """Work on one task until it is done, has failed for a reason of its own, or must wait.

        Args:
            task: What to do.
            bot: Who does it; its pool decides the route and the function.
            task_id: For the log.
            deadline_s_left: Seconds at work that are left to the task; 0 or less fails at once and calls nobody.
                None: the task's `deadline_s`, else the pool's.
            norms: What is usual for the task's kind; None: no answer is too short.
            stop: Set before a cancellation that ends this bot's work only: the outcome tells what it has used.
            before: What the task has had before it was parked (`NOTHING_BEFORE`: nothing): the outcome includes it.
                None: it cannot be parked, and waits here, however long.
            spent_picos: What other bots have spent on it beside that, in 10^-12 dollars: `max_cost_usd` is the task's.

        Returns:
            An Outcome, whatever happened; one with `parking` when the task must leave its slot to others and wait. Any
            other cancellation from outside (the worker's end) is let through.

        Raises:
            HeldUp: Other tasks' functions held it up for too long, and it cannot be parked: it is to begin anew.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        pool = self._pools[bot.pool]
        allowed_s = (task.deadline_s or pool.deadline_s) if deadline_s_left is None else deadline_s_left
        deadline = Deadline(started + allowed_s)
        context = BotContext(
            bot, task, pool, gateway=self._gateway, deadline=deadline, share=self._share, task_id=task_id,
            before=before, spent_picos=spent_picos, on_wait=self._on_wait, rest=self.occupants.rest,
        )  # fmt: skip
        if self._tools is not None:
            context.tools = self._tools.run(
                context, bot, task, max_attempts=pool.max_attempts, share=self._share, rest=self.occupants.rest
            )
        context.meter.failed_at = (before.since if before else 0.0) or self._gateway.now_s()
        answer: str | None = None
        error: FleetError | None = None
        wait: Wait | None = None
        told: Rung | None = None
        begins_anew = False
        self.occupants.enter(context)
        try:
            answer = await self._answer_in_time(task, context, deadline)
        except asyncio.CancelledError:
            if stop is None or not stop.is_set():
                raise
            error = FleetError("expected an answer, got stopped: its bot was quarantined, or the task revoked")
        except HeldUp as held_up:
            if before is None:
                raise
            logger.warning("held_up task=%s: %s; it goes back to its queue", task_id, held_up)
            begins_anew = True  # and had no part in this: none of its time is used
            wait = held_up.wait(opens_at=self._gateway.now_s())
        except MustWait as must:
            wait = must.wait
            error = NotSoon(wait) if before is None else None
        except DeadlineExceeded as late:
            worked_s = clock() - started - deadline.stood_s
            error = _explain_deadline(late, allowed_s, worked_s, context.meter)
        except Instead as instead:
            told = instead.rung
        except FleetError as failure:
            error = failure
        except Exception as bug:  # noqa: BLE001 - the task boundary: recorded, and every task has an Outcome
            error = _record_bug(bug, task_id, bot)
        finally:
            self.occupants.leave(context)
        ran_ms = 0 if begins_anew else round(max(0.0, clock() - started - deadline.stood_s) * 1000)
        if before is not None:
            ran_ms += before.ran_ms
        parking = None if wait is None or before is None else _parking(wait, before, context, ran_ms)
        outcome = self._outcome(task, context, answer, error, ran_ms, norms, parking)
        return outcome if told is None else _told(outcome, told)

    def _loaded(self, loads: Mapping[str, Callable[[], UserFunction]]) -> dict[str, UserFunction]:
        """Return what pools name, by their names; one that cannot be loaded shuts its own pool only."""
        found: dict[str, UserFunction] = {}
        for pool, load in loads.items():
            try:
                found[pool] = load()
            except ConfigurationError as error:
                self.shut[pool] = replace(error.wait(about=f"[pools.{pool}]"), is_everyones=True)
        return found

    def verdicts_at(self) -> dict[str, float]:
        """Return when validators that are in no doubt gave their last verdicts, Unix time (s), by their pools."""
        found = {pool: validator.given_at for pool, validator in self._validators.items()}
        return {pool: at for pool, at in found.items() if at is not None}

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
        finally:
            deadline.end()
        if scope.expired():
            raise DeadlineExceeded("its time ran out, and the bot function did not stop when it was cancelled")
        return answer

    async def _answer(self, task: BotTask, context: BotContext) -> str:
        if (shut := self.shut.get(context.pool)) is not None:
            raise MustWait(shut)
        function, validator = self._functions.get(context.pool), self._validators.get(context.pool)
        if validator is not None and not context.is_begun and (wait := validator.standing) is not None:
            raise MustWait(wait)
        if function is None:
            answer: str = await context.answer()
        else:
            answer = await self._answer_of(function, task, context)
        if validator is not None:
            try:
                may_leave = context.may_leave
                await validator.check(context.meter.who, task, answer, context.deadline, may_leave=may_leave)
            except BadAnswer:
                context.bad_answers += 1
                raise
        return answer

    async def _answer_of(self, function: UserFunction, task: BotTask, context: BotContext) -> str:
        """Return what the user's function answers; it begins anew when a call of it has failed, or no thread was there.

        What it had done until then took none of the task's time.
        """
        clock, deadline = asyncio.get_running_loop().time, context.deadline
        while True:
            if not context.is_begun:
                self._check_road(task, context)
            context.is_begun = True
            began, stood_s = clock(), deadline.stood_s
            try:
                return await self._runner.run(function, task, context)
            except HeldUp:  # by others' functions: it goes back to its queue
                raise
            except Waits as error:
                deadline.stand(clock() - began - (deadline.stood_s - stood_s))
                await context.begin_anew(error)

    def _check_road(self, task: BotTask, context: BotContext) -> None:
        """Begin no function whose first call would not leave soon, as far as this process has heard.

        Raises:
            MustWait: It would not.
            Instead: Nor need it: the text of the ladder's last rung is the answer.
        """
        ladders = self._gateway.ladders
        last = ladders.of(context.pool)[-1]
        may_tell = last.route is None and context.may_be_told(last.answer)
        found = ladders.choose(context.pool, priority=task.priority, may_tell=may_tell)
        if isinstance(found, Wait):
            raise MustWait(found)
        if found.route is None:
            raise Instead(found)

    def _outcome(
        self,
        task: BotTask,
        context: BotContext,
        answer: str | None,
        error: FleetError | None,
        ran_ms: int,
        norms: Norms | None,
        parking: Parking | None,
    ) -> Outcome:
        meter, route = context.meter, context.route
        answered: Status = "degraded" if context.degraded else "ok"
        fault = _fault_of(error)
        reply = answer if isinstance(answer, ChatReply) else None
        is_call = reply is not None and bool(reply.tool_calls)
        if (
            answer is not None
            and not is_call
            and norms is not None
            and context.rung.is_own
            and context.schema is None
            and too_short(answer, ran_ms, norms, is_cut=context.degraded, most_tokens=task.max_output_tokens)
        ):
            fault = Fault.TOO_SHORT
        return Outcome(
            status="failed" if error or parking else answered,
            parking=parking,
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
            raced=meter.raced,
            reasoning=context.reasoning[: self._pools[context.pool].reasoning_chars],
            rung=max(context.rung.number, 0),
        )


def _kinds_of(pool: str, settings: Settings) -> set[str]:
    """Return the kinds of the APIs that a pool's calls may go to."""
    return {settings.provider_named(provider).kind for provider, _ in settings.calls_of(pool)}


def _told(outcome: Outcome, rung: Rung) -> Outcome:
    """Return an outcome whose answer is the text of a ladder's last rung; what its calls have used stays in it."""
    return replace(
        outcome, status="degraded", answer=rung.answer, provider="", model="", simulated=False, rung=rung.number
    )


def _fault_of(error: FleetError | None) -> Fault | None:
    """Return what the bot may be to blame for; None when a provider, a key, the time or Fleet is."""
    if error is None:
        return None
    if isinstance(error, BadAnswer):
        return None if error.fault is Fault.SPENT else error.fault or Fault.REJECTED
    if isinstance(error, CapReached):
        return error.fault
    return Fault.CRASHED if isinstance(error, BotFunctionFailed) else None


def _parking(wait: Wait, before: Before, context: BotContext, ran_ms: int) -> Parking:
    """Return what a task goes back to Redis with."""
    meter = context.meter
    had = Before(
        tries=context.tries, attempts=meter.calls, failed=dict(meter.failed), usage=meter.usage,
        cost_usd_picos=meter.cost_usd_picos, limited_ms=round(meter.limited_s * 1000), ran_ms=ran_ms,
        parked=before.parked + 1, since=meter.failed_at,
    )  # fmt: skip
    return Parking(wait, had, sent=meter.calls > before.attempts, is_alone=not wait.is_everyones)


def _explain_deadline(late: DeadlineExceeded, allowed_s: float, worked_s: float, meter: Meter) -> DeadlineExceeded:
    """Say where the time went."""
    calling_s = max(0.0, meter.calling_s - meter.failed_s)
    return DeadlineExceeded(
        f"expected an answer within {max(0.0, allowed_s):.1f} s at work, got none ({late}): {calling_s:.1f} s in "
        f"{meter.calls} provider calls, {max(0.0, worked_s - calling_s):.1f} s beside them; waits and failed calls are "
        "not counted; raise deadline_s, or ask for less"
    )


def _record_bug(bug: Exception, task_id: str, bot: Bot) -> FleetError:
    """Log where it happened, without the exception's message: it may quote the prompt."""
    frames = "".join(traceback.format_tb(bug.__traceback__))
    logger.error("task_crashed task=%s bot=%s error=%s\n%s", task_id, bot.name, type(bug).__name__, frames)
    return FleetError(
        f"expected an answer, got {type(bug).__name__} inside Fleet: a bug; the worker's log has the place"
    )
