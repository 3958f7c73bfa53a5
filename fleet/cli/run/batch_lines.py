"""Lines that were written for a provider's batch API, as fields of a task.

OpenAI: `custom_id`, `url`, `body`. Anthropic: `custom_id`, `params`. What would change the answer and a task cannot
carry makes the line fail, with the field's name; what only tunes it (model, temperature) is left out, and told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.errors import InvalidTask
from fleet.quoting import quote
from fleet.spellings import read_messages, read_tool

#: Where a batch line holds its request.
REQUESTS = ("body", "params")
#: Fields of a batch line itself; those of its request are read here.
ENVELOPE = frozenset({"custom_id", "method", "url", *REQUESTS})
#: Names of the longest answer, the first one present counts.
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
#: Fields of a request -> those of a task, where nothing but the name may differ.
_SAME = {
    "parallel_tool_calls": "parallel_tool_calls", "reasoning_effort": "effort", "verbosity": "verbosity",
    "seed": "seed", "top_p": "top_p", "stop": "stop", "stop_sequences": "stop", "service_tier": "tier", "n": "n",
}  # fmt: skip
#: Objects of a request that hold some of them -> what is read in them.
_NESTED = {
    "reasoning": ("effort",), "text": ("format", "verbosity"), "output_config": ("format", "effort"),
    "thinking": ("type", "budget_tokens"),
}  # fmt: skip
#: Fields of a request that are read.
_READ = frozenset(
    {
        "messages", "input", "prompt", "system", "instructions", "response_format", "output_format", "tools",
        "functions", "tool_choice", "function_call", *_LIMITS, *_SAME, *_NESTED,
    }
)  # fmt: skip
#: Fields without which the answer would be another one, which a task cannot carry.
_NEEDED = ("mcp_servers", "previous_response_id", "conversation", "audio", "web_search_options", "container")
#: Tiers by Fleet's words.
_TIERS = {"default": "standard", "standard_only": "standard"}


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
    fields = _conversation(where, request) | _asked(request) | _tools(where, request)
    limit = next((request[name] for name in _LIMITS if request.get(name) is not None), None)
    if limit is not None:
        fields["max_output_tokens"] = limit
    if (schema := _schema(request)) is not None:
        fields["answer_schema"] = schema
    return fields, [f"{where}.{name}" for name in _unread(request)]


def _unread(request: Mapping[str, Any]) -> list[str]:
    """Return the names of what is not read, those inside of an object with the object's."""
    names = [name for name in request if name not in _READ]
    for name, known in _NESTED.items():
        if isinstance(told := request.get(name), dict):
            names += [f"{name}.{inner}" for inner in told if inner not in known]
    return names


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
    messages = plain_messages(said, f"{where}.messages")
    if system is None:
        return {"messages": messages}
    return {"messages": [*plain_messages([{"role": "system", "content": system}], f"{where}.system"), *messages]}


def plain_messages(messages: list[Any], where: str = "messages") -> list[Any]:
    """Return messages in Fleet's own words.

    Args:
        messages: As they stand in a line; what isn't a message at all is left to `BotTask`.
        where: Name of the list, for messages.

    Raises:
        InvalidTask: Naming the part that a task cannot carry.
    """
    try:
        read: Any = read_messages(messages)
    except ValueError as error:
        raise InvalidTask(f"{where}.{error}") from None
    return list(read)


def _asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return effort, stop and the like."""
    asked = {there: request[here] for here, there in _SAME.items() if request.get(here) is not None}
    for name in ("reasoning", "text", "output_config"):
        told = request.get(name)
        if isinstance(told, dict):
            asked |= {field: told[field] for field in ("effort", "verbosity") if told.get(field) is not None}
    thinking = request.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        asked["thinking_tokens"] = thinking.get("budget_tokens")
    elif isinstance(thinking, dict) and thinking.get("type") == "disabled":
        asked["thinking_tokens"] = 0
    if isinstance(tier := asked.get("tier"), str):
        asked["tier"] = _TIERS.get(tier, tier)
    return asked


def _tools(where: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tools and which of them are to be called."""
    name = "tools" if request.get("tools") else "functions"
    told = request.get(name)
    if not told:
        return {}
    try:
        tools = [read_tool(tool, str(n)) for n, tool in enumerate(told)] if isinstance(told, list) else told
    except ValueError as error:
        raise InvalidTask(f"{where}.{name}.{error}; a task carries functions only") from None
    found: dict[str, Any] = {"tools": tools}
    choice = request.get("tool_choice", request.get("function_call"))
    if isinstance(choice, dict) and choice.get("disable_parallel_tool_use"):
        choice = {key: value for key, value in choice.items() if key != "disable_parallel_tool_use"}
        found["parallel_tool_calls"] = False
    if isinstance(choice, dict) and "type" not in choice:  # of the older `function_call`
        choice = choice.get("name")
    return found if choice is None else {**found, "tool_choice": choice}


def _schema(request: Mapping[str, Any]) -> object:
    """Return the JSON schema that a request asks its answer to fit; None when it asks for none."""
    text, config = request.get("text"), request.get("output_config")
    for form in (
        request.get("response_format"),
        request.get("output_format"),
        text.get("format") if isinstance(text, dict) else None,
        config.get("format") if isinstance(config, dict) else None,
    ):
        if isinstance(form, dict) and form.get("type") == "json_schema":
            inner = form.get("json_schema")
            return (inner if isinstance(inner, dict) else form).get("schema")
    return None
