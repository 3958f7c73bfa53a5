"""Functions that users give Fleet by dotted path: loading them at start, calling them without harm to the loop.

Plain functions run in a thread each, `async def` ones on the loop of `user_loops.py`. What they are for (a bot, a
validator) and what their answers mean is their callers' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import inspect
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fleet.config import config_path
from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import quote

#: What a user's module may raise while it is imported.
USER_ERRORS = (Exception, SystemExit, KeyboardInterrupt)


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
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ConfigurationError(f"{setting}: expected `package.module:function`, got {quote(path)}")
    module = _import(f"{setting} {path}", module_name)
    if not hasattr(module, name):
        raise ConfigurationError(f"{setting} {path}: expected {quote(name)} in {module_name}, got no such name")
    call = getattr(module, name)
    if not callable(call):
        raise ConfigurationError(f"{setting} {path}: expected a function, got {type(call).__name__}")
    _check_signature(f"{setting} {path}", call, arguments)
    is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None))  # noqa: B004
    return UserFunction(path, call, is_async)


def _import(what: str, module_name: str) -> ModuleType:
    found = config_path()
    folder = str(found.parent if found else Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(module_name)
    except USER_ERRORS as error:
        raise ConfigurationError(
            f"{what}: expected a module that can be imported, installed or in {folder}, "
            f"got {type(error).__name__}: {error}"
        ) from error


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
        at_most: Threads alive at once, those beyond their deadline included.
    """

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self._alive = 0  # changed on the event loop only

    @property
    def is_full(self) -> bool:
        """True when no further call may be made now."""
        return self._alive >= self.at_most

    async def call(self, function: UserFunction, *arguments: Any, name: str, translate: Translate) -> object:
        """Call a function and return what it returns; whatever it raises comes translated."""
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        work = contextvars.copy_context().run
        details = (self._work, function, arguments, translate, answer)
        threading.Thread(target=work, args=details, name=name, daemon=True).start()
        self._alive += 1
        return await answer

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
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            answer.get_loop().call_soon_threadsafe(self._done, answer, value, failure)

    def _done(self, answer: asyncio.Future[object], value: object, failure: FleetError | None) -> None:
        self._alive -= 1
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(value)


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
