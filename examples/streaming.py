"""Read an answer while it is made, and stop when you have enough. In this folder: `fleet up -d`, `python streaming.py`.

`fleet.toml` names the function: `function = "streaming:first_sentence"`. Leaving the loop ends the call: it is paid for
up to there.
"""

import contextlib


async def first_sentence(task, bot):
    """Answer with one sentence, whatever else the model would say."""
    said = ""
    async with contextlib.aclosing(bot.stream(task.prompt)) as pieces:
        async for piece in pieces:
            said += piece
            if ". " in said:
                break
    return said.partition(". ")[0]


if __name__ == "__main__":
    from fleet import submit_task

    result = submit_task.delay("What is 6 * 7?", pool="brief").get(timeout=60)
    print(result.answer, result.status, result.usage.total_tokens > 0)
