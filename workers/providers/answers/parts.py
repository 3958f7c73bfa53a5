"""The text and the thinking of a message or of a piece of a streamed one, from every vendor's spelling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.workers.thinking import Split

#: Where messages of the OpenAI wire tell thinking; servers that say it twice say the same.
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
#: Types of parts that are thinking, and where they have it.
_THOUGHT_TYPES = frozenset({"thinking", "reasoning", "reasoning.text", "reasoning.summary", "summary_text"})
_THOUGHTS = ("thinking", "reasoning", "summary", "text")


def read_message(message: Mapping[str, Any]) -> Split:
    """Return text and thinking of a message, or of a delta, of the OpenAI wire."""
    said = read_content(message.get("content"))
    for name in _REASONING:
        if (told := message.get(name)) and (reasoning := _all(told)):
            return Split(said.text, reasoning + said.reasoning)
    return said


def read_content(content: object) -> Split:
    """Return text and thinking of a content: a string, null, or a list of parts, of either wire."""
    if isinstance(content, str):
        return Split(content, "")
    if not isinstance(content, list):
        return Split("", "")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in _THOUGHT_TYPES:
            thoughts.append(_all(part))
        elif isinstance(part, dict) and isinstance(text := part.get("text"), str):
            texts.append(text)
    return Split("".join(texts), "".join(thoughts))


def _all(value: object) -> str:
    """Return the text of a thought: a string, a part, or parts of it."""
    return "".join(_strings(value, depth=3))


def _strings(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and depth:
        for item in value:
            yield from _strings(item, depth - 1)
    elif isinstance(value, dict) and depth:
        yield next((told for name in _THOUGHTS if (told := "".join(_strings(value.get(name), depth - 1)))), "")
