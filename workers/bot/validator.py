"""A user's own validator: a Python function named by dotted path, asked about every answer of its pool.

How it is loaded and called is in `user_function.py`.
"""

from __future__ import annotations

import inspect

from fleet.errors import BadAnswer, ConfigurationError, FleetError
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.quoting import QUOTED_CHARS
from fleet.workers.bot.user_function import FunctionThreads, UserFunction, call_async, load_function, raised


def load_validator(path: str) -> UserFunction:
    """Import a validator.

    Args:
        path: `package.module:function`.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take `(task, answer)`.
    """
    return load_function(path, setting="validator", arguments=("task", "answer"))


async def validate(validator: UserFunction, task: BotTask, answer: str, threads: FunctionThreads) -> None:
    """Ask a validator about an answer: None and True are good; False and a str (the reason) reject it.

    An `async def` validator runs on the event loop and must not block it; a plain one runs in a thread of its own.

    Raises:
        BadAnswer: It rejected the answer. The reason is in the message, shortened.
        ConfigurationError: It raised or returned anything else: that tells nothing about the answer.
    """
    if validator.is_async:
        verdict = await call_async(validator, task, answer, translate=_translate)
    elif threads.is_full:
        raise ConfigurationError(
            f"validator {validator.path}: expected at most {threads.at_most} threads, got that many still running; "
            "let it return sooner"
        )
    else:
        verdict = await threads.call(validator, task, answer, name="validator", translate=_translate)
    _check(validator, verdict)


def _check(validator: UserFunction, verdict: object) -> None:
    if verdict is None or verdict is True:
        return
    if verdict is False or isinstance(verdict, str):
        reason = f": {verdict[:QUOTED_CHARS]}" if verdict else ""
        raise BadAnswer(f"rejected: expected an answer that {validator.path} takes{reason}", fault=Fault.REJECTED)
    got = type(verdict).__name__
    if inspect.iscoroutine(verdict):
        verdict.close()
        got = "a coroutine; declare it `async def`"
    raise ConfigurationError(f"validator {validator.path}: expected None, True, False or a str (the reason), got {got}")


def _translate(validator: UserFunction, error: BaseException) -> FleetError:
    return ConfigurationError(
        f"validator {validator.path}: expected None, True, False or a str (the reason), got {raised(error)}"
    )
