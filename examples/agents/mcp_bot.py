"""An agent whose tools come from an MCP server. In this folder: `fleet up -d`, then
`fleet submit "When are tides highest?" --pool mcp`.

Each task starts a server of its own and ends it, which takes about a second. A server that tasks may share is better
run beside the workers, and reached by `MCPServerStreamableHttp`.
"""

import sys
from pathlib import Path

from agents import Agent, OpenAIProvider, RunConfig, Runner
from agents.mcp import MCPServerStdio

SERVER = {"command": sys.executable, "args": [str(Path(__file__).with_name("mcp_server.py"))]}


async def answer(task, bot):
    """Run the agent with the tools that the server offers."""
    by_this_bot = OpenAIProvider(openai_client=bot.openai(), use_responses=False)
    async with MCPServerStdio(SERVER, client_session_timeout_seconds=30) as library:
        agent = Agent(name="Librarian", instructions="Answer from the texts only.", mcp_servers=[library])
        result = await Runner.run(agent, task.prompt, run_config=RunConfig(model_provider=by_this_bot))
    return result.final_output
