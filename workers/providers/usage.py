"""What a provider says was used, from every vendor's spelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.usage import Usage
from fleet.workers.context import count_message_tokens, count_tokens
from fleet.workers.ports import Call


def read_usage(told: object, call: Call, text: str) -> Usage:
    """Return what an answer used, in the classes in which it is billed.

    Args:
        told: The answer's `usage` object, of either wire; servers that send none (some local ones) get an estimate.
        call: What was sent.
        text: What came back, thinking included.
    """
    usage: Mapping[str, Any] = told if isinstance(told, dict) else {}
    given = _count(usage, "prompt_tokens", "input_tokens")
    made = _count(usage, "completion_tokens", "output_tokens")
    cached, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    if given is not None:
        given += (cached or 0) + (written or 0)  # beside the input on the wire that has these names
    return Usage.model_construct(
        input_tokens=count_message_tokens(call.messages) if given is None else given,
        output_tokens=count_tokens(text) if made is None else made,
        cached_tokens=cached or 0,
        cache_write_tokens=written or 0,
    )


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these that is a number of tokens."""
    for name in names:
        value = usage.get(name)
        if type(value) is int and value >= 0:
            return value
    return None
