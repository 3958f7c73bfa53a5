"""A user's own bot: a Python function named by dotted path, loaded once and called once per task.

`async def` functions run on the event loop, plain ones in a thread of their own. What they get is in
`bot_context.py`; what becomes of their answer is in `agent.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fleet.config import config_path
from fleet.errors import BadAnswer, BotFunctionFailed, ConfigurationError, FleetError, quote
from fleet.models import BotTask
from workers.bot_context import BlockingBotContext, BotContext

#: What a user's module may raise while it is imported.
USER_ERRORS = (Exception, SystemExit, KeyboardInterrupt)
#: Seconds that an `async def` function may take to end once it is cancelled.
LAST_WORD_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BotFunction:
    """A loaded bot function: its dotted path, the callable, and whether it is `async def`."""

    path: str
    call: Callable[[BotTask, Any], Any]
    is_async: bool


def load_function(path: str) -> BotFunction:
    """Import a bot function, from what is installed or from the folder of fleet.toml (else the working folder).

    That folder joins `sys.path` for good, at its end: the `celery` command does not put it there.

    Args:
        path: `package.module:function`.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take `(task, bot)`.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"function: expected `package.module:function`, got {quote(path)}")
    module = _import(path, module_name)
    if not hasattr(module, name):
        raise ConfigurationError(f"function {path}: expected {quote(name)} in {module_name}, got no such name")
    call = getattr(module, name)
    if not callable(call):
        raise ConfigurationError(f"function {path}: expected a function, got {type(call).__name__}")
    _check_signature(path, call)
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    return BotFunction(path, call, is_async)


def _import(path: str, module_name: str) -> ModuleType:
    found = config_path()
    folder = str(found.parent if found else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(module_name)
    except USER_ERRORS as error:
        raise ConfigurationError(
            f"function {path}: expected a module that can be imported, installed or in {folder}, "
            f"got {type(error).__name__}: {error}"
        ) from error


def _check_signature(path: str, call: Callable[..., Any]) -> None:
    try:
        inspect.signature(call).bind("task", "bot")
    except TypeError as error:
        raise ConfigurationError(f"function {path}: expected to be called with (task, bot), got: {error}") from error
    except ValueError:
        return  # a built-in without a signature: its first call will tell


class FunctionRunner:
    """Runs bot functions; plain ones in one daemon thread per task.

    A thread cannot be killed: a plain function that runs on after its deadline keeps its thread. A pool of threads
    would let such functions starve all later tasks and block the worker's exit; a thread per task costs some 0.1 ms
    and does neither. `max_threads` bounds how many there may be.

    Args:
        max_threads: Threads alive at once, those beyond their deadline included.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._threads = 0  # changed on the event loop only

    async def run(self, function: BotFunction, task: BotTask, context: BotContext) -> str:
        """Call a bot function and return its answer.

        Raises:
            BotFunctionFailed: It raised, or returned something that is not text.
            BadAnswer: It returned None or empty text.
            FleetError: What `chat()` raised and the function let through.
        """
        if function.is_async:
            answer = await _call_async(function, task, context)
        else:
            answer = await self._call_in_thread(function, task, context)
        return _checked(function, answer)

    async def _call_in_thread(self, function: BotFunction, task: BotTask, context: BotContext) -> object:
        if self._threads >= self._max_threads:
            raise BotFunctionFailed(
                f"{function.path}: expected at most {self._max_threads} threads, got that many still running; "
                "let the function return when chat() raises DeadlineExceeded"
            )
        bot = BlockingBotContext(context)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        work = contextvars.copy_context().run
        arguments = (self._work, function, task, bot, answer)
        threading.Thread(target=work, args=arguments, name=f"bot-{context.name}", daemon=True).start()
        self._threads += 1
        try:
            return await answer
        finally:
            await bot.close()

    def _work(
        self, function: BotFunction, task: BotTask, bot: BlockingBotContext, answer: asyncio.Future[object]
    ) -> None:
        """Body of the thread. Nothing leaves it but the answer or a FleetError."""
        outcome: object
        try:
            outcome = function.call(task, bot)
        except FleetError as error:
            outcome = error
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: whatever came, somebody waits for it
            outcome = _failed(function, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            answer.get_loop().call_soon_threadsafe(self._done, answer, outcome)

    def _done(self, answer: asyncio.Future[object], outcome: object) -> None:
        self._threads -= 1
        if answer.done():
            return
        if isinstance(outcome, FleetError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


async def _call_async(function: BotFunction, task: BotTask, context: BotContext) -> object:
    """Await the function in a task of its own, so that what it does to its task, or refuses to do, is not done to ours.

    When our time is over it is cancelled; one that does not end then is abandoned, and the slot is free all the same.
    """
    work = asyncio.ensure_future(_guarded(function, task, context))
    try:
        await asyncio.wait({work})
    except asyncio.CancelledError:  # the deadline or the worker's end
        work.cancel()
        await asyncio.wait({work}, timeout=LAST_WORD_S)
        if not work.done():
            logger.warning("function_abandoned function=%s hint=it_ignores_its_cancellation", function.path)
        elif not work.cancelled():
            work.exception()  # looked at: nobody waits for it any more
        raise
    try:
        return work.result()
    except (asyncio.CancelledError, GeneratorExit) as error:  # the function's own doing: we did not cancel it
        raise _failed(function, error) from error


async def _guarded(function: BotFunction, task: BotTask, context: BotContext) -> object:
    try:
        return await function.call(task, context)
    except (FleetError, asyncio.CancelledError, GeneratorExit):  # the last also ends a coroutine that is thrown away
        raise
    except BaseException as error:
        raise _failed(function, error) from error


def _checked(function: BotFunction, answer: object) -> str:
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        got = "None" if answer is None else "empty text"
        raise BadAnswer(f"{function.path}: expected a str with the answer, got {got}")
    if isinstance(answer, str):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
        raise BotFunctionFailed(f"{function.path}: expected a str, got a coroutine; declare the function `async def`")
    raise BotFunctionFailed(f"{function.path}: expected a str, got {type(answer).__name__}; json.dumps() it")


def _failed(function: BotFunction, error: BaseException) -> BotFunctionFailed:
    """Say what a user's code raised and where. Its message stays out: it may quote the prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown line"
    return BotFunctionFailed(f"{function.path}: expected an answer, got {type(error).__name__} raised at {where}")
