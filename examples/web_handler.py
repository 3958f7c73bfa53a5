"""Submit and await in a web handler. In this folder: `fleet up -d`, then `python web_handler.py`."""

import asyncio

from fleet import asubmit_many, submit_task


async def answer(question: str) -> dict[str, object]:
    """A handler as FastAPI, Starlette or aiohttp would call it; a server calls many of them on one loop."""
    task = await submit_task.adelay(question, pool="research", priority="high")
    result = await task.aget(timeout=60)  # or `await task`; who goes away meanwhile cancels the wait, not the task
    return {"answer": result.answer, "status": result.status}


async def main() -> None:
    replies = await asyncio.gather(*(answer(f"What is {number} + {number}?") for number in range(1, 4)))
    print(*(reply["answer"] for reply in replies))

    ids = await asubmit_many(f"What is {number} * {number}?" for number in range(1, 4))
    print(*[(await submit_task.AsyncResult(task_id)).answer for task_id in ids])


asyncio.run(main())
