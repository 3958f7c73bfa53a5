"""Lines that were written for a provider's batch API, as fields of a task; and messages whose content comes in parts.

OpenAI: `custom_id`, `url`, `body`. Anthropic: `custom_id`, `params`. What would change the answer and a task cannot
carry makes the line fail, with the field's name; what only tunes it (model, temperature) is left out, and told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.errors import InvalidTask
from fleet.quoting import quote

#: Where a batch line holds its request.
REQUESTS = ("body", "params")
#: Fields of a batch line itself; those of its request are read here.
ENVELOPE = frozenset({"custom_id", "method", "url", *REQUESTS})
#: Names of the longest answer, the first one present counts.
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
#: Fields of a request that are read.
_READ = frozenset({"messages", "input", "prompt", "system", "instructions", "response_format", *_LIMITS})
#: Fields without which the answer would be another one, which a task cannot carry.
_NEEDED = ("tools", "functions", "mcp_servers", "previous_response_id", "audio")
#: Types of parts that are text, by any provider's name.
_TEXT_PARTS = ("text", "input_text", "output_text")


def request_of(line: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return the name and value of a batch line's request; None for any other line."""
    if "custom_id" not in line:
        return None
    return next(((name, line[name]) for name in REQUESTS if isinstance(line.get(name), dict)), None)


def fields_of(where: str, request: Mapping[str, Any], url: object) -> tuple[dict[str, Any], list[str]]:
    """Return a request as fields of a task, and the names of what was left out.

    Args:
        where: The request's name in its line, for messages.
        request: What would be sent to the provider.
        url: The endpoint that the line names, if it does.

    Raises:
        InvalidTask: Naming the field that a task cannot carry.
    """
    if isinstance(url, str) and not url.endswith(("/chat/completions", "/responses", "/completions", "/messages")):
        raise InvalidTask(f"url: expected a chat endpoint such as /v1/chat/completions, got {quote(url)}")
    for name in _NEEDED:
        if request.get(name):
            raise InvalidTask(f"{where}.{name}: expected a request without it, which a task cannot carry; take it out")
    fields = _conversation(where, request)
    limit = next((request[name] for name in _LIMITS if request.get(name) is not None), None)
    if limit is not None:
        fields["max_output_tokens"] = limit
    if (schema := _schema(request.get("response_format"))) is not None:
        fields["answer_schema"] = schema
    return fields, [f"{where}.{name}" for name in request if name not in _READ]


def _conversation(where: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's messages, or its prompt if it has only that."""
    said = request.get("messages", request.get("input", request.get("prompt")))
    system = request.get("system", request.get("instructions"))
    if system is None and isinstance(said, str):
        return {"prompt": said}
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    if not isinstance(said, list):
        raise InvalidTask(f"{where}.messages: expected a list of messages, got {type(said).__name__}")
    before = [] if system is None else [{"role": "system", "content": system}]
    return {"messages": plain_messages([*before, *said], f"{where}.messages", first=-len(before))}


def _schema(response_format: object) -> object:
    """Return the JSON schema that a request asks its answer to fit; None when it asks for none."""
    if not isinstance(response_format, dict) or response_format.get("type") != "json_schema":
        return None
    return (response_format.get("json_schema") or {}).get("schema")


def plain_messages(messages: list[Any], where: str = "messages", *, first: int = 0) -> list[Any]:
    """Return messages with their text parts joined.

    Args:
        messages: As they stand in a line; what isn't a message at all is left to `BotTask`.
        where: Name of the list, for messages.
        first: Number of the first one.

    Raises:
        InvalidTask: Naming the part that isn't text.
    """
    return [_plain(message, f"{where}.{number}") for number, message in enumerate(messages, start=first)]


def _plain(message: Any, where: str) -> Any:
    if not isinstance(message, dict):
        return message
    role = "system" if message.get("role") == "developer" else message.get("role")
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_text(part, f"{where}.content.{number}") for number, part in enumerate(content))
    kept = {name: value for name, value in message.items() if name != "type" or value != "message"}
    return {**kept, "role": role, "content": content}


def _text(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) else part
    if not isinstance(text, str) or (kind is not None and kind not in _TEXT_PARTS):
        got = quote(kind) if kind is not None else type(part).__name__
        raise InvalidTask(f"{where}: expected a part of type text, got {got}; a task carries text only")
    return text
