"""Tool APIs in the hands of bot functions: what is not the task's fault is waited out, in the slot, as `chat()` does.

How one request goes: `tool_desk.py`; the clients that functions get: `tool_clients.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from fleet.errors import (
    ConfigurationError,
    GiveUp,
    NotSoon,
    ToolFailed,
    Waits,
)
from fleet.grants import Caller
from fleet.models import Bot, BotTask
from fleet.workers.bot.asker import LOOK_EVERY_S, SCATTER_S, Asker
from fleet.workers.bot.raw_asker import RawAsker
from fleet.workers.bot.sequel import out_of_tries, sequel_of
from fleet.workers.frameworks.tool_clients import AsyncToolTransport, BlockingToolTransport, Library, library
from fleet.workers.frameworks.tool_desk import ToolDesk
from fleet.workers.frameworks.tool_keys import OnceKeys
from fleet.workers.frameworks.tool_wire import ToolAnswer, ToolRequest, may_repeat

logger = logging.getLogger(__name__)


class ToolApis(ToolDesk):
    """The tool APIs of a process, in the hands of its bots. Arguments as `ToolDesk`."""

    def run(
        self,
        asker: RawAsker,
        bot: Bot,
        task: BotTask,
        *,
        max_attempts: int,
        share: Callable[[], float],
        rest: Callable[[Asker, float], Awaitable[None]],
    ) -> ToolRun:
        """Return the tools in the hands of one bot at work on one task.

        Args:
            asker: Its deadline, its meter and its tries.
            bot: Who works.
            task: What on.
            max_attempts: Failed requests until the task fails, counted while others do well.
            share: Fresh random numbers from 0 to 1, for jitter.
            rest: Waits so many seconds in the slot.
        """
        caller = Caller(bot=bot.name, priority=task.priority, kind=task.kind, tenant=task.tenant, run=task.run)
        return ToolRun(self, asker, caller, max_attempts=max_attempts, share=share, rest=rest)


class ToolRun:
    """The tools in the hands of one bot at work on one task: sends until there is an answer, or none will come.

    Arguments as `ToolDesk.run`, behind the desk and who calls.
    """

    def __init__(
        self,
        desk: ToolDesk,
        asker: RawAsker,
        caller: Caller,
        *,
        max_attempts: int,
        share: Callable[[], float],
        rest: Callable[[Asker, float], Awaitable[None]],
    ) -> None:
        self.desk = desk
        self._asker = asker
        self._caller = caller
        self._max_attempts = max_attempts
        self._share = share
        self._rest = rest
        self._once_keys = OnceKeys(asker.meter.who)

    def client(
        self, name: str, kind: Library | None, over: Callable[[Callable[[], Coroutine[Any, Any, ToolAnswer]]], Any], *,
        is_async: bool,
    ) -> Any:  # fmt: skip
        """Return a client of httpx or httpx2 that is bound to a tool. From any thread.

        Args:
            name: Under [tools].
            kind: Which library; None: the one that is installed.
            over: Runs a coroutine function on the data plane's loop: for asyncio's clients it returns an awaitable.
            is_async: For `async def` functions.

        Raises:
            ConfigurationError: There is no such tool or library, or (`KeyMissing`) its key is not set here. A function
                that lets it through goes back to its queue.
        """
        try:
            self.desk.check(name)
            module = library(kind)
        except ConfigurationError as error:
            self._asker.broken.append(error)
            raise
        misses, settings = partial(self.desk.misses, name), self.desk.settings_of(name)

        def ask(request: ToolRequest) -> Any:
            return over(partial(self.ask, name, request))

        made = module.AsyncClient if is_async else module.Client
        transport = (AsyncToolTransport if is_async else BlockingToolTransport)(module, misses, ask)
        return made(base_url=settings.base_url, transport=transport, timeout=settings.timeout_s, trust_env=False)

    async def ask(self, name: str, request: ToolRequest) -> ToolAnswer:
        """Send a request to a tool; wait out what is not the task's fault, as `chat()` does.

        A request that may have taken effect is not repeated, unless its method, its Idempotency-Key or the tool's
        `retry_unsafe` allows it: what the API answered is returned, with what it is to the task in `failed`.

        Raises:
            ToolFailed: Nobody knows what became of such a request.
            OutOfTries: Others did well, too often.
            GiveUp: As `ToolDesk.once`.
            ConfigurationError: There is no such tool.
        """
        request = self._once_keys.put_into(name, request)
        try:
            answer = await self._until_answered(name, request)
        except GiveUp as error:  # the function may let it through inside an error of its library
            self._asker.ended_by.append(error)
            if isinstance(error, ToolFailed):
                self._once_keys.is_unsure(name, request)
            raise
        if isinstance(answer.failed, ToolFailed):
            self._once_keys.is_unsure(name, request)
        return answer

    async def _until_answered(self, name: str, request: ToolRequest) -> ToolAnswer:
        failures, settings = 0, self.desk.settings_of(name)
        while True:
            try:
                answer = await self.desk.once(name, request, self._asker, self._caller)
                if not isinstance(answer.failed, Waits):
                    return answer
                error = answer.failed
                if not may_repeat(request, settings, error):
                    return replace(answer, failed=_unsure(name, request, error))
            except Waits as failed:
                error = failed
                if not may_repeat(request, settings, error):
                    raise _unsure(name, request, error) from error
            failures += not isinstance(error, NotSoon)
            await self._wait_out(error, failures, name)

    async def _wait_out(self, error: Waits, failures: int, name: str) -> None:
        """Wait in the slot until the request may be sent again, with the task's clock standing still."""
        sequel = sequel_of(
            error, failures=max(1, failures), share=self._share(), now_s=self.desk.now_s(),
            about=self.desk.limit_of(name),
        )  # fmt: skip
        if sequel.counts:
            self._asker.tries += sequel.counts
            if self._asker.tries >= self._max_attempts:
                raise out_of_tries(self._asker.tries, error) from error
        seconds = sequel.pause_s
        if sequel.is_shut:
            seconds = min(seconds, LOOK_EVERY_S) + self._share() * SCATTER_S
        with self.desk.standing(self._asker, name):
            await self._rest(self._asker, seconds)


def _unsure(name: str, request: ToolRequest, error: Waits) -> ToolFailed:
    return ToolFailed(
        f"{error}; expected an answer to a {request.method} of the tool {name}, which may have taken effect and so is "
        f"not repeated: if the API knows Idempotency-Keys, which each one carries, or repeating it does no harm, set "
        f"retry_unsafe = true in [tools.{name}]"
    )
