"""An agent of pydantic-ai. In this folder: `fleet up -d`, then
`fleet submit "When are tides highest?" --pool pydantic_ai`.

The agent is as its own page has it, and runs by this bot with `model=bot.model()`. A pool can also name the agent
itself, `agent = "pydantic_ai_bot:agent"`, and needs no function then.
"""

import library
from pydantic_ai import Agent

agent = Agent(instructions="Answer from the texts only, and name them.", tools=[library.search, library.read])


async def answer(task, bot):
    """Run the agent."""
    result = await agent.run(task.prompt, model=bot.model())
    return result.output
