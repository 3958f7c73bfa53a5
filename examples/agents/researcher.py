"""A researcher that looks things up in a folder of texts, with nothing but OpenAI's SDK.

In this folder: `fleet up -d`, then `fleet submit "When are tides highest?" --pool researchers`.

`bot.openai()` is the SDK's own client. Each of its requests goes through Fleet, which puts in the key and the pool's
model, waits for the rate limit, tries again what a provider spoils, and bills it to this bot. This is a plain function,
so the client blocks its thread; in an `async def` it is an `AsyncOpenAI`.
"""

import json

import library

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": tool.__name__,
            "description": tool.__doc__,
            "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
        },
    }
    for tool, argument in ((library.search, "words"), (library.read, "name"))
]
#: Times that the model is asked at most; at the last it is offered no tools.
MOST_TURNS = 6


def research(task, bot):
    """Let the model look things up until it answers."""
    client = bot.openai()
    messages = [
        {"role": "system", "content": f"{bot.persona.system_prompt} Answer from the texts only, and name them."},
        {"role": "user", "content": task.prompt},
    ]
    for _ in range(MOST_TURNS - 1):
        reply = client.chat.completions.create(model="the-pools", messages=messages, tools=TOOLS).choices[0].message
        if not reply.tool_calls:
            return reply.content
        messages.append(reply.model_dump(exclude_none=True))
        for call in reply.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": called(call.function)})
    return client.chat.completions.create(model="the-pools", messages=messages).choices[0].message.content


def called(call):
    """Return what a tool says, or what was wrong with the call: the model may then do better."""
    tool = {"search": library.search, "read": library.read}.get(call.name)
    try:
        return tool(**json.loads(call.arguments)) if tool else f"there is no tool {call.name}"
    except (TypeError, ValueError) as error:
        return f"that call cannot be made: {error}"
