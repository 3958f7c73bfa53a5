"""The same bot in the hands of a user's function that runs elsewhere: on a loop of its own, or in a thread.

Its calls go over to the data plane's loop and work there. When the task ends, so do they.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from fleet.errors import ConfigurationError, DeadlineExceeded, FleetError
from fleet.models import Persona
from fleet.quoting import bare
from fleet.workers.bot.clients import AsyncClients, BlockingClients
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.turns import Prompt
from fleet.workers.bot.wishes import AnswerForm, ChatOptions
from fleet.workers.frameworks.extra import from_the_extra
from fleet.workers.frameworks.raw import RawAnswer, RawRequest
from fleet.workers.loops.crossing import Crossing

T = TypeVar("T")

if TYPE_CHECKING:
    from fleet.workers.frameworks.bot_model import BotModel

_STOPPED = "expected a running worker, got a stopped one: return from your function"


class _Elsewhere:
    """What both kinds share. Made on the data plane's loop, closed there when the task ends."""

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def context(self) -> BotContext:
        """The bot where it works, on the data plane's loop: for Fleet's own code."""
        return self._context

    @property
    def name(self) -> str:
        """Name of the bot."""
        return self._context.name

    @property
    def pool(self) -> str:
        """Name of the bot's pool."""
        return self._context.pool

    @property
    def persona(self) -> Persona:
        """Archetype, system prompt, temperature and context window of the bot."""
        return self._context.persona

    def model(self, *, persona: bool = True) -> BotModel:
        """Return this bot as a model of pydantic-ai.

        Args:
            persona: The persona's system prompt comes before all that an agent says.

        Raises:
            ConfigurationError: When the extra `agents` is not installed; a task whose function lets it through waits.
        """
        try:
            found: BotModel = from_the_extra("bot_models", asked="bot.model()").model_of(
                self._context, self._exchange_anywhere, has_persona=persona
            )
        except ConfigurationError as error:
            self.lacks(error)
            raise
        return found

    async def _exchange_anywhere(self, request: RawRequest) -> RawAnswer:
        """Do what `BotContext.exchange` does, from any loop, for who can write the request anew for another rung."""
        return await self._over(partial(self._context.exchange, replace(request, may_move=True)))

    def lacks(self, error: ConfigurationError) -> None:
        """Note that this machine lacks what the function asks for."""
        self._context.lacks(error)

    async def close(self) -> None:
        """End the task: cancel what its function waits for, refuse what it asks for later."""
        self._closed = True
        running = tuple(self._running)
        for call in running:
            call.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._context.end_streams()

    async def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make one call, on the data plane's loop."""
        if self._closed:
            raise DeadlineExceeded("expected a call before the task ended, got it after: return from your function")
        call = asyncio.current_task()
        assert call is not None
        self._running.add(call)
        try:
            return await work()
        except (FleetError, asyncio.CancelledError) as error:
            raise bare(error)  # noqa: B904 - it is the same one
        finally:
            self._running.discard(call)

    async def _over(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        call = Crossing(self._run(work))
        try:
            return await call.over(self._loop)
        except RuntimeError as error:
            if self._loop.is_closed():
                raise DeadlineExceeded(_STOPPED) from error
            raise


class LoopBotContext(_Elsewhere, AsyncClients):
    """The bot for an `async def` function. Any loop of the user's may await its calls, several at once."""

    async def chat(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        answer_schema: AnswerForm | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """Do what `BotContext.chat` does, on the data plane's loop; a cancellation here cancels it there.

        Raises:
            DeadlineExceeded: Also when the task ended while its function went on.
        """
        chat = partial(
            self._context.chat,
            prompt,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            answer_schema=answer_schema,
            **options,
        )
        return await self._over(chat)

    async def stream(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncGenerator[str]:
        """Do what `chat()` does, and yield the text piece by piece, as it comes.

        What fails before the first piece is tried again; what fails after it is raised in its place. Leaving the loop
        ends the call, which is charged with what came.

        Raises:
            ProviderUnavailable: The answer broke off.
            FleetError: As `chat()`; a refusal or a loop may be known only at the end.
        """
        here, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def emit(piece: str) -> None:
            with contextlib.suppress(RuntimeError):  # the function's loop is closed: nobody listens any more
                here.call_soon_threadsafe(pieces.put_nowait, piece)

        stream = partial(
            self._context.stream, prompt, emit, temperature=temperature, max_output_tokens=max_output_tokens, **options
        )
        work = asyncio.ensure_future(self._over(stream))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await work
        finally:
            work.cancel()
            await asyncio.wait({work})

    async def exchange(self, request: RawRequest) -> RawAnswer:
        """Do what `BotContext.exchange` does, on the data plane's loop; its clients send with this."""
        return await self._over(partial(self._context.exchange, request))

    def tool_client(self, name: str, *, kind: str | None = None) -> Any:
        """Return an `httpx.AsyncClient` (or `httpx2`'s) that is bound to the tool API under [tools.NAME].

        Its requests keep to the tool's limits over the whole fleet and carry its key; what is not the task's fault is
        waited out (docs/tools.md).

        Args:
            name: Of the tool.
            kind: `httpx` or `httpx2`; None: the one that is installed.

        Raises:
            ConfigurationError: There is no such tool or library, or its key is not set: let it through, and the task
                waits.
        """
        return self._context.tool_client(name, kind, self._over, is_async=True)


class BlockingBotContext(_Elsewhere, BlockingClients):
    """The bot for a plain function in a thread of its own: `chat()` blocks that thread, never the event loop."""

    def chat(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        answer_schema: AnswerForm | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """Do what `BotContext.chat` does, and wait for it.

        Raises:
            DeadlineExceeded: Also when the task ended while its function went on.
        """
        chat = partial(
            self._context.chat,
            prompt,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            answer_schema=answer_schema,
            **options,
        )
        return self._result(self._begin(chat))

    def stream(
        self,
        prompt: Prompt,
        *,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        **options: Unpack[ChatOptions],
    ) -> Generator[str]:
        """Do what `chat()` does, and yield the text piece by piece: as `LoopBotContext.stream`, in this thread."""
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        emit, limit = pieces.put, max_output_tokens
        work = self._begin(
            partial(self._context.stream, prompt, emit, temperature=temperature, max_output_tokens=limit, **options)
        )
        work.add_done_callback(lambda _: pieces.put(None))
        try:
            while (piece := pieces.get()) is not None:
                yield piece
            self._result(work)
        finally:
            work.cancel()

    def exchange(self, request: RawRequest) -> RawAnswer:
        """Do what `BotContext.exchange` does, and wait for it; its clients send with this."""
        return self._result(self._begin(partial(self._context.exchange, request)))

    def tool_client(self, name: str, *, kind: str | None = None) -> Any:
        """Return an `httpx.Client` (or `httpx2`'s) that is bound to a tool API: as `LoopBotContext.tool_client`."""
        return self._context.tool_client(name, kind, lambda work: self._result(self._begin(work)), is_async=False)

    def _begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        call = self._run(work)
        try:
            return asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError as error:
            call.close()
            raise DeadlineExceeded(_STOPPED) from error

    def _result(self, answer: concurrent.futures.Future[T]) -> T:
        try:
            return answer.result()
        except concurrent.futures.CancelledError as error:
            raise DeadlineExceeded("expected a call before the deadline, got it after: end your function") from error
