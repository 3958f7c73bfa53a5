"""A user's own validator: a Python function named by dotted path, asked about every answer of its pool.

How it is loaded and called is in `user_function.py` and `user_loops.py`.
"""

from __future__ import annotations

import inspect

from fleet.errors import BadAnswer, ConfigurationError, FleetError
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.quoting import QUOTED_CHARS
from fleet.workers.bot.user_function import FunctionThreads, UserFunction, load_function, raised
from fleet.workers.bot.user_loops import UserLoops
from fleet.workers.deadline import Deadline


def load_validator(path: str) -> UserFunction:
    """Import a validator.

    Args:
        path: `package.module:function`.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take `(task, answer)`.
    """
    return load_function(path, setting="validator", arguments=("task", "answer"))


async def validate(
    validator: UserFunction,
    task: BotTask,
    answer: str,
    *,
    threads: FunctionThreads,
    loops: UserLoops,
    deadline: Deadline,
) -> None:
    """Ask a validator about an answer: None and True are good; False and a str (the reason) reject it.

    An `async def` validator runs on the users' loop; a plain one in a thread of its own.

    Raises:
        HeldUp: Another function blocked the loop that it had begun on.
        BadAnswer: It rejected the answer. The reason is in the message, shortened.
        ConfigurationError: It raised or returned anything else: that tells nothing about the answer.
    """
    if validator.is_async:
        verdict = await loops.call(validator, task, answer, translate=_translate, deadline=deadline)
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
