"""A pydantic-ai `Agent` of the user's that a pool names: loading it, and running it as this bot on one task.

It is a bot function that Fleet writes: it runs where those run, and ends as they do.
"""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from typing import Any

import anyio.to_thread
import pydantic_core
from pydantic_ai import DeferredToolRequests
from pydantic_ai.agent import AbstractAgent, AgentRunResult
from pydantic_ai.capabilities import ReinjectSystemPrompt
from pydantic_ai.usage import UsageLimits

from fleet.errors import BotFunctionFailed, ConfigurationError, Waits
from fleet.models import BotTask
from fleet.workers.bot import json_answer
from fleet.workers.bot.context import BotContext
from fleet.workers.bot.elsewhere import LoopBotContext
from fleet.workers.bot.user_function import UserFunction, load_function, load_name
from fleet.workers.frameworks.agent_asks import laid_over, left_to_the_agent, told_of
from fleet.workers.frameworks.agent_errors import FailedTools, failed
from fleet.workers.frameworks.toolset_rooms import ToolsetRooms

#: Threads for plain tools of all agents on a loop (count): anyio's 40 would have tasks wait for each other's.
THREADS = 512
#: No limit of pydantic-ai's own: a run is bounded by Fleet's caps, `deadline_s` and `max_cost_usd`.
_LIMITS = UsageLimits(request_limit=None)


def load_agent(path: str, deps: str | None = None) -> UserFunction:
    """Import an agent, and what gives it its `deps`.

    Args:
        path: `package.module:agent`.
        deps: `package.module:function`, called with `(task, bot)`; None: the agent gets None.

    Raises:
        ConfigurationError: When one cannot be imported, or is not what it ought to be.
    """
    agent = load_name(
        path, setting="agent", wanted="agent", hint="leave the model out of Agent(...): the pool's is used"
    )
    if not isinstance(agent, AbstractAgent):
        raise ConfigurationError(f"agent {path}: expected a pydantic_ai.Agent, got {type(agent).__name__}")
    wanted = agent.deps_type
    if deps is None and inspect.isclass(wanted) and not isinstance(None, wanted):
        raise ConfigurationError(
            f"agent {path}: expected `deps`, as its deps_type is {wanted.__name__}, got none: name a function "
            'that makes them of (task, bot): deps = "package.module:function"'
        )
    given = None if deps is None else load_function(deps, setting="deps", arguments=("task", "bot"))
    return UserFunction(path, _AgentAsFunction(path, agent, given), is_async=True)


class _AgentAsFunction:
    """An agent as a bot function. No `__code__`: where it blocks its loop is told by the tool that does.

    Args:
        path: Of the agent.
        agent: The user's.
        deps: What makes its dependencies; None: it has none.
    """

    def __init__(self, path: str, agent: AbstractAgent[Any, Any], deps: UserFunction | None) -> None:
        self._path = path
        self._agent = agent
        self._deps = deps
        self._rooms = ToolsetRooms(path, agent)

    async def __call__(self, task: BotTask, bot: LoopBotContext) -> str:
        """Run the agent and return its output: a text as it is, all else as JSON.

        Raises:
            BadAnswer: The model has not come to an output that the agent takes.
            BotFunctionFailed: A tool has raised, or the output is none that Fleet can hand on.
        """
        tools = FailedTools()
        try:
            async with AsyncExitStack() as stack:
                await self._enter(stack, bot.context)
                result = await self._run(task, bot, tools)
        except Exception as error:
            if (known := failed(self._path, error, tools)) is None:
                raise
            raise known from error
        return _answer(self._path, result)

    async def _enter(self, stack: AsyncExitStack, context: BotContext) -> None:
        """Enter the rooms of the agent's tools; that they are not to be had is no fault of the task's."""
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = max(limiter.total_tokens, THREADS)
        try:
            await stack.enter_async_context(self._rooms.entered())
        except Waits as error:
            context.broken.append(error)
            raise

    async def _run(self, task: BotTask, bot: LoopBotContext, tools: FailedTools) -> AgentRunResult[Any]:
        model = bot.model()
        told = told_of(task, model.name)
        context = bot.context
        context.sent |= left_to_the_agent(task)
        model.asked = laid_over(task, context.options, context.persona, model.name)
        deps = None if self._deps is None else await _made(self._deps, task, bot)
        result = await self._agent.run(
            told.prompt,
            message_history=told.history or None,
            instructions=[*told.instructions, *self._form(context)] or None,
            model=model,
            deps=deps,
            model_settings=model.asked,
            usage_limits=_LIMITS,
            capabilities=[tools, ReinjectSystemPrompt()] if told.history else [tools],
            infer_name=False,
        )
        _note(result, context)
        return result

    def _form(self, context: BotContext) -> list[str]:
        """Return what an agent that answers in text is told of the task's schema; others have a form of their own."""
        if context.schema is None or self._agent.output_type is not str:
            return []
        return [json_answer.rules(context.schema, context.persona.context_window_tokens)]


async def _made(deps: UserFunction, task: BotTask, bot: LoopBotContext) -> object:
    """Return an agent's dependencies; a plain function makes them in a thread, as it may block."""
    if deps.is_async:
        return await deps.call(task, bot)
    return await anyio.to_thread.run_sync(deps.call, task, bot)


def _note(result: AgentRunResult[Any], context: BotContext) -> None:
    """Note of the last answer what a result tells: that it was cut off, and what the model thought."""
    last = result.response
    context.degraded = context.degraded or last.finish_reason == "length"
    context.reasoning = last.thinking or ""


def _answer(path: str, result: AgentRunResult[Any]) -> str:
    """Return an agent's output as a task's answer: a text as it is, all else as JSON."""
    output = result.output
    if isinstance(output, str):
        return output
    if isinstance(output, DeferredToolRequests):
        raise BotFunctionFailed(
            f"{path}: expected an output, got calls of tools that somebody is to run or approve: nobody is there"
        )
    try:
        return pydantic_core.to_json(output, by_alias=True).decode()
    except (pydantic_core.PydanticSerializationError, ValueError) as error:
        raise BotFunctionFailed(
            f"{path}: expected an output that can be written as JSON, got {type(output).__name__}"
        ) from error
