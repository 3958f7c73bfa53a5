"""What the wires of the simulator share: a request as read, what is wrong with one, and JSON checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from fleet.workers.context import CONVERSATION_OVERHEAD_TOKENS, MESSAGE_OVERHEAD_TOKENS, count_tokens
from fleet.workers.simulator.answers import SimulatedAnswer
from fleet.workers.simulator.rich.spoken import Spoken
from fleet.workers.simulator.rich.wanted import Media, Wanted, WireError

#: Writes JSON text of one string or small dict; ASCII only.
encode_json = json.JSONEncoder(separators=(",", ":")).encode

#: Longest text whose tokens are remembered, in characters: 4,096 of them are 8 MB.
MAX_REMEMBERED_CHARS = 2000


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
        wanted: What is asked beyond that; None for most calls.
    """

    model: str
    question: str
    max_tokens: int | None
    input_tokens: int
    system: str = ""
    temperature: float | None = None
    wanted: Wanted | None = None


#: Reads a part of a message that is no text: returns its text, and adds its tokens.
ReadPart = Callable[[dict[str, Any], str, Media], str]


#: Role and text of each message.
Turns = list[tuple[str, str]]


class Talk(NamedTuple):
    """The messages of a request.

    Args:
        turns: Role and text of each.
        tokens: Estimate over all of them.
        media: What is no plain text in it; None when there is nothing but roles and strings.
    """

    turns: Turns
    tokens: int
    media: Media | None


class Wire(Protocol):
    """One vendor's format.

    Attributes:
        limits_count_cached: What is read from the prefix cache counts against the limit of tokens.
        is_translated: Bodies are read by `understood` first.
        tells_limits: Headers tell of the limits, and when to come again.
        tells_writes: The usage tells what was written to the prefix cache; elsewhere it costs as other input.
    """

    limits_count_cached: bool
    is_translated: bool
    tells_limits: bool
    tells_writes: bool

    def understood(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a body in the words that `read` takes, as a chat completion. Raises `WireError`."""
        ...

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        ...

    def answer(self, request: CompletionRequest, answer: SimulatedAnswer, answer_id: str, unix_s: int) -> bytes:
        """Return the body of a 200 to a plain request."""
        ...

    def rich_answer(self, request: CompletionRequest, spoken: Spoken, answer_id: str, unix_s: int) -> dict[str, Any]:
        """Return the body of a 200 to any request, as JSON values."""
        ...

    def told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return what `rich_answer` has given in the words of the wire."""
        ...

    def events(self, answer: Mapping[str, Any], wanted: Wanted) -> list[bytes]:
        """Return a body of a 200, in the words of the wire, as server-sent events."""
        ...

    def error(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> bytes:
        """Return the body of an error; `retry_after_s` is for wires whose headers do not tell it."""
        ...

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends, picked by a number."""
        ...


class Untranslated:
    """What the wires have in common that read and tell everything in their own words."""

    is_translated, tells_limits, tells_writes = False, True, True

    def understood(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the body as it is."""
        return body

    def told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer as it is."""
        return answer


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


def check_temperature(body: dict[str, Any], *, most: float) -> None:
    """Refuse a temperature out of range. Raises `WireError`."""
    temperature = body.get("temperature")
    if temperature is None:
        return
    if type(temperature) not in (int, float) or not 0 <= temperature <= most:
        raise WireError(f"temperature: expected a number from 0 to {most:g}", param="temperature")


def read_messages(body: dict[str, Any], roles: frozenset[str], read_part: ReadPart) -> Talk:
    """Return the messages. Raises `WireError`.

    Args:
        body: The request.
        roles: Those that the wire knows.
        read_part: Reads what is no text.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise WireError("messages: expected a list of at least one message", param="messages")
    turns: Turns = []
    tokens, media = CONVERSATION_OVERHEAD_TOKENS, None
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in roles:
            expected = ", ".join(sorted(roles))
            raise WireError(f"messages[{i}].role: expected one of {expected}", param=f"messages[{i}].role")
        text = message.get("content")
        if not isinstance(text, str) or len(message) > 2:
            media = media or Media()
            text = _read_turn(message, f"messages[{i}].content", read_part, media)
        turns.append((role, text))
        tokens += MESSAGE_OVERHEAD_TOKENS + tokens_of(text)
    return Talk(turns, tokens + media.tokens if media else tokens, media)


def _read_turn(message: dict[str, Any], where: str, read_part: ReadPart, media: Media) -> str:
    """Return the text of a message that is not just a role and a string. Raises `WireError`."""
    content = message.get("content")
    return "" if content is None and message.get("tool_calls") else read_content(content, where, read_part, media)


def read_content(content: object, where: str, read_part: ReadPart, media: Media) -> str:
    """Return the text of a string or a list of parts. Raises `WireError`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise WireError(f"{where}: expected text or a list of parts", param=where)
    texts = []
    for i, part in enumerate(content):
        if part.get("cache_control") is not None:
            media.is_cached = True
        text = part.get("text")
        if part.get("type") == "text" and isinstance(text, str):
            texts.append(text)
        else:
            texts.append(read_part(part, f"{where}[{i}]", media))
    return "".join(texts)


def tokens_of(text: str) -> int:
    """Return `count_tokens(text)`, remembered for the short texts that come again with every call of a bot."""
    return _remembered_tokens(text) if len(text) <= MAX_REMEMBERED_CHARS else count_tokens(text)


def last_question(messages: Turns) -> str:
    """Return the last user message, stripped, or nothing when there is none."""
    return next((text.strip() for role, text in reversed(messages) if role == "user"), "")


_remembered_tokens = lru_cache(maxsize=4096)(count_tokens)
