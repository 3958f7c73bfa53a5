"""A user's own bot: a Python function named by dotted path, called once per task.

How it is loaded and called is in `user_function.py` and `user_loops.py`, what it gets in `elsewhere.py`; what becomes
of its answer is in `agent.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Sequence

from fleet.errors import BadAnswer, BotFunctionFailed, FleetError, Waits
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.user_function import (
    USER_ERRORS,
    FunctionThreads,
    Translate,
    UserFunction,
    load_function,
    raised,
)
from fleet.workers.bot.user_loops import UserLoops
from fleet.workers.frameworks.raw import REFUSAL

#: Seconds for which a task waits for a thread, until it goes back to its queue: other workers may have one.
PATIENCE_S = 5.0
#: Modules that take long to import, and what in a user's module says that its bot will be asked for them.
SDKS = {"openai": (".openai(",), "anthropic": (".anthropic(",), "httpx2": (".http_client(",)}
#: Exceptions behind an exception that are looked at (count).
MOST_CAUSES = 50


def load_bot(path: str) -> UserFunction:
    """Import a bot function.

    Args:
        path: `package.module:function`.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take `(task, bot)`.
    """
    function = load_function(path, setting="function", arguments=("task", "bot"))
    _load_sdks(function)
    return function


def _load_sdks(function: UserFunction) -> None:
    """Import the SDKs that a function's module asks its bot for: later that would block its loop for a second.

    What is not installed, or does not load, is told when it is asked for.
    """
    module = inspect.getmodule(function.call)
    try:
        source = "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):
        return
    for name, signs in SDKS.items():
        if any(sign in source for sign in signs):
            with contextlib.suppress(*USER_ERRORS):
                importlib.import_module(name)


class FunctionRunner:
    """Runs bot functions; plain ones in one daemon thread per task.

    Args:
        max_threads: Threads alive at once, those beyond their deadline included.
        loops: Where `async def` ones run.
    """

    def __init__(self, max_threads: int, loops: UserLoops) -> None:
        self._threads = FunctionThreads(max_threads, patience_s=PATIENCE_S)
        self._loops = loops

    async def run(self, function: UserFunction, task: BotTask, context: BotContext) -> str:
        """Call a bot function and return its answer.

        Raises:
            BotFunctionFailed: It raised, or returned something that is not text.
            BadAnswer: It returned None or empty text, or text that does not fit the task's schema. There is no repair:
                only its author knows whether the function may be called twice; it has the schema in its task.
            HeldUp: Another function blocked the loop that it had begun on, or others have all threads.
            MachineExhausted: There is no room for a thread.
            FleetError: What `chat()` raised and the function let through. A call that failed without a fault of the
                task's is let through also as the cause of what it raised, or in a group.
        """
        call = self._call_on_loop if function.is_async else self._call_in_thread
        answer = _checked(function, await call(function, task, context), context)
        return answer if isinstance(answer, ChatReply) and answer.tool_calls else await context.fitting(answer)

    async def _call_on_loop(self, function: UserFunction, task: BotTask, context: BotContext) -> object:
        bot = LoopBotContext(context)
        translate = _translator(context)
        try:
            return await self._loops.call(function, task, bot, translate=translate, deadline=context.deadline)
        finally:
            await bot.close()

    async def _call_in_thread(self, function: UserFunction, task: BotTask, context: BotContext) -> object:
        bot = BlockingBotContext(context)
        name, translate = f"bot-{context.name}", _translator(context)
        try:
            return await self._threads.call(
                function, task, bot, name=name, translate=translate, deadline=context.deadline
            )
        finally:
            await bot.close()


def _translator(context: BotContext) -> Translate:
    """Return what makes a task's error of what its function raises."""

    def translate(function: UserFunction, error: BaseException) -> FleetError:
        failed = _behind(error, context.broken, context.ended_by)
        if failed is not None:
            return failed
        if isinstance(error, FleetError) and not isinstance(error, Waits):
            return error
        return BotFunctionFailed(f"{function.path}: expected an answer, got {raised(error)}")

    return translate


def _behind(error: BaseException, broken: Sequence[Waits], ended_by: Sequence[FleetError]) -> FleetError | None:
    """Return the failed call that a function let through: what it raised, what that came of, or one of its group.

    Args:
        error: What the function raised.
        broken: Calls that failed through no fault of the task's.
        ended_by: What its SDKs' requests ended with for good. An SDK wraps it in an error of its own, or makes one of
            the refusal that it read.
    """
    noted: tuple[FleetError, ...] = (*broken, *ended_by)
    found: list[BaseException] = [error]
    for one in found:
        if isinstance(one, FleetError) and any(one is failed for failed in noted):
            return one
        if (refusal := _refusal_in(one)) is not None:
            return refusal
        more = [*(one.exceptions if isinstance(one, BaseExceptionGroup) else ()), one.__cause__]
        if noted and not one.__suppress_context__:  # frameworks name no cause when they raise their own error instead
            more.append(one.__context__)
        found += [other for other in more if other is not None and other not in found][: MOST_CAUSES - len(found)]
    return None


def _refusal_in(error: BaseException) -> FleetError | None:
    """Return what the answer is to Fleet that an SDK has made its error of."""
    extensions = getattr(getattr(error, "response", None), "extensions", None)
    refusal = extensions.get(REFUSAL) if isinstance(extensions, dict) else None
    return refusal if isinstance(refusal, FleetError) else None


def _checked(function: UserFunction, answer: object, context: BotContext) -> str:
    if isinstance(answer, ChatReply) and answer.tool_calls:
        return answer
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        context.bad_answers += 1
        got = "None" if answer is None else "empty text"
        raise BadAnswer(f"{function.path}: expected a str with the answer, got {got}", fault=Fault.EMPTY)
    if isinstance(answer, str):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
        raise BotFunctionFailed(f"{function.path}: expected a str, got a coroutine; declare the function `async def`")
    raise BotFunctionFailed(f"{function.path}: expected a str, got {type(answer).__name__}; json.dumps() it")
