"""A user's own bot: a Python function named by dotted path, called once per task.

How it is loaded and called is in `user_function.py` and `user_loops.py`, what it gets in `elsewhere.py`; what becomes
of its answer is in `agent.py`.
"""

from __future__ import annotations

import inspect

from fleet.errors import BadAnswer, BotFunctionFailed, FleetError
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.bot.reply import ChatReply
from fleet.workers.bot.user_function import FunctionThreads, UserFunction, load_function, raised
from fleet.workers.bot.user_loops import UserLoops


def load_bot(path: str) -> UserFunction:
    """Import a bot function.

    Args:
        path: `package.module:function`.

    Raises:
        ConfigurationError: When it cannot be imported, is not callable, or does not take `(task, bot)`.
    """
    return load_function(path, setting="function", arguments=("task", "bot"))


class FunctionRunner:
    """Runs bot functions; plain ones in one daemon thread per task.

    Args:
        max_threads: Threads alive at once, those beyond their deadline included.
        loops: Where `async def` ones run.
    """

    def __init__(self, max_threads: int, loops: UserLoops) -> None:
        self._threads = FunctionThreads(max_threads)
        self._loops = loops

    async def run(self, function: UserFunction, task: BotTask, context: BotContext) -> str:
        """Call a bot function and return its answer.

        Raises:
            BotFunctionFailed: It raised, or returned something that is not text.
            BadAnswer: It returned None or empty text, or text that does not fit the task's schema. There is no repair:
                only its author knows whether the function may be called twice; it has the schema in its task.
            HeldUp: Another function blocked the loop that it had begun on.
            FleetError: What `chat()` raised and the function let through.
        """
        call = self._call_on_loop if function.is_async else self._call_in_thread
        answer = _checked(function, await call(function, task, context), context)
        return answer if isinstance(answer, ChatReply) and answer.tool_calls else await context.fitting(answer)

    async def _call_on_loop(self, function: UserFunction, task: BotTask, context: BotContext) -> object:
        bot = LoopBotContext(context)
        try:
            return await self._loops.call(function, task, bot, translate=_translate, deadline=context.deadline)
        finally:
            await bot.close()

    async def _call_in_thread(self, function: UserFunction, task: BotTask, context: BotContext) -> object:
        if self._threads.is_full:
            raise BotFunctionFailed(
                f"{function.path}: expected at most {self._threads.at_most} threads, got that many still running; "
                "let the function return when chat() raises DeadlineExceeded",
                crashed=False,
            )
        bot = BlockingBotContext(context)
        try:
            return await self._threads.call(function, task, bot, name=f"bot-{context.name}", translate=_translate)
        finally:
            await bot.close()


def _translate(function: UserFunction, error: BaseException) -> FleetError:
    if isinstance(error, FleetError):
        return error
    return BotFunctionFailed(f"{function.path}: expected an answer, got {raised(error)}")


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
