"""How a bot asks until it has a usable answer: which failures are tried again, how often, and where it waits.

What is asked is `context.py`'s, what follows a failure `sequel.py`'s, limits, money and HTTP are the gateway's,
deadlines the agent's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from fleet.config import PoolSettings
from fleet.conversation import Message
from fleet.errors import BadAnswer, BadRequest, ContextTooLong, FleetError, NotSoon, Relearnt, Waits
from fleet.grants import Caller
from fleet.models import Bot, BotTask, Persona
from fleet.outcome import NOTHING_BEFORE, Before
from fleet.schema import compiled
from fleet.waits import Wait
from fleet.workers.backoff import full_jitter
from fleet.workers.bot import json_answer
from fleet.workers.bot.footing import Footing, Moved
from fleet.workers.bot.inquiry import FailedTry, Inquiry, MustWait, Spent, Told
from fleet.workers.bot.persona import heated
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.sequel import Sequel, out_of_tries, sequel_of
from fleet.workers.bot.window import LEAST_ROOM_TOKENS, room_of, tighter_room
from fleet.workers.bot.wishes import check_room
from fleet.workers.calls import CONTEXT_FULL, Completion, Wishes, staying
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway
from fleet.workers.judge import Judgement, judge_completion
from fleet.workers.load import sent_tokens
from fleet.workers.meter import Meter, most_of
from fleet.workers.providers.wire_schema import SchemaRefused
from fleet.workers.roads import PATIENCE_S
from fleet.workers.rungs import Route, Rung

#: Empty answers of a bot to one task, after which it is not asked again (count): each is paid.
MOST_EMPTY = 2
#: Calls in a row that may be repeated because a model refuses what they carried: each is to teach something new.
MOST_RELEARNT = 12
#: Longest pause (s) for which a task that has begun nothing keeps its slot.
PAUSE_IN_SLOT_S = 1.0
#: Longest sleep (s) of a task that keeps its slot before a road that is shut, until it looks again.
LOOK_EVERY_S = 15.0
#: What is added to such a sleep at most (s), so that those who wait for one time do not all come at it.
SCATTER_S = 0.25
#: How far away (s) the turn of a call may be for a task that keeps its slot anyway: so it keeps its place.
BEGUN_PATIENCE_S = 60.0
#: Rung of the diversity ladder that raises temperature, effort or verbosity.
HOTTEST_RUNG = 3


class Asker:
    """One bot that asks its model until there is a usable answer, or none will come. For one task, on the event loop.

    Attributes:
        meter: What the task has used so far.
        degraded: True once an answer was cut off at its token limit.
        bad_answers: Unusable answers of the bot so far, those that were asked for again included.
        reasoning: What the model thought before its last answer, where that is shown.
        schema: What the answer must fit; None: it may be any text.
        deadline: When the task is over.
        sent: What was sent otherwise than persona, pool and task say; None: it was left out.
        tier: Service tier of the last answer, if the provider says it.
        tries: Failed calls so far that count against `max_attempts`; those before a usable answer no longer do.
        is_begun: True once something was done that would be lost with the slot: an answer came, the user's function
            has begun. Such a task waits in its slot.
        may_leave: The task may be parked; else it waits in its slot whatever it waits for.
        broken: Calls that failed after a part of their answer was handed on: the user's function heard of each.

    Args:
        bot: Who works.
        task: What on.
        pool: Settings of the bot's pool.
        gateway: Where calls go.
        deadline: When the task is over.
        share: Fresh random numbers from 0 to 1, for jitter.
        task_id: The task.
        before: What the task has had; None: it cannot be parked, and always waits in its slot.
        spent_picos: What other bots have spent on the task, in 10^-12 dollars.
        on_wait: Told of a pool and its wait, when a task of it waits in its slot for what holds for all of them.
        rest: Waits so many seconds in the slot, and then until the task may go on: its slot may have been lent.
    """

    def __init__(
        self,
        bot: Bot,
        task: BotTask,
        pool: PoolSettings,
        *,
        gateway: Gateway,
        deadline: Deadline,
        share: Callable[[], float],
        task_id: str = "",
        before: Before | None = None,
        spent_picos: int = 0,
        on_wait: Callable[[str, Wait], None] = lambda pool, wait: None,
        rest: Callable[[Asker, float], Awaitable[None]] | None = None,
    ) -> None:
        self._bot = bot
        self._task = task
        self._pool = pool
        self._caller = Caller(bot=bot.name, priority=task.priority, kind=task.kind, tenant=task.tenant, run=task.run)
        self._max_output_tokens = task.max_output_tokens or pool.max_output_tokens
        self._sets_its_length = task.max_output_tokens is not None
        self._max_attempts = pool.max_attempts
        self._by_at = None if task.by_s is None else gateway.now_s() + task.by_s
        self._gateway = gateway
        self.deadline = deadline
        self._share = share
        self.schema = None if task.answer_schema is None else compiled(task.answer_schema)
        may_tell = self.may_be_told if pool.own_bot is None else _never  # what a call means, its author knows
        self._footing = Footing(
            gateway.ladders, bot.pool, model=bot.persona.model, priority=task.priority, may_be_told=may_tell,
            now_s=gateway.now_s,
        )  # fmt: skip
        self._on_wait, self._rest = on_wait, rest or (lambda _, seconds: asyncio.sleep(seconds))
        self._before = before or NOTHING_BEFORE
        self._keeps_slot = self.is_begun = before is None
        self.may_leave = not self._keeps_slot
        self.broken: list[Waits] = []
        self._anew, self._empty, self._is_answered = 0, 0, False
        self.tries, self._in_a_row = self._before.tries, 0.0
        self._failures = sum(self._before.failed.values())
        most = most_of(task.max_cost_usd or pool.max_cost_usd, spent_picos)
        self.meter = Meter.of(task_id, self._before, most_picos=most)
        self.degraded = False
        self.bad_answers = 0
        self.reasoning = ""
        self.sent: dict[str, Any] = {}
        self.tier: str | None = None

    @property
    def name(self) -> str:
        """Name of the bot."""
        return self._bot.name

    @property
    def pool(self) -> str:
        """Name of the bot's pool."""
        return self._bot.pool

    @property
    def persona(self) -> Persona:
        """Archetype, system prompt, temperature and context window of the bot."""
        return self._bot.persona

    @property
    def route(self) -> Route:
        """Where the next call goes, or the last one went."""
        return self._footing.route

    @property
    def rung(self) -> Rung:
        """The rung of the pool's ladder that this is."""
        return self._footing.rung

    def may_be_told(self, text: str) -> bool:
        """True when the text of the ladder's last rung can stand for this task's answer."""
        return self.schema is None or not json_answer.read(text, self.schema)[1]

    def _raised(self, wishes: Wishes) -> Wishes:
        """Return what is asked on the ladder's last rung: more effort or words where there is no temperature."""
        remedy = self._bot.remedy
        if remedy is None or remedy.rung < HOTTEST_RUNG:
            return wishes
        if self.persona.temperature is not None and not self._gateway.refuses(self.route, "temperature"):
            return wishes
        fixed = {name for name in ("effort", "verbosity") if self._gateway.refuses(self.route, name)} | wishes.asked
        raised = heated(wishes, fixed)
        self.sent |= raised
        return replace(
            wishes, effort=raised.get("effort", wishes.effort), verbosity=raised.get("verbosity", wishes.verbosity)
        )

    def _room(self, wanted_tokens: int) -> int:
        return room_of(self.persona.context_window_tokens, wanted_tokens, self._gateway.measure(self.route))

    async def _ask(self, inquiry: Inquiry, more_tokens: int) -> ChatReply:
        """Call until there is a usable answer, or none will come; anew when the next call goes to another rung."""
        while True:
            try:
                return await self._ask_here(inquiry, more_tokens)
            except Moved:
                if inquiry.is_formed:
                    raise

    async def _ask_here(self, inquiry: Inquiry, more_tokens: int) -> ChatReply:
        """Ask one rung. Never the same call for a model that had no room."""
        if self._footing.has_others and await self._find_rung() and inquiry.is_formed:
            raise Moved
        check_room(inquiry.wishes, inquiry.max_output_tokens)
        raised = self._raised(inquiry.wishes)
        if raised is not inquiry.wishes:
            inquiry = replace(inquiry, wishes=raised)
        try:
            return await self._until_usable(inquiry)
        except Spent as spent:
            other = None if inquiry.has_told else self._with_less_thinking(inquiry, spent, more_tokens)
            if other is None:
                return self._take(spent.completion, spent.judgement)
            self.sent |= other.otherwise_than(inquiry)
            try:
                return await self._until_usable(
                    other,
                    may_relearn=other.wishes == inquiry.wishes,
                    may_wait=spent.judgement.error is not None,  # a few words are there already: not for more
                )
            except Spent as again:
                return self._take(again.completion, again.judgement)
            except FleetError as error:
                is_refused = isinstance(error, BadRequest | Relearnt)  # beyond its own bound, or it knows no effort
                if spent.judgement.error is not None and not is_refused:
                    raise
                return self._take(spent.completion, spent.judgement)

    def _with_less_thinking(self, inquiry: Inquiry, spent: Spent, more_tokens: int) -> Inquiry | None:
        measure = self._gateway.measure(self.route)
        window = min(self.persona.context_window_tokens, measure.window_tokens or self.persona.context_window_tokens)
        left = window - round(spent.sent_tokens * measure.ratio) - inquiry.max_output_tokens
        return inquiry.with_less_thinking(
            min(more_tokens, left), may_ease=not self._gateway.refuses(self.route, "effort")
        )

    async def _until_usable(self, inquiry: Inquiry, *, may_relearn: bool = True, may_wait: bool = True) -> ChatReply:
        messages = await inquiry.fitted(self._room(inquiry.max_output_tokens))
        relearnt, tighter = 0, False
        while True:
            try:
                if self._footing.has_others and self._footing.find(self.deadline.left_s):
                    raise Moved
                return await self._try(inquiry, messages)
            except SchemaRefused:
                raise
            except Relearnt as error:
                relearnt += 1
                if relearnt > MOST_RELEARNT or not may_relearn:
                    raise BadRequest(str(error)) from error
            except ContextTooLong as error:
                room = self._tighter_room(error, inquiry, messages)
                if tighter or room < LEAST_ROOM_TOKENS:
                    raise BadRequest(str(error), blame="prompt") from error
                messages, tighter = await inquiry.fitted(room), True
            except Waits as error:
                if not may_wait:
                    raise
                await self._wait_out(error)
            except FailedTry as failed:
                await self._stand(self._pause_after(failed.error))

    async def _find_rung(self) -> bool:
        """Find the rung for the next call; wait while there is none. True when it is another one than before."""
        before = self._footing.rung
        while True:
            try:
                self._footing.find(self.deadline.left_s)
            except NotSoon as error:
                await self._wait_out(error)
            else:
                return self._footing.rung is not before

    async def begin_anew(self, error: Waits) -> None:
        """Wait until the user's function may begin anew, which a failed call has ended: nothing of it is left.

        Each time it waits longer. It counts as a failed call that can be repeated does, and also when others of this
        function's calls were answered: what they have cost is lost with them, and that must have an end.

        Raises:
            MustWait: The wait is long: the slot is for others meanwhile.
            OutOfTries: It has failed too often.
        """
        self.is_begun, self._anew = self._keeps_slot, self._anew + 1
        self.broken.clear()
        self._failures = max(self._failures, self._anew - 1)
        is_answered, self._is_answered = self._is_answered, False
        await self._wait_out(error, counts=is_answered)

    async def _wait_out(self, error: Waits, *, counts: bool = False) -> None:
        """Wait until a call may be tried again, or raise when this was the last one.

        Args:
            error: Why not now.
            counts: It counts in any case.

        Raises:
            MustWait: The wait is long, and nothing is begun: the slot is for others meanwhile.
            OutOfTries: Others did well, too often.
        """
        self._failures += not isinstance(error, NotSoon)
        now_s = self._gateway.now_s()
        sequel = sequel_of(error, failures=self._failures, share=self._share(), now_s=now_s, about=self.route.limit)
        if sequel.counts or counts:
            self.tries += max(sequel.counts, float(counts))
            self._in_a_row += 0.0 if counts else sequel.counts
            if self.tries >= self._max_attempts:
                raise out_of_tries(self.tries, error) from error
        if sequel.is_shut:
            shut = self._footing.missed(sequel.wait, self.deadline.left_s)
            if shut is None:  # another rung takes it
                return
            sequel = sequel.until(shut, now_s)
        elif self._footing.leaves(error, sequel.wait, failures=self._failures, left_s=self.deadline.left_s):
            return
        if not (self.is_begun or sequel.in_slot) and (sequel.is_shut or sequel.pause_s > PAUSE_IN_SLOT_S):
            raise MustWait(sequel.wait)
        await self._wait_here(sequel)

    async def _wait_here(self, sequel: Sequel) -> None:
        """Wait in the slot, with the clock standing still; no longer than to the next look where the road is shut."""
        seconds = sequel.pause_s
        if sequel.is_shut:
            seconds = min(seconds, LOOK_EVERY_S) + self._share() * SCATTER_S
            if sequel.wait.is_everyones:
                self._on_wait(self.pool, sequel.wait)
        with self.deadline.standing():
            await self._rest(self, seconds)

    async def _stand(self, seconds: float) -> None:
        with self.deadline.standing():
            await asyncio.sleep(seconds)

    def _tighter_room(self, error: ContextTooLong, inquiry: Inquiry, messages: tuple[Message, ...]) -> int:
        sent = sent_tokens(messages, inquiry.wishes)
        return tighter_room(error, sent, inquiry.max_output_tokens, self._gateway.measure(self.route))

    async def _try(self, inquiry: Inquiry, messages: tuple[Message, ...]) -> ChatReply:
        """Make one call and judge it; an answer that may be asked for again comes as `FailedTry`."""
        before_s = self.meter.calling_s
        try:
            completion = await self._gateway.chat(
                self.pool,
                messages,
                temperature=inquiry.temperature,
                max_output_tokens=inquiry.max_output_tokens,
                deadline=self.deadline,
                meter=self.meter,
                caller=self._caller,
                wishes=staying(inquiry.wishes) if self.is_begun else inquiry.wishes,
                streaming=inquiry.streaming,
                patience_s=BEGUN_PATIENCE_S if self.is_begun else PATIENCE_S,
                route=self.route,
            )
            self._is_answered = self.is_begun = True
            self._failures = 0
            if completion.finish_reason == CONTEXT_FULL:
                raise ContextTooLong("expected an answer, got none: the prompt has filled the model's context window")
            self._note(completion)
            self._footing.served(self.meter.calling_s - before_s, completion.came_by)
            judgement = judge_completion(completion, messages, in_json=inquiry.in_json or self.schema is not None)
            if judgement.spent:
                raise Spent(completion, judgement, sent_tokens(messages, inquiry.wishes))
            return self._take(completion, judgement)
        except FleetError as error:
            if inquiry.has_told:
                raise Told(error) from error
            raise

    def _take(self, completion: Completion, judgement: Judgement) -> ChatReply:
        """Return an answer that is usable, with all that is known of it noted; raise what is wrong with another."""
        error = judgement.error
        if error is None:
            self._did_well()
            self.degraded = self.degraded or judgement.degraded
            self.reasoning = completion.reasoning
            return ChatReply.of(completion)
        if judgement.spent:
            error.blame = "prompt" if self._sets_its_length else error.blame
        else:
            self.bad_answers += 1
            self._empty += judgement.retry
            if judgement.retry and self._empty < MOST_EMPTY:
                raise FailedTry(error)
        raise error

    def _did_well(self) -> None:
        """Forget what failed before a usable answer: of a run of many calls as many fail by chance as of many tasks."""
        self.tries, self._in_a_row = self.tries - self._in_a_row, 0.0

    def _note(self, completion: Completion) -> None:
        self.tier = completion.tier
        if completion.left_out:
            self.sent |= dict.fromkeys(completion.left_out)

    def _pause_after(self, error: BadAnswer) -> float:
        """Count an answer that was paid and is of no use; return the pause before the next, or raise at the last."""
        self.tries += 1
        if self.tries >= self._max_attempts:
            raise error
        return full_jitter(math.ceil(self.tries), share=self._share())


def _never(text: str) -> bool:
    return False
