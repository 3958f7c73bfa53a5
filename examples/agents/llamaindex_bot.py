"""An agent of LlamaIndex, for a pool with `function = "llamaindex_bot:answer"`.

LlamaIndex wants an older `openai` than the others here, so its workers have an environment of their own:
`pip install celery-fleet llama-index-core llama-index-llms-openai`.

The model's name is one that LlamaIndex knows, by which it judges what a model can do; the pool's is sent. With
`max_retries=0` it waits for nothing by itself: Fleet has waited.
"""

import library
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.llms.openai import OpenAI

INSTRUCTIONS = "Answer from the texts only, and name them."


async def answer(task, bot):
    """Run the agent."""
    model = OpenAI(model="gpt-4o", api_key="the pool's", async_openai_client=bot.openai(), max_retries=0)
    agent = FunctionAgent(tools=[library.search, library.read], llm=model, system_prompt=INSTRUCTIONS)
    return str(await agent.run(task.prompt))
