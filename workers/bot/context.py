"""What a bot has in its hands while it works on one task: who it is, and `chat()`.

Here stands what is asked, and the one repair of an answer that does not fit the task's schema. How it is asked until
there is an answer: `asker.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Protocol, Unpack, cast

from fleet.asking import Asks
from fleet.config import PoolSettings
from fleet.conversation import Message
from fleet.errors import (
    BadRequest,
    ConfigurationError,
    FleetError,
    InvalidTask,
    Waits,
)
from fleet.schema import Misfit, Schema
from fleet.workers.bot import json_answer
from fleet.workers.bot.footing import Moved
from fleet.workers.bot.inquiry import Fitted, Inquiry, MustWait, Told
from fleet.workers.bot.persona import facet_of
from fleet.workers.bot.raw_asker import RawAsker
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.turns import Prompt, turns_of
from fleet.workers.bot.user_function import FunctionThreads, UserFunction
from fleet.workers.bot.window import check_documents, cut, with_documents
from fleet.workers.bot.wishes import AnswerForm, ChatOptions, asked_in_chat, schema_in_chat, wishes_of
from fleet.workers.calls import PLAIN, Wishes
from fleet.workers.context import KEPT_PROMPTS, reshuffle
from fleet.workers.document_ports import SharedText
from fleet.workers.load import beside_tokens
from fleet.workers.providers.wire_schema import SchemaRefused
from fleet.workers.streaming import Emit, Streaming
from fleet.workers.watching.circles import Track
from fleet.workers.watching.messages import noted, shown_in, wanted_in

#: Characters of an answer times rules of its schema that are checked on the event loop: some ms at most.
QUICK_CHECK = 40_000
#: Longest conversation that is cut to the window on the event loop, in turns and characters: 2 ms at most.
QUICK_TURNS, QUICK_TURN_CHARS = 500, 200_000

#: Times that a schema is asked at most: strictly, loosely, by the prompt, and once more as others learn meanwhile.
MOST_FORMS = 4

_READ = UserFunction("answer_schema", json_answer.read, is_async=False)
_CHECKS = FunctionThreads(at_most=32)


class ToolClients(Protocol):
    """The tool APIs that a bot's function may use."""

    def client(
        self, name: str, kind: Any, over: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any], *, is_async: bool
    ) -> Any:
        """Return a client that is bound to a tool: `frameworks/tools.py: ToolRun`."""
        ...


