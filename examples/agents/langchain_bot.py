"""An agent of LangChain. In this folder: `fleet up -d`, then `fleet submit "When are tides highest?" --pool langchain`.

The three lines at the top of `answer` make its model one that asks by this bot's client. Making both for each task
costs about 2 ms.
"""

import library
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

INSTRUCTIONS = "Answer from the texts only, and name them."


async def answer(task, bot):
    """Run the agent."""
    client = bot.openai()
    model = ChatOpenAI(model="the-pools", root_async_client=client, async_client=client.chat.completions)
    agent = create_agent(model, tools=[library.search, library.read], system_prompt=INSTRUCTIONS)
    result = await agent.ainvoke({"messages": [{"role": "user", "content": task.prompt}]})
    return result["messages"][-1].text
