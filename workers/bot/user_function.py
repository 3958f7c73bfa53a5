"""Functions that users give Fleet by dotted path: loading them at start, calling them without harm to the loop.

Plain functions run in a thread each, `async def` ones on the loop of `user_loops.py`. What they are for (a bot, a
validator) and what their answers mean is their callers' business.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import importlib
import inspect
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fleet.config import config_path
from fleet.errors import ConfigurationError, FleetError, HeldUp, MachineExhausted
from fleet.quoting import quote
from fleet.workers.bot.quiet import quieten
from fleet.workers.deadline import Deadline

#: What a user's module may raise while it is imported.
USER_ERRORS = (Exception, SystemExit, KeyboardInterrupt)
#: Seconds between two log lines about threads that are all in use.
SAID_EVERY_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A loaded function: its dotted path, the callable, and whether it is `async def`."""

    path: str
    call: Callable[..., Any]
    is_async: bool


#: Turns what a function raised into the error that its task fails with.
Translate = Callable[[UserFunction, BaseException], FleetError]


def load_function(path: str, *, setting: str, arguments: tuple[str, ...]) -> UserFunction:
    """Import a function, from what is installed or from the folder of fleet.toml (else the working folder).

    That folder joins `sys.path` for good, at its end: the `celery` command does not put it there.

    Args:
        path: `package.module:function`.
        setting: Name of the setting that holds the path, for errors.
        arguments: Names of what it will be called with.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take the arguments.
    """
    call = load_name(path, setting=setting)
    if not callable(call):
        raise ConfigurationError(f"{setting} {path}: expected a function, got {type(call).__name__}")
    _check_signature(f"{setting} {path}", call, arguments)
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    return UserFunction(path, call, is_async)


def load_name(path: str, *, setting: str, wanted: str = "function", hint: str = "") -> object:
    """Import what a dotted path names, whatever it is: from where `load_function` says.

    Args:
        path: `package.module:name`.
        setting: Name of the setting that holds the path, for errors.
        wanted: What it ought to be, for errors.
        hint: What may be to blame if the module cannot be imported.

    Raises:
        ConfigurationError: When there is no such module, or no such name in it.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"{setting}: expected `package.module:{wanted}`, got {quote(path)}")
    quieten()
    module = _import(f"{setting} {path}", module_name, hint)
    if not hasattr(module, name):
        raise ConfigurationError(f"{setting} {path}: expected {quote(name)} in {module_name}, got no such name")
    return getattr(module, name)


def _import(what: str, module_name: str, hint: str) -> ModuleType:
    found = config_path()
    folder = str(found.parent if found else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(module_name)
    except USER_ERRORS as error:
        raise ConfigurationError(
            f"{what}: expected a module that can be imported, installed or in {folder}, "
            f"got {type(error).__name__}: {error}{_help(error, module_name, hint)}"
        ) from error


def _help(error: BaseException, module_name: str, hint: str) -> str:
    """Say what may help; a module that the user's own imports, and that is not there, is a package to install."""
    lacks = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    if lacks and lacks.partition(".")[0] != module_name.partition(".")[0]:
        return f"; install what brings {lacks.partition('.')[0]} where the workers run"
    return f"; {hint}" if hint else ""


def _check_signature(what: str, call: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    try:
        inspect.signature(call).bind(*arguments)
    except TypeError as error:
        wanted = ", ".join(arguments)
        raise ConfigurationError(f"{what}: expected to be called with ({wanted}), got: {error}") from error
    except ValueError:
        return  # a built-in without a signature: its first call will tell


def raised(error: BaseException) -> str:
    """Say what a user's code raised and where. Its message stays out: it may quote the prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown line"
    return f"{type(error).__name__} raised at {where}"


class FunctionThreads:
    """Plain functions at work, each in a daemon thread of its own.

    A thread cannot be killed: a function that runs on after its deadline keeps its thread. A pool of threads would let
    such functions starve all later tasks and block the worker's exit; a thread per call costs about 0.1 ms and does
    neither. On the event loop itself one slow function would hold up all bots of the process.

    Args:
        at_most: Threads alive at once, those beyond their deadline included. Who comes when all are in use waits, and
            its clock stands still: it pays for no neighbour.
        patience_s: For how long; None: until there is one.
    """

    def __init__(self, at_most: int, *, patience_s: float | None = None) -> None:
        self._at_most = at_most
        self._patience_s = patience_s
        self._alive = 0  # changed on the event loop only
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._said_at = -SAID_EVERY_S

    async def call(
        self, function: UserFunction, *arguments: Any, name: str, translate: Translate, deadline: Deadline
    ) -> object:
        """Call a function and return what it returns; whatever it raises comes translated.

        Raises:
            HeldUp: All threads were in use by others for too long; it was not called.
            MachineExhausted: The machine has no room for a thread; it was not called.
        """
        if self._alive < self._at_most:
            self._alive += 1
        else:
            with deadline.standing():
                await self._turn(function)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        work = contextvars.copy_context().run
        details = (self._work, function, arguments, translate, answer)
        try:
            threading.Thread(target=work, args=details, name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self._pass_on()
            raise MachineExhausted(
                f"expected a thread for {function.path}, got none from this machine ({type(error).__name__}); raise "
                "its limit of processes or memory, or lower worker.slots"
            ) from error
        return await answer

    async def _turn(self, function: UserFunction) -> None:
        """Wait until a thread ends, and take its place."""
        self._say(function)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise HeldUp(
                    f"{function.path}: all {self._at_most} threads of this process are in use, by functions that have "
                    "outlived their tasks too"
                ) from error
            raise

    def _say(self, function: UserFunction) -> None:
        now = time.monotonic()
        if now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            logger.warning(
                "function_threads_full function=%s threads=%d hint=let_it_return_or_restart_the_worker",
                function.path, self._at_most,
            )  # fmt: skip

    def _pass_on(self) -> None:
        """Give the place of a thread that has ended to who waits for one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._alive -= 1

    def _work(
        self, function: UserFunction, arguments: Any, translate: Translate, answer: asyncio.Future[object]
    ) -> None:
        """Body of the thread. Nothing leaves it but what the function returned, or a FleetError."""
        value: object = None
        failure: FleetError | None = None
        try:
            value = function.call(*arguments)
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: whatever came, somebody waits for it
            failure = translate(function, error)
        _close_loop()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            answer.get_loop().call_soon_threadsafe(self._done, answer, value, failure)

    def _done(self, answer: asyncio.Future[object], value: object, failure: FleetError | None) -> None:
        self._pass_on()
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(value)


def _close_loop() -> None:
    """Close the event loop that a function has left in its thread, as an agent's `run_sync` does: it holds files."""
    try:
        loop = asyncio.get_event_loop()
    except RuntimeError:
        return
    if not (loop.is_running() or loop.is_closed()):
        loop.close()


async def guarded(function: UserFunction, arguments: tuple[Any, ...], translate: Translate) -> object:
    """Await an `async def` function; whatever it raises comes translated, but its cancellation."""
    try:
        return await function.call(*arguments)
    except (asyncio.CancelledError, GeneratorExit):  # the last also ends a coroutine that is thrown away
        raise
    except BaseException as error:
        failure = translate(function, error)
        if failure is error:
            raise
        raise failure from error
