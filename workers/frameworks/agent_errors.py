"""What pydantic-ai raises, in Fleet's words: whether the model's answer is to blame, a tool, or the agent itself.

What a call's road has raised goes through as it is: it lies in the chain of causes, and `bot/function.py` finds it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    ContentFilterError,
    OutputTokenLimitExceeded,
    ToolRetryError,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
    UserError,
)
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import RunContext, ToolDefinition

from fleet.errors import BadAnswer, BotFunctionFailed, FleetError
from fleet.faults import Fault
from fleet.quoting import brief, quote
from fleet.workers.bot.user_function import raised

#: Bytes of what pydantic-ai says of a wrong use of it.
MOST_SAID = 300
#: How pydantic-ai says that a model has called a tool wrongly too often; the name may be one that the model made up.
_TOOL_GAVE_UP = re.compile(r"Tool '(?P<name>[^']*)' exceeded max retries count of (?P<times>[0-9]+)")


class FailedTools(AbstractCapability[Any]):
    """Keeps which tool raised what, and which gave calls back to the model, for one run; it changes nothing."""

    def __init__(self) -> None:
        self._raised: list[tuple[BaseException, str]] = []
        self.giving_back: set[str] = set()

    async def on_tool_execute_error(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: Mapping[str, Any],
        error: Exception,
    ) -> Any:  # fmt: skip
        """Note it, and let it through."""
        self._raised.append((error, tool_def.name))
        raise error

    async def on_tool_validate_error(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: Any, error: Any
    ) -> Any:
        """Note that a call did not fit, and let that through."""
        self.giving_back.add(tool_def.name)
        raise error

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: ToolCallPart, tool_def: ToolDefinition, args: Any,
        handler: Callable[[Any], Awaitable[Any]],
    ) -> Any:  # fmt: skip
        """Note that a tool asks to be called otherwise, and let that through."""
        try:
            return await handler(args)
        except ToolRetryError:
            self.giving_back.add(tool_def.name)
            raise

    def name_of(self, error: BaseException) -> str | None:
        """Return the tool that raised an error; None: none did."""
        return next((name for known, name in self._raised if known is error), None)


def failed(path: str, error: BaseException, tools: FailedTools) -> FleetError | None:
    """Return what a task fails with whose agent raised; None: what any function's exception comes to.

    Args:
        path: Of the agent.
        error: What its run raised.
        tools: What its tools raised.
    """
    match error:
        case FleetError():
            return None
        case UsageLimitExceeded():
            return BadAnswer(f"{path}: expected an answer within the limits of the run, got none: {_said(error)}")
        case ContentFilterError():
            return BadAnswer(f"{path}: expected an answer, got a refusal", fault=Fault.REFUSED)
        case OutputTokenLimitExceeded():
            told = f"{path}: expected an answer, got one that was cut off; raise max_output_tokens, or the agent's own"
            return BadAnswer(told, fault=Fault.SPENT)
        case UnexpectedModelBehavior():
            return _unexpected(path, error, tools)
        case UserError():
            return BotFunctionFailed(f"{path}: expected an agent that can be run, got: {_said(error)}")
        case _:
            tool = tools.name_of(error)
            where = (
                None if tool is None else f"{path}: expected an answer, got {raised(error)}, in its tool {quote(tool)}"
            )
            return None if where is None else BotFunctionFailed(where)


def _unexpected(path: str, error: UnexpectedModelBehavior, tools: FailedTools) -> BadAnswer:
    """Say what a model did not do; what pydantic-ai says of it may quote the answer."""
    gave_up = _TOOL_GAVE_UP.match(error.message)
    if gave_up is None:
        told = "an output of the agent's type, got none within its retries"
        return BadAnswer(f"{path}: expected {told}", fault=Fault.SCHEMA)
    name = gave_up["name"]
    tool = f"its tool {quote(name)}" if name in tools.giving_back else "one of its tools"
    told = f"calls that {tool} takes, got more than {gave_up['times']} that it gave back"
    return BadAnswer(f"{path}: expected {told}; correct the tool's description, or raise its retries")


def _said(error: Exception) -> str:
    return brief(str(error), MOST_SAID)
