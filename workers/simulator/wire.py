"""What both wires of the simulator share: a request as read, what is wrong with one, and JSON checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from fleet.workers.context import CONVERSATION_OVERHEAD_TOKENS, MESSAGE_OVERHEAD_TOKENS, count_tokens
from fleet.workers.simulator.answers import SimulatedAnswer

#: Writes JSON text of one string or small dict; ASCII only.
encode_json = json.JSONEncoder(separators=(",", ":")).encode

#: Longest text whose tokens are remembered, in characters: 4,096 of them are 8 MB.
MAX_REMEMBERED_CHARS = 2000


class WireError(Exception):
    """The request is not what the wire says.

    Args:
        message: Expected and got; never quotes the prompt.
        param: The field in question.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A completion request, wire format aside.

    Args:
        model: As asked for; answers echo it.
        question: The last user message, stripped.
        max_tokens: Longest answer asked for, or None.
        input_tokens: Estimate over all messages.
        system: The system prompt; empty when there is none.
        temperature: As asked for, or None.
    """

    model: str
    question: str
    max_tokens: int | None
    input_tokens: int
    system: str = ""
    temperature: float | None = None


class Wire(Protocol):
    """One vendor's format."""

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        ...

    def answer(self, request: CompletionRequest, answer: SimulatedAnswer, answer_id: str, unix_s: int) -> bytes:
        """Return the body of a 200."""
        ...

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
        """Return the body of an error."""
        ...

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends, picked by a number."""
        ...


def read_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body. Raises `WireError`."""
    try:
        body = json.loads(raw.decode())
    except (ValueError, RecursionError):
        raise WireError("expected a JSON object as body, got something else") from None
    if not isinstance(body, dict):
        raise WireError(f"expected a JSON object as body, got {type(body).__name__}")
    return body


def read_model(body: dict[str, Any]) -> str:
    """Return `model`. Raises `WireError`."""
    model = body.get("model")
    if not isinstance(model, str) or not model or len(model) > 256:
        raise WireError("model: expected a name of 1 to 256 characters", param="model")
    return model


def read_limit(body: dict[str, Any], name: str) -> int | None:
    """Return an output limit, None when absent. Raises `WireError`."""
    limit = body.get(name)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise WireError(f"{name}: expected a whole number of at least 1", param=name)
    return limit


def check_options(body: dict[str, Any], *, max_temperature: float) -> None:
    """Refuse what neither wire of the simulator does. Raises `WireError`."""
    if body.get("stream"):
        raise WireError("stream: expected false or nothing: this simulator does not stream", param="stream")
    temperature = body.get("temperature")
    if temperature is None:
        return
    if type(temperature) not in (int, float) or not 0 <= temperature <= max_temperature:
        raise WireError(f"temperature: expected a number from 0 to {max_temperature:g}", param="temperature")


def read_messages(body: dict[str, Any], roles: frozenset[str]) -> tuple[list[tuple[str, str]], int]:
    """Return the messages as (role, text), and their tokens. Raises `WireError`."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise WireError("messages: expected a list of at least one message", param="messages")
    read: list[tuple[str, str]] = []
    tokens = CONVERSATION_OVERHEAD_TOKENS
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in roles:
            expected = ", ".join(sorted(roles))
            raise WireError(f"messages[{i}].role: expected one of {expected}", param=f"messages[{i}].role")
        content = message.get("content")
        text = content if isinstance(content, str) else read_text(content, f"messages[{i}].content")
        read.append((role, text))
        tokens += MESSAGE_OVERHEAD_TOKENS + tokens_of(text)
    return read, tokens


def read_text(content: object, where: str) -> str:
    """Return the text of a string or a list of text parts. Raises `WireError`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
    ):
        raise WireError(f"{where}: expected text or a list of text parts", param=where)
    return "".join(part["text"] for part in content)


def tokens_of(text: str) -> int:
    """Return `count_tokens(text)`, remembered for the short texts that come again with every call of a bot."""
    return _remembered_tokens(text) if len(text) <= MAX_REMEMBERED_CHARS else count_tokens(text)


def last_question(messages: list[tuple[str, str]]) -> str:
    """Return the last user message, stripped, or nothing when there is none."""
    return next((text.strip() for role, text in reversed(messages) if role == "user"), "")


_remembered_tokens = lru_cache(maxsize=4096)(count_tokens)
