"""What a bot function gives `chat()`, as a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from fleet.conversation import Message, check_order
from fleet.errors import BotFunctionFailed
from fleet.spellings import read_messages

#: What `chat()` takes: a prompt, or a conversation of messages or `{"role": ..., "content": ...}` tables.
Prompt = str | Sequence[Message | Mapping[str, Any]]


def turns_of(prompt: object) -> tuple[Message, ...]:
    """Return the conversation of `chat()`.

    Raises:
        BotFunctionFailed: When it is none; it quotes nothing of what may be the user's text.
    """
    expected = "chat(): expected a str or a list of messages with role (system, user, assistant, tool) and content"
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    if not isinstance(prompt, Sequence) or not prompt:
        raise BotFunctionFailed(f"{expected}, got {'an empty list' if prompt == [] else type(prompt).__name__}")
    try:
        told = cast(Sequence[Any], read_messages(list(prompt)))
        messages = tuple(m if isinstance(m, Message) else Message.model_validate(m) for m in told)
        check_order(messages)
        return messages
    except ValidationError as error:
        where = ", ".join(".".join(str(part) for part in item["loc"]) or "message" for item in error.errors())
        raise BotFunctionFailed(f"{expected}, got a wrong {where}") from None
    except ValueError as error:
        raise BotFunctionFailed(f"chat(): {error}") from None
