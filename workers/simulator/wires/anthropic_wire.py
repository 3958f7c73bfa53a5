"""Anthropic's messages, as far as the simulator speaks them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from fleet.cached_lengths import least_cached_tokens
from fleet.conversation import MOST_MARKS
from fleet.quoting import quote
from fleet.schema import compiled
from fleet.workers.context import MESSAGE_OVERHEAD_TOKENS, count_tokens
from fleet.workers.simulator.answers import SimulatedAnswer
from fleet.workers.simulator.prefix_cache import KEPT_LONG_S, KEPT_S
from fleet.workers.simulator.rich import strict
from fleet.workers.simulator.rich.spoken import Called, Choice, Spoken
from fleet.workers.simulator.rich.streaming import anthropic_events
from fleet.workers.simulator.rich.tool_turns import anthropic_tool_turns, check_anthropic_turns, holds_results
from fleet.workers.simulator.rich.wanted import (
    MAX_TOOLS,
    NO_TURNS,
    CachePlace,
    Media,
    OfferedTool,
    Wanted,
    WireError,
    offered,
    read_choice,
    read_flag,
    read_list_at,
    read_name,
    read_object_at,
    read_share,
    read_stops,
)
from fleet.workers.simulator.wires.wire import (
    CompletionRequest,
    Turns,
    Untranslated,
    check_temperature,
    encode_json,
    last_question,
    read_content,
    read_limit,
    read_messages,
    read_model,
    tokens_of,
)

_ROLES = frozenset({"user", "assistant"})
#: What a plain request has; any other field makes it a rich one.
_PLAIN = frozenset({"model", "messages", "system", "temperature", "max_tokens"})
#: Statuses of a failure: 529 is this vendor's "overloaded".
_FAILURES = (500, 529)
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
#: The vendor's words for why an answer ended.
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

EFFORTS = ("low", "medium", "high", "xhigh", "max")
#: Least tokens of thinking that may be asked for.
MIN_THINKING_TOKENS = 1024
#: Tokens of an image, and of a document given by its address.
IMAGE_TOKENS, ADDRESS_TOKENS = 1600, 1000
#: Characters of base64 that count as one token of a document.
DATA_CHARS_PER_TOKEN = 16


class AnthropicWire(Untranslated):
    """`POST /v1/messages`."""

    limits_count_cached = False

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        if "anthropic-version" not in headers:
            raise WireError("anthropic-version: header is required")
        model = read_model(body)
        check_temperature(body, most=1.0)
        limit = read_limit(body, "max_tokens")
        if limit is None:
            raise WireError("max_tokens: field required", param="max_tokens")
        turns, tokens, media = read_messages(body, _ROLES, _read_part)
        if turns[0][0] != "user":
            raise WireError("messages: expected the first message to be the user's", param="messages")
        if media is None and not all(text.strip() for _, text in turns):
            raise WireError("messages: text content blocks must be non-empty", param="messages")
        system = body.get("system")
        if system is not None:
            if not isinstance(system, str):
                media = media or Media()
                system = read_content(system, "system", _no_part, media)
            tokens += MESSAGE_OVERHEAD_TOKENS + tokens_of(system)
        wanted = None
        if media is not None or not body.keys() <= _PLAIN:
            tokens += _count_tools(body)
            wanted = _read_wanted(body, turns, tokens, limit, media or Media())
        question = last_question(turns)
        return CompletionRequest(model, question, limit, tokens, system or "", body.get("temperature"), wanted)

    def answer(self, request: CompletionRequest, answer: SimulatedAnswer, answer_id: str, unix_s: int) -> bytes:
        """Return the body of a 200 to a plain request."""
        reason = "max_tokens" if answer.cut else "end_turn"
        return (
            f'{{"id":"msg_{answer_id}","type":"message","role":"assistant","model":{_quoted(request.model)},'
            f'"content":[{{"type":"text","text":{encode_json(answer.text)}}}],"stop_reason":"{reason}",'
            f'"stop_sequence":null,"usage":{{"input_tokens":{request.input_tokens},"output_tokens":{answer.tokens},'
            f'"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}}}'
        ).encode("ascii")

    def rich_answer(self, request: CompletionRequest, spoken: Spoken, answer_id: str, unix_s: int) -> dict[str, Any]:
        """Return the body of a 200 to any request, as JSON values."""
        wanted = request.wanted or Wanted()
        choice, cached = spoken.choices[0], spoken.cached
        written = cached.written + cached.written_long
        return {
            "id": f"msg_{answer_id}",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "content": list(_blocks(choice)),
            "stop_reason": _REASONS.get(choice.reason, choice.reason),
            "stop_sequence": choice.stopped_at,
            "usage": {
                "input_tokens": request.input_tokens - cached.read - written,
                "output_tokens": spoken.tokens,
                "cache_creation_input_tokens": written,
                "cache_read_input_tokens": cached.read,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": cached.written,
                    "ephemeral_1h_input_tokens": cached.written_long,
                },
                "output_tokens_details": {"thinking_tokens": spoken.thinking_tokens},
                "service_tier": wanted.tier or "standard",
            },
        }

    def events(self, answer: Mapping[str, Any], wanted: Wanted) -> list[bytes]:
        """Return a body of a 200 as server-sent events; the usage is always told."""
        return anthropic_events(answer)

    def error(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> bytes:
        """Return the body of an error."""
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return encode_json({"type": "error", "error": {"type": kind, "message": message}}).encode("ascii")

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends."""
        return _FAILURES[chance % len(_FAILURES)]