class BotContext(RawAsker):
    """One bot at work on one task, on the event loop. Arguments and attributes as `Asker`.

    Attributes:
        tools: The tool APIs in its hands; None: this process has none.
    """

    tools: ToolClients | None = None

    def tool_client(
        self, name: str, kind: Any, over: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any], *, is_async: bool
    ) -> Any:
        """Return a client of a tool API; arguments and errors as `ToolRun.client`."""
        if self.tools is None:
            error = ConfigurationError(f"expected [tools.{name}] in fleet.toml, got no [tools] in this worker's")
            error.about = f"[tools.{name}]"
            self.broken.append(error)
            raise error
        return self.tools.client(name, kind, over, is_async=is_async)

    @property
    def options(self) -> PoolSettings:
        """Settings of the bot's pool."""
        return self._pool

    async def chat(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        answer_schema: AnswerForm | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """Send the persona's system prompt and `prompt`, cut to the bot's window; return the model's text.

        The reply is a `str`; the tools that the model wants called, its thinking and the usage are attributes of it.

        What is not the task's fault is waited out: limits, outages, a key that is not taken. It is tried again until
        there were `max_attempts` failures in a row while others did well, or two empty answers to the task. A
        model that has spent its whole allowance on thinking is asked once more: with more room if the task, the pool
        and the window leave it some, else with less effort. A task's `answer_schema` is not told here: only the author
        of a bot function knows which of its chats gives the final answer, and passes `task.answer_schema` to that one.

        Args:
            prompt: A prompt or a conversation.
            temperature: Instead of the persona's.
            max_output_tokens: Instead of the task's or the pool's.
            answer_schema: A JSON schema, or a pydantic model class, that the answer must fit. It is asked for, checked
                and repaired once as that of a task is; the text is then bare JSON, unless the reply calls tools.
            options: Tools, effort and so on, by the names of `fleet.asking.Asks`, instead of the task's or the
                pool's. The task's own tools are the function's to offer.

        Raises:
            BadAnswer: Refused, in a loop, or empty once too often; or it does not fit, nor does the repaired one.
            NoProgress: It calls the same tools with the same results over and over, and was warned.
            CapReached: The run has had the turns or calls of tools that its pool allows.
            FleetError: Whatever else ended the call for good.
        """
        asked = partial(self._chat, prompt, temperature, max_output_tokens, options)
        return await asked(None if answer_schema is None else schema_in_chat(answer_schema))

    async def stream(
        self,
        prompt: Prompt,
        emit: Emit,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """Do what `chat()` does, and hand on each piece of the text as it comes.

        What fails before the first piece is tried again as in `chat()`; what fails after it is raised, as no text can
        be taken back. A function that lets it through begins anew.

        Args:
            prompt: A prompt or a conversation.
            emit: Gets each piece, on this loop.
            temperature: Instead of the persona's.
            max_output_tokens: Instead of the task's or the pool's.
            options: As for `chat()`.

        Raises:
            ProviderUnavailable: The answer broke off.
            BadAnswer: Refused, or in a loop, also after all of it was handed on.
            FleetError: As `chat()`.
        """
        try:
            return await self._chat(prompt, temperature, max_output_tokens, options, None, Streaming(emit))
        except Told as told:
            if isinstance(told.error, Waits):
                self.broken.append(told.error)
            raise told.error from told

    async def _chat(
        self,
        prompt: Prompt,
        temperature: float | None,
        max_output_tokens: int | None,
        options: ChatOptions,
        schema: Schema | None,
        streaming: Streaming | None = None,
    ) -> ChatReply:
        wishes = self._wishes(asked_in_chat(self._task, options, self._pool))
        turns = turns_of(prompt)
        track, told = self.run_watch.asks(shown_in(turns))
        if told is not None:
            turns = noted(turns, told)
        reply = await self._reply(turns, wishes, temperature, max_output_tokens, schema, streaming)
        self.run_watch.heard(track, wanted_in(reply.tool_calls))
        return reply

    def _wishes(self, asked: Asks, *, is_own: bool = False) -> Wishes:
        wishes = wishes_of(asked, self._pool, self.persona)
        if self._task.context:
            wishes = replace(wishes, prefix=self._task.prefix)
        if self._by_at is None or wishes.tier is not None:
            return wishes
        return replace(wishes, by_at=self._by_at, may_leave=is_own and self.may_leave, may_be_back=is_own)

    def _reply(
        self,
        turns: tuple[Message, ...],
        wishes: Wishes,
        temperature: float | None,
        max_output_tokens: int | None,
        schema: Schema | None,
        streaming: Streaming | None,
    ) -> Coroutine[Any, Any, ChatReply]:
        inquiry = self._inquiry(self._fitted(turns, wishes), wishes)
        if temperature is not None:
            wishes = replace(wishes, asked=wishes.asked | {"temperature"})
            inquiry = replace(inquiry, wishes=wishes, temperature=temperature)
        if streaming is not None or max_output_tokens:
            wanted = max_output_tokens or self._max_output_tokens
            inquiry = replace(inquiry, max_output_tokens=wanted, streaming=streaming)
        more_tokens = 0 if max_output_tokens else self._thinking_room_tokens
        if schema is not None:
            return self._in_json(schema, turns, inquiry, more_tokens)
        return self._ask(inquiry, more_tokens)

    @property
    def _thinking_room_tokens(self) -> int:
        """Output tokens that one repeat may have beyond those before: none where the task itself sets its length."""
        return 0 if self._sets_its_length else self._pool.thinking_room_tokens

    def _fitted(self, turns: tuple[Message, ...], wishes: Wishes) -> Fitted:
        beside = 0 if wishes is PLAIN else beside_tokens(wishes)
        return lambda room: self._conversation(turns, room, beside)

    async def answer(self) -> ChatReply:
        """Answer the task itself in one chat. With a schema the answer is bare JSON, and is repaired once if need be.

        The schema is told by the wire, strictly where the model takes it so; by the prompt where it takes none. An
        answer that calls tools needs no form.

        Raises:
            BadAnswer: As `chat()`; or it does not fit, nor does the repaired one.
            FleetError: Whatever else ended the call for good.
        """
        wishes = self._wishes(self._task, is_own=True)
        turns = self._task.conversation()
        reply = await self._reply(turns, wishes, None, None, self.schema, None)
        if reply.tool_calls:
            self.run_watch.heard(Track(), wanted_in(reply.tool_calls))
        return reply

    async def _in_json(self, schema: Schema, turns: tuple[Message, ...], plain: Inquiry, more_tokens: int) -> ChatReply:
        """Ask for an answer that fits a schema; return it as bare JSON, repaired once if need be.

        Args:
            schema: What it must fit.
            turns: The conversation.
            plain: What is asked, but for the schema.
            more_tokens: As `_ask`.
        """
        room = self._room(plain.max_output_tokens)
        told = json_answer.rules(schema, room)
        asked = partial(self._ask_for_json, schema, told, turns, plain, more_tokens)
        reply = await asked()
        if reply.tool_calls:
            return reply
        bare, misfits = await self._read(reply, schema)
        if misfits:
            self.bad_answers += 1
            self.degraded = False  # by the answer that is thrown away
            reply = await asked(json_answer.repair(bare, misfits, room))
            bare = await self._as_json(reply, schema)
        return reply.but(bare)

    def _inquiry(self, fitted: Fitted, wishes: Wishes) -> Inquiry:
        return Inquiry(fitted, self.persona.temperature, self._max_output_tokens, wishes)

    async def fitting(self, text: str) -> str:
        """Return a final answer as bare JSON when the task has a schema, else as it is.

        Raises:
            BadAnswer: When it does not fit.
        """
        return text if self.schema is None else await self._as_json(text, self.schema)

    async def _as_json(self, text: str, schema: Schema) -> str:
        bare, misfits = await self._read(text, schema)
        if misfits:
            self.bad_answers += 1
            hint = "; it was cut off: raise max_output_tokens" if self.degraded else ""
            raise json_answer.unfit(misfits, hint)
        return bare

    async def _read(self, text: str, schema: Schema) -> tuple[str, list[Misfit]]:
        """Read and check an answer; in a thread of its own when that may take long."""
        if len(text) * (1 + schema.size) <= QUICK_CHECK and not schema.may_be_slow:
            return json_answer.read(text, schema)
        found = await _CHECKS.call(
            _READ, text, schema, name="answer-schema", translate=_not_checked, deadline=self.deadline
        )
        return cast(tuple[str, list[Misfit]], found)

    async def _ask_for_json(
        self,
        schema: Schema,
        told: str,
        turns: tuple[Message, ...],
        plain: Inquiry,
        more_tokens: int,
        again: tuple[Message, ...] = (),
    ) -> ChatReply:
        """Ask in the form that the model takes; each form that it refuses is learnt, and the next one asked at once.

        A repair is told the schema by the prompt as well: what the wire does not enforce has gone wrong.
        """
        forms, wishes = 0, plain.wishes
        while forms < MOST_FORMS:
            await self._find_rung()
            form = self._gateway.form(self.route, schema)
            by_wire = wishes if form == "prompt" else replace(wishes, schema=schema, form=form)
            in_prompt = told if form == "prompt" or again else ""
            beside = json_answer.beside_tokens(in_prompt, again) + beside_tokens(by_wire)

            async def fitted(room: int, beside: int = beside, in_prompt: str = in_prompt) -> tuple[Message, ...]:
                kept = await self._conversation(turns, room, beside)
                return json_answer.with_rules(kept, in_prompt, again)

            if form != "strict":
                self.sent["answer_schema"] = form
            inquiry = replace(plain, fitted=fitted, wishes=by_wire, is_formed=True, in_json=True)
            try:
                reply = await self._ask(inquiry, more_tokens)
            except SchemaRefused:
                forms += 1
                continue
            except Moved:
                continue
            if form != "prompt" and not (reply.tool_calls or again):
                self._gateway.came(self.route, schema, is_json=self.degraded or json_answer.is_json(reply))
            return reply
        raise BadRequest("expected a model that takes a schema by its prompt at last, got one that refuses it")

    async def _conversation(self, turns: tuple[Message, ...], room: int, beside_tokens: int = 0) -> tuple[Message, ...]:
        """Return the persona's system prompt and `turns`, in the order of the bot's remedy, cut to `room` tokens.

        A long conversation is cut in a thread, which lets the event loop go on every few ms.
        """
        system = _system_message(self._system_prompt())
        if self._bot.remedy is not None:
            turns = reshuffle(turns, self._bot.remedy.generation)
        shared = await self._documents(room) if self._task.context else None
        if shared is not None:
            beside_tokens += shared.tokens
        cutting = partial(cut, (system, *turns), room, beside_tokens)
        is_long = len(turns) > QUICK_TURNS or sum([len(turn.text) for turn in turns]) > QUICK_TURN_CHARS
        kept, lost = await asyncio.to_thread(cutting) if is_long else cutting()
        if lost:
            self.meter.cut_tokens = max(self.meter.cut_tokens, lost)
        return kept if shared is None else with_documents(kept, shared)

    async def _documents(self, room: int) -> SharedText:
        """Return the documents that the task names, which are never cut.

        Raises:
            DocumentsTooLarge: They leave no room for anything else.
            MustWait: One is not stored any more.
        """
        if self._gateway.contexts is None:
            raise ConfigurationError("context: expected a process that reads shared documents, got one that does not")
        try:
            shared = await self._gateway.contexts.opened(self._task.context, self._task.tenant)
        except Waits as error:
            raise MustWait(replace(error.wait(), is_everyones=False)) from error
        check_documents(shared, room)
        return shared

    def _system_prompt(self) -> str:
        """Return the persona's; with a facet for a model that has no temperature by which its bots would differ."""
        if self.persona.temperature is not None and not self._gateway.refuses(self.route, "temperature"):
            return self.persona.system_prompt
        facet = facet_of(self._bot)
        if facet:
            self.sent["facet"] = facet
        return f"{self.persona.system_prompt} {facet}".rstrip()


@lru_cache(maxsize=KEPT_PROMPTS)
def _system_message(prompt: str) -> Message:
    """Return a system prompt as a message, which is made once: a bot's is the same with each of its tasks."""
    return Message(role="system", content=prompt)


def _not_checked(check: UserFunction, error: BaseException) -> FleetError:
    return InvalidTask(f"{check.path}: expected a schema that answers can be checked by, got {type(error).__name__}")
