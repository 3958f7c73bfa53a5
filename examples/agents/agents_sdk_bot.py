"""An agent of OpenAI's Agents SDK. In this folder: `fleet up -d`, then
`fleet submit "When are tides highest?" --pool agents_sdk`.

The agent is as its own page has it. The three lines in `answer` run it by this bot's client.
"""

import library
from agents import Agent, OpenAIProvider, RunConfig, Runner, function_tool

agent = Agent(
    name="Librarian",
    instructions="Answer from the texts only, and name them.",
    tools=[function_tool(library.search), function_tool(library.read)],
)


async def answer(task, bot):
    """Run the agent. Not every API has the Responses API, which the SDK takes unless it is told."""
    by_this_bot = OpenAIProvider(openai_client=bot.openai(), use_responses=False)
    result = await Runner.run(agent, task.prompt, run_config=RunConfig(model_provider=by_this_bot))
    return result.final_output