def _blocks(choice: Choice) -> Iterator[dict[str, Any]]:
    if choice.thoughts:
        signature = blake2b(choice.thoughts.encode("utf-8", "replace"), digest_size=16).hexdigest()
        yield {"type": "thinking", "thinking": choice.thoughts, "signature": signature}
    if choice.text:
        yield {"type": "text", "text": choice.text}
    for call in choice.calls:
        yield {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": _arguments(call)}


def _arguments(call: Called) -> object:
    """Return the arguments of a call. Cut ones are no JSON: the vendor then sends an object without them."""
    try:
        return json.loads(call.arguments)
    except ValueError:
        return {}


def _count_tools(body: dict[str, Any]) -> int:
    """Return the tokens of tools and their calls. Raises `WireError` when a result does not follow its call."""
    tools = sum(count_tokens(encode_json(tool)) for tool in read_list_at(body.get("tools"), "tools", most=MAX_TOOLS))
    return tools + check_anthropic_turns(body["messages"])


def _read_wanted(body: dict[str, Any], turns: Turns, tokens: int, limit: int, media: Media) -> Wanted:
    """Return what is asked beyond an answer. Raises `WireError`. Unknown fields are let pass."""
    read_share(body.get("top_p"), "top_p")
    output = read_object_at(body.get("output_config") or {}, "output_config")
    choice, is_parallel = _read_tool_choice(body)
    effort, thinking_limit, shows = _read_thinking(body, output, limit, choice)
    tools = _read_tools(body)
    if choice not in ("auto", "none", "required") and choice not in [tool.name for tool in tools]:
        raise WireError(f"tool_choice.name: Tool {quote(choice)} not found in provided tools")
    tier = read_choice(body.get("service_tier"), ("auto", "standard_only"), "service_tier")
    is_cached = media.is_cached or bool(body.get("cache_control")) or "cache_control" in encode_json(body.get("tools"))
    return Wanted(
        schema=_read_format(output),
        tools=tools,
        choice=choice,
        is_parallel=is_parallel,
        is_answered=holds_results(body["messages"][-1]),
        tool_turns=anthropic_tool_turns(body["messages"], turns) if tools else NO_TURNS,
        effort=effort,
        thinking_limit=thinking_limit,
        shows_thinking=shows,
        stop=read_stops(body.get("stop_sequences"), "stop_sequences"),
        tier="priority" if tier == "auto" else "standard",
        is_streamed=read_flag(body.get("stream"), "stream", default=False),
        tells_usage=True,
        places=[one for one in _places(body, tokens) if one.tokens >= least_cached_tokens(body["model"])]
        if is_cached
        else (),
    )


def _read_thinking(
    body: dict[str, Any], output: Mapping[str, Any], limit: int, choice: str
) -> tuple[str | None, int | None, bool]:
    """Return effort, most tokens of thinking, and whether thoughts are told. Raises `WireError`."""
    effort = read_choice(output.get("effort"), EFFORTS, "output_config.effort")
    told = read_object_at(body.get("thinking") or {"type": "disabled"}, "thinking")
    kind = read_choice(told.get("type"), ("adaptive", "enabled", "disabled"), "thinking.type")
    if kind in (None, "disabled"):
        return None, None, False
    if body.get("temperature") not in (None, 1):
        raise WireError("`temperature` may only be set to 1 when thinking is enabled.")
    if choice not in ("auto", "none"):
        raise WireError("Thinking may not be enabled when tool_choice forces tool use.")
    budget = None
    if kind == "enabled":
        budget = told.get("budget_tokens")
        if type(budget) is not int or budget < MIN_THINKING_TOKENS:
            raise WireError(
                f"thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_THINKING_TOKENS}"
            )
        if budget >= limit:
            raise WireError("`max_tokens` must be greater than `thinking.budget_tokens`.")
    return effort or "medium", budget, told.get("display") != "omitted"


def _read_format(output: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of `output_config.format`. Raises `WireError`."""
    if output.get("format") is None:
        return None
    where = "output_config.format"
    told = read_object_at(output["format"], where)
    if told.get("type") != "json_schema":
        raise WireError(f"{where}.type: Input should be 'json_schema'")
    schema = read_object_at(told.get("schema"), f"{where}.schema")
    _check_schema(schema, f"{where}.schema")
    return schema


def _check_schema(schema: Mapping[str, Any], where: str) -> None:
    try:
        compiled(schema)
        objection = strict.anthropic_objection(schema)
    except ValueError as error:
        objection = str(error)
    if objection is not None:
        raise WireError(f"{where}: {objection}")


def _read_tools(body: dict[str, Any]) -> tuple[OfferedTool, ...]:
    tools = []
    for i, tool in enumerate(read_list_at(body.get("tools"), "tools", most=MAX_TOOLS)):
        if read_object_at(tool, f"tools.{i}").get("type") not in (None, "custom"):
            continue  # run by the vendor: nothing here calls one
        name = read_name(tool.get("name"), f"tools.{i}.custom.name")
        where = f"tools.{i}.custom.input_schema"
        schema = read_object_at(tool.get("input_schema"), where)
        if schema.get("type") != "object":
            raise WireError(f"{where}.type: Input should be 'object'")
        try:
            compiled(schema)
        except ValueError as error:
            raise WireError(f"{where}: {error}") from None
        if tool.get("strict"):
            _check_schema(schema, where)
        tools.append(offered(name, tool.get("description"), schema))
    return tuple(tools)


def _read_tool_choice(body: dict[str, Any]) -> tuple[str, bool]:
    """Return `auto`, `none`, `required` or a tool's name, and whether several may be called. Raises `WireError`."""
    if body.get("tool_choice") is None:
        return "auto", True
    told = read_object_at(body["tool_choice"], "tool_choice")
    kind = read_choice(told.get("type"), ("auto", "any", "tool", "none"), "tool_choice.type")
    if kind != "none" and not body.get("tools"):
        raise WireError("tool_choice: may only be specified while providing tools.")
    is_parallel = not read_flag(
        told.get("disable_parallel_tool_use"), "tool_choice.disable_parallel_tool_use", default=False
    )
    if kind == "tool":
        return read_name(told.get("name"), "tool_choice.tool.name"), is_parallel
    return {"any": "required"}.get(kind or "auto", kind or "auto"), is_parallel


def _read_part(part: dict[str, Any], where: str, media: Media) -> str:
    """Return the text of a block that is no text block, and count what has none. Raises `WireError`."""
    kind = part.get("type")
    if kind == "image":
        media.tokens += IMAGE_TOKENS
        media.image_tokens += IMAGE_TOKENS
        _source_tokens(part, where)
    elif kind == "document":
        media.tokens += _source_tokens(part, where)
    elif kind == "tool_result":
        return read_content(part.get("content") or "", f"{where}.content", _read_part, media)
    elif kind not in ("tool_use", "thinking", "redacted_thinking"):
        raise WireError(f"{where}: Input tag {quote(kind)} found using 'type' does not match any of the expected tags")
    return ""


def _source_tokens(part: dict[str, Any], where: str) -> int:
    source = read_object_at(part.get("source"), f"{where}.source")
    kind = read_choice(source.get("type"), ("base64", "url", "text", "file", "content"), f"{where}.source.type")
    if kind == "text":
        return count_tokens(str(source.get("data", "")))
    data = source.get("data" if kind == "base64" else "url")
    if kind in ("base64", "url") and (not isinstance(data, str) or not data):
        raise WireError(f"{where}.source: expected `data` or `url`")
    return 1 + len(data or "") // DATA_CHARS_PER_TOKEN if kind == "base64" else ADDRESS_TOKENS


def _no_part(part: dict[str, Any], where: str, media: Media) -> str:
    raise WireError(f"{where}: expected a text block")


def _places(body: dict[str, Any], tokens: int) -> list[CachePlace]:
    """Return a place after each block, in the order in which a prompt holds them: tools, system, messages.

    Args:
        body: The request.
        tokens: Of the whole prompt; blocks share them by their length.
    """
    blocks = list(_cacheable(body))
    texts = [encode_json({name: value for name, value in block.items() if name != "cache_control"}) for block in blocks]
    whole = sum(map(len, texts)) or 1
    running, chars, places = blake2b(digest_size=16), 0, []
    for i, (block, text) in enumerate(zip(blocks, texts, strict=True)):
        running.update(text.encode("ascii"))
        chars += len(text)
        control = block.get("cache_control") or (body.get("cache_control") if i == len(blocks) - 1 else None)
        places.append(CachePlace(running.digest(), tokens * chars // whole, _kept_s(control)))
    if (marked := sum(place.ttl_s is not None for place in places)) > MOST_MARKS:
        raise WireError(f"A maximum of {MOST_MARKS} blocks with cache_control may be provided. Found {marked}.")
    return places


def _cacheable(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from body.get("tools") or ()
    system = body.get("system") or []
    yield from [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        yield from ({"role": message["role"], **block} for block in blocks)


def _kept_s(control: object) -> float | None:
    if control is None:
        return None
    ttl = read_choice(read_object_at(control, "cache_control").get("ttl"), ("5m", "1h"), "cache_control.ttl")
    return KEPT_LONG_S if ttl == "1h" else KEPT_S


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    return encode_json(model)
