"""Let a bot call a function of yours. In this folder: `fleet up -d`, then `python tools.py`.

`fleet.toml` names it: `function = "tools:calculator"`. The model says what it wants called; the bot function runs it.
"""

import json

TOOLS = [
    {
        "name": "multiply",
        "description": "Multiply two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    }
]


async def calculator(task, bot):
    """Ask, run what the model wants run, and ask again with the results; three rounds at most."""
    turns = list(task.conversation())
    for _ in range(3):
        reply = await bot.chat(turns, tools=TOOLS, tool_choice="auto")
        if not reply.tool_calls:
            return reply
        turns.append(reply.message)
        for call in reply.tool_calls:
            numbers = json.loads(call.arguments)
            product = numbers.get("a", 0) * numbers.get("b", 0)
            turns.append({"role": "tool", "tool_call_id": call.id, "content": str(product)})
    return await bot.chat(turns)


if __name__ == "__main__":
    from fleet import submit_task

    result = submit_task.delay("What is 6 * 7?", pool="calculators").get(timeout=60)
    print(result.answer)
