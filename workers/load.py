"""What a call weighs beside the texts of its messages: tools, a schema, images. For reservations and their check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from fleet.conversation import Message, Tool, marks_of, sizes_of
from fleet.workers.calls import PLAIN, Call, Wishes
from fleet.workers.context import count_message_tokens, count_tokens

#: Sets of tools and schemas whose tokens are kept; a kind of task has one.
_MOST = 256
#: Tokens that a model may count for one image or file, whatever it looks like from here: a window of a million.
MOST_PART_TOKENS = 1_000_000
#: Tokens that a provider may count beyond what it was sent and what came back: its own prompt, the chat's format.
UNSEEN_TOKENS = 4096


def sent_tokens(messages: Sequence[Message], wishes: Wishes) -> int:
    """Estimate the input tokens of a call."""
    tokens = count_message_tokens(messages)
    return tokens if wishes is PLAIN else tokens + beside_tokens(wishes)


def beside_tokens(wishes: Wishes) -> int:
    """Estimate the input tokens of tools and schema, which are told beside the messages."""
    tokens = 0 if wishes.schema is None else _schema_tokens(wishes.schema.text)
    return tokens + (_tools_tokens(wishes.tools) if wishes.tools else 0)


def most_sent_tokens(messages: Sequence[Message], wishes: Wishes) -> int:
    """Return the most input tokens that a call can have: no token of any vocabulary is shorter than a byte."""
    most = sum(len(text.encode("utf-8", "replace")) for text in sizes_of(messages))
    if any(type(message.content) is not str for message in messages):
        most += MOST_PART_TOKENS
    if wishes is not PLAIN:
        most += len(wishes.schema.text) * 4 if wishes.schema is not None else 0
        most += len(_tools_text(wishes.tools)) * 4
    return most


def most_tokens(call: Call, answer: str) -> tuple[int, int]:
    """Return the most input and output tokens that a call can have used: no vocabulary has tokens below a byte."""
    sent = most_sent_tokens(call.messages, call.wishes)
    came = max(call.max_output_tokens, len(answer.encode("utf-8", "replace"))) * call.wishes.n
    return sent + UNSEEN_TOKENS, came + UNSEEN_TOKENS


def may_write_for_an_hour(messages: Sequence[Message], wishes: Wishes) -> bool:
    """True when a part of the prompt may be written to the provider's cache for an hour, which costs more."""
    own = wishes.extra_body.get("cache_control")
    return (
        wishes.keep == "1h"
        or (isinstance(own, dict) and own.get("ttl") == "1h")
        or "1h" in marks_of(messages, wishes.tools)
    )


def is_plain(call: Call) -> bool:
    """True when nothing but text was sent, so that what was counted tells how texts are counted."""
    plain = call.wishes is PLAIN or not (call.wishes.tools or call.wishes.schema)
    return plain and all(isinstance(message.content, str) for message in call.messages)


@lru_cache(maxsize=_MOST)
def _schema_tokens(text: str) -> int:
    return count_tokens(text)


def _tools_text(tools: tuple[Tool, ...]) -> str:
    return "".join(f"{tool.name} {tool.description} {json.dumps(tool.parameters)}" for tool in tools)


def _tools_tokens(tools: tuple[Tool, ...]) -> int:
    return count_tokens(_tools_text(tools))
