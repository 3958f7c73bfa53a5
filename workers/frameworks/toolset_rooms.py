"""What an agent's tools live in, such as MCP servers, entered for the length of a run.

A run that finds them entered by another one shares them, so 100 runs at once have one MCP server; and a server that
pydantic-ai starts over stdio is kept by it between runs of one loop. Measured: 40 ms a run, 2 s for the first.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pydantic_ai.agent import AbstractAgent
from pydantic_ai.toolsets import FunctionToolset

from fleet.errors import ConfigurationError, HeldUp
from fleet.workers.bot.user_function import raised


class ToolsetRooms:
    """The toolsets of one agent, wherever its runs are. They live on one loop at a time.

    Args:
        path: Of the agent.
        agent: The user's.
    """

    def __init__(self, path: str, agent: AbstractAgent[Any, Any]) -> None:
        self._path = path
        self._toolsets = [toolset for toolset in agent.toolsets if not isinstance(toolset, FunctionToolset)]
        self._home: asyncio.AbstractEventLoop | None = None
        self._inside = 0
        self._lock = threading.Lock()

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[None]:
        """Be inside all of them.

        Raises:
            HeldUp: Runs on another loop of this process are inside: somebody's function blocks that loop.
            ConfigurationError: One does not start. No task is to blame for that.
        """
        if not self._toolsets:
            yield
            return
        self._come()
        try:
            async with AsyncExitStack() as stack:
                for toolset in self._toolsets:
                    try:
                        await stack.enter_async_context(toolset)
                    except Exception as error:
                        told = f"agent {self._path}: expected {toolset.label} to start, got {raised(error)}"
                        raise ConfigurationError(told) from error
                yield
        finally:
            with self._lock:
                self._inside -= 1

    def _come(self) -> None:
        here = asyncio.get_running_loop()
        with self._lock:
            if self._inside and self._home is not here:
                raise HeldUp(f"{self._path}: its toolsets live on a loop that another function blocks")
            self._home = here
            self._inside += 1
