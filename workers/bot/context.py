"""What a bot has in its hands while it works on one task: who it is, and `chat()`.

Here stand the retry rule of provider calls and the one repair of an answer that does not fit the task's schema. Limits,
money and HTTP are the gateway's; deadlines are the agent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Unpack, cast

from fleet.config import PoolSettings
from fleet.conversation import Message
from fleet.errors import (
    BadRequest,
    ContextTooLong,
    DeadlineExceeded,
    FleetError,
    InvalidTask,
    MachineExhausted,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
    StoreRefused,
    StoreUnavailable,
)
from fleet.models import Bot, BotTask, Caller, Persona
from fleet.schema import Misfit, Schema, compiled
from fleet.workers.backoff import full_jitter
from fleet.workers.bot import json_answer
from fleet.workers.bot.persona import facet_of, heated
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.turns import Prompt, turns_of
from fleet.workers.bot.user_function import FunctionThreads, UserFunction
from fleet.workers.bot.window import LEAST_ROOM_TOKENS, cut, room_of, tighter_room
from fleet.workers.bot.wishes import ChatOptions, asked_in_chat, check_room, wishes_of
from fleet.workers.context import reshuffle
from fleet.workers.deadline import Deadline
from fleet.workers.gateway import Gateway, Meter
from fleet.workers.judge import judge
from fleet.workers.load import beside_tokens, sent_tokens
from fleet.workers.ports import CONTEXT_FULL, PLAIN, Completion, Wishes
from fleet.workers.providers.wire_schema import SchemaRefused

#: Characters of an answer times rules of its schema that are checked on the event loop: some ms at most.
QUICK_CHECK = 40_000
#: Calls in a row that may be repeated because a model refuses what they carried: each is to teach something new.
MOST_RELEARNT = 12
#: Longest conversation that is cut to the window on the event loop, in turns and characters: 2 ms at most.
QUICK_TURNS, QUICK_TURN_CHARS = 500, 200_000

#: Times that a schema is asked at most: strictly, loosely, by the prompt, and once more as others learn meanwhile.
MOST_FORMS = 4
#: Rung of the diversity ladder that raises temperature, effort or verbosity.
HOTTEST_RUNG = 3

_READ = UserFunction("answer_schema", json_answer.read, is_async=False)
_CHECKS = FunctionThreads(at_most=32)


class BotContext:
    """One bot at work on one task, on the event loop.

    Attributes:
        meter: What the task has used so far.
        degraded: True once an answer was cut off at its token limit.
        bad_answers: Unusable answers of the bot so far, those that were asked for again included.
        schema: What the answer must fit; None: it may be any text.
        deadline: When the task is over.
        sent: What was sent otherwise than persona, pool and task say; None: it was left out.
        tier: Service tier of the last answer, if the provider says it.

    Args:
        bot: Who works.
        task: What on.
        pool: Settings of the bot's pool.
        gateway: Where calls go.
        deadline: When the task is over.
        share: Fresh random numbers from 0 to 1, for jitter.
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
    ) -> None:
        self._bot = bot
        self._task = task
        self._pool = pool
        self._caller = Caller(bot=bot.name, priority=task.priority, kind=task.kind, tenant=task.tenant)
        self._max_output_tokens = task.max_output_tokens or pool.max_output_tokens
        self._max_attempts = pool.max_attempts
        self._gateway = gateway
        self.deadline = deadline
        self._share = share
        self._turns = task.conversation()
        self._failures = 0
        self.meter = Meter()
        self.degraded = False
        self.bad_answers = 0
        self.sent: dict[str, Any] = {}
        self.tier: str | None = None
        self.schema = None if task.answer_schema is None else compiled(task.answer_schema)

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

    async def chat(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """Send the persona's system prompt and `prompt`, cut to the bot's window; return the model's text.

        The reply is a `str`; the tools that the model wants called, its thinking and the usage are attributes of it.

        429s are tried again until the deadline. Provider failures and empty answers are tried again until the task,
        over all its chats, has had `max_attempts` of them. A task's `answer_schema` is not told here: only the author
        of a bot function knows which of its chats gives the final answer.

        Args:
            prompt: A prompt or a conversation.
            temperature: Instead of the persona's.
            max_output_tokens: Instead of the task's or the pool's.
            options: Tools, effort and so on, by the names of `fleet.asking.Asks`, instead of the task's or the
                pool's. The task's own tools are the function's to offer.

        Raises:
            BadAnswer: Refused, in a loop, or empty once too often.
            FleetError: Whatever else ended the call for good.
        """
        asked = asked_in_chat(self._task, options, self._pool)
        wishes, warmth = wishes_of(asked, self._pool, self.persona), self.persona.temperature
        if temperature is not None:
            wishes, warmth = replace(wishes, asked=wishes.asked | {"temperature"}), temperature
        return await self._chat(turns_of(prompt), wishes, warmth, max_output_tokens or self._max_output_tokens)

    async def _chat(
        self, turns: tuple[Message, ...], wishes: Wishes, warmth: float | None, wanted_tokens: int
    ) -> ChatReply:
        beside = 0 if wishes is PLAIN else beside_tokens(wishes)
        return await self._ask(lambda room: self._conversation(turns, room, beside), wishes, warmth, wanted_tokens)

    async def answer(self) -> ChatReply:
        """Answer the task itself in one chat. With a schema the answer is bare JSON, and is repaired once if need be.

        The schema is told by the wire, strictly where the model takes it so; by the prompt where it takes none. An
        answer that calls tools needs no form.

        Raises:
            BadAnswer: As `chat()`; or it does not fit, nor does the repaired one.
            FleetError: Whatever else ended the call for good.
        """
        wishes = wishes_of(self._task, self._pool, self.persona)
        if self.schema is None:
            return await self._chat(self._turns, wishes, self.persona.temperature, self._max_output_tokens)
        room = self._room(self._max_output_tokens)
        told = json_answer.rules(self.schema, room)
        reply = await self._ask_for_json(self.schema, told, wishes)
        if reply.tool_calls:
            return reply
        bare, misfits = await self._read(reply, self.schema)
        if misfits:
            self.bad_answers += 1
            self.degraded = False  # by the answer that is thrown away
            again = json_answer.repair(bare, misfits, room)
            reply = await self._ask_for_json(self.schema, told, wishes, again)
            bare = await self.fitting(reply)
        return reply.but(bare)

    async def fitting(self, text: str) -> str:
        """Return a final answer as bare JSON when the task has a schema, else as it is.

        Raises:
            BadAnswer: When it does not fit.
        """
        if self.schema is None:
            return text
        bare, misfits = await self._read(text, self.schema)
        if misfits:
            self.bad_answers += 1
            hint = "; it was cut off: raise max_output_tokens" if self.degraded else ""
            raise json_answer.unfit(misfits, hint)
        return bare

    async def _read(self, text: str, schema: Schema) -> tuple[str, list[Misfit]]:
        """Read and check an answer; in a thread of its own when that may take long."""
        if len(text) * (1 + schema.size) <= QUICK_CHECK and not schema.may_be_slow:
            return json_answer.read(text, schema)
        if _CHECKS.is_full:
            raise InvalidTask(
                f"answer_schema: expected answers that are checked soon, got {_CHECKS.at_most} that still are; "
                "simplify the schema ($ref, contains)"
            )
        found = await _CHECKS.call(_READ, text, schema, name="answer-schema", translate=_not_checked)
        return cast(tuple[str, list[Misfit]], found)

    async def _ask_for_json(
        self, schema: Schema, told: str, wishes: Wishes, again: tuple[Message, ...] = ()
    ) -> ChatReply:
        """Ask in the form that the model takes; each form that it refuses is learnt, and the next one asked at once.

        A repair is told the schema by the prompt as well: what the wire does not enforce has gone wrong.
        """
        for _ in range(MOST_FORMS):
            form = self._gateway.form(self.pool, schema)
            by_wire = wishes if form == "prompt" else replace(wishes, schema=schema, form=form)
            in_prompt = told if form == "prompt" or again else ""
            beside = json_answer.beside_tokens(in_prompt, again) + beside_tokens(by_wire)

            async def fitted(room: int, beside: int = beside, in_prompt: str = in_prompt) -> tuple[Message, ...]:
                kept = await self._conversation(self._turns, room, beside)
                return json_answer.with_rules(kept, in_prompt, again)

            if form != "strict":
                self.sent["answer_schema"] = form
            try:
                reply = await self._ask(fitted, by_wire, self.persona.temperature, self._max_output_tokens)
            except SchemaRefused:
                continue
            if form != "prompt" and not (reply.tool_calls or again):
                self._gateway.came(self.pool, schema, is_json=self.degraded or json_answer.is_json(reply))
            return reply
        raise ProviderUnavailable("expected a model that takes a schema by its prompt at last, got one that refuses it")

    def _room(self, wanted_tokens: int) -> int:
        return room_of(self.persona.context_window_tokens, wanted_tokens, self._gateway.measure(self.pool))

    async def _conversation(self, turns: tuple[Message, ...], room: int, beside_tokens: int = 0) -> tuple[Message, ...]:
        """Return the persona's system prompt and `turns`, in the order of the bot's remedy, cut to `room` tokens.

        A long conversation is cut in a thread, which lets the event loop go on every few ms.
        """
        system = Message(role="system", content=self._system_prompt())
        if self._bot.remedy is not None:
            turns = reshuffle(turns, self._bot.remedy.generation)
        cutting = partial(cut, (system, *turns), room, beside_tokens)
        is_long = len(turns) > QUICK_TURNS or sum(len(turn.text) for turn in turns) > QUICK_TURN_CHARS
        kept, lost = await asyncio.to_thread(cutting) if is_long else cutting()
        if lost:
            self.meter.cut_tokens = max(self.meter.cut_tokens, lost)
        return kept

    def _system_prompt(self) -> str:
        """Return the persona's; with a facet for a model that has no temperature by which its bots would differ."""
        if self.persona.temperature is not None and not self._gateway.refuses(self.pool, "temperature"):
            return self.persona.system_prompt
        facet = facet_of(self._bot)
        if facet:
            self.sent["facet"] = facet
        return f"{self.persona.system_prompt} {facet}".rstrip()

    def _raised(self, wishes: Wishes) -> Wishes:
        """Return what is asked on the ladder's last rung: more effort or words where there is no temperature."""
        remedy = self._bot.remedy
        if remedy is None or remedy.rung < HOTTEST_RUNG:
            return wishes
        if self.persona.temperature is not None and not self._gateway.refuses(self.pool, "temperature"):
            return wishes
        fixed = {name for name in ("effort", "verbosity") if self._gateway.refuses(self.pool, name)} | wishes.asked
        raised = heated(wishes, fixed)
        self.sent |= raised
        return replace(
            wishes, effort=raised.get("effort", wishes.effort), verbosity=raised.get("verbosity", wishes.verbosity)
        )

    async def _ask(
        self,
        fitted: Callable[[int], Awaitable[tuple[Message, ...]]],
        wishes: Wishes,
        warmth: float | None,
        wanted_tokens: int,
    ) -> ChatReply:
        """Call until there is a usable answer, or none will come; `fitted` cuts to so many estimated tokens."""
        check_room(wishes, wanted_tokens)
        wishes = self._raised(wishes)
        messages = await fitted(self._room(wanted_tokens))
        limited = outages = 0  # neither has an end of its own: the task's deadline cancels the loop
        relearnt = tighter = 0
        while True:
            ends = self.deadline.at
            try:
                return await self._try(messages, wishes, warmth, wanted_tokens)
            except SchemaRefused:
                raise
            except Relearnt:
                relearnt += 1
                if relearnt > MOST_RELEARNT:
                    raise
                pause_s = 0.0
            except ContextTooLong as error:
                tighter += 1
                sent = sent_tokens(messages, wishes)
                room = tighter_room(error, sent, wanted_tokens, self._gateway.measure(self.pool))
                if tighter > 1 or room < LEAST_ROOM_TOKENS:
                    raise BadRequest(str(error), blame="prompt") from error
                messages = await fitted(room)
                pause_s = 0.0
            except DeadlineExceeded:
                if self.deadline.at == ends:
                    raise
                pause_s = 0.0  # it was refused by a deadline that has moved meanwhile
            except RateLimited:
                limited += 1
                pause_s = full_jitter(limited, share=self._share())  # the limiter holds; this only keeps from spinning
            except (StoreUnavailable, StoreRefused, MachineExhausted):
                outages += 1
                pause_s = full_jitter(outages, share=self._share())
            except _FailedTry as failed:
                pause_s = self._pause_after(failed.error)
            await asyncio.sleep(pause_s)

    async def _try(
        self, messages: tuple[Message, ...], wishes: Wishes, temperature: float | None, max_output_tokens: int
    ) -> ChatReply:
        """Make one call and judge it; what may be tried again within `max_attempts` comes as `_FailedTry`."""
        try:
            completion = await self._gateway.chat(
                self.pool,
                messages,
                temperature=temperature,
                max_output_tokens=max_output_tokens,
                deadline=self.deadline.at,
                meter=self.meter,
                caller=self._caller,
                wishes=wishes,
            )
        except ProviderUnavailable as error:
            if not error.passes:
                raise
            raise _FailedTry(error) from error
        if completion.finish_reason == CONTEXT_FULL:
            raise ContextTooLong("expected an answer, got none: the prompt has filled the model's context window")
        self._note(completion)
        if completion.tool_calls:
            return ChatReply.of(completion)
        in_json = self.schema is not None
        judgement = judge(completion.text, completion.finish_reason, messages, in_json=in_json)
        if judgement.error is not None:
            if isinstance(judgement.error, ProviderUnavailable):  # it broke off: no fault of the bot's
                self.meter.failed[ProviderUnavailable.__name__] += 1
            else:
                self.bad_answers += 1
            raise _FailedTry(judgement.error) if judgement.retry else judgement.error
        self.degraded = self.degraded or judgement.degraded
        return ChatReply.of(completion)

    def _note(self, completion: Completion) -> None:
        self.tier = completion.tier
        if completion.left_out:
            self.sent |= dict.fromkeys(completion.left_out)

    def _pause_after(self, error: FleetError) -> float:
        """Count a failed try; return the pause before the next one, or raise when there is none."""
        self._failures += 1
        floor_s = error.retry_after_s or 0.0 if isinstance(error, ProviderUnavailable) else 0.0
        pause_s = full_jitter(self._failures, share=self._share(), floor_s=floor_s)
        if self._failures >= self._max_attempts or pause_s >= self.deadline.left_s:
            raise error
        return pause_s


def _not_checked(check: UserFunction, error: BaseException) -> FleetError:
    return InvalidTask(f"{check.path}: expected a schema that answers can be checked by, got {type(error).__name__}")


class _FailedTry(Exception):
    """A try that failed in a way that counts as an attempt."""

    def __init__(self, error: FleetError) -> None:
        super().__init__(type(error).__name__)
        self.error = error
