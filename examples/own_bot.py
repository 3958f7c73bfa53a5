"""Let your own function do a bot's work. In this folder: `fleet up -d`, then `python own_bot.py`.

`fleet.toml` names it: `function = "own_bot:checked"`. Each `chat()` waits for the rate limit and is billed by itself.
"""


async def checked(task, bot):
    """Draft an answer, then have it checked."""
    draft = await bot.chat(task.prompt)
    return await bot.chat(f"{task.prompt}\n\nA colleague says: {draft}\n\nGive the right answer only.")


if __name__ == "__main__":
    from fleet import submit_task

    result = submit_task.delay("What is 6 * 7?", pool="careful").get(timeout=60)
    print(result.answer, "after", result.attempts, "calls by", result.bot)
