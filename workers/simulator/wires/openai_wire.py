"""OpenAI's chat completions, as far as the simulator speaks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from fleet.quoting import quote
from fleet.schema import compiled
from fleet.workers.context import count_tokens
from fleet.workers.simulator.answers import SimulatedAnswer
from fleet.workers.simulator.prefix_cache import KEPT_A_DAY_S, KEPT_S, MIN_TOKENS, automatic_places
from fleet.workers.simulator.rich import strict
from fleet.workers.simulator.rich.spoken import Choice, Spoken
from fleet.workers.simulator.rich.streaming import openai_events
from fleet.workers.simulator.rich.tool_turns import check_openai_turns, openai_tool_turns
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
    read_whole,
)
from fleet.workers.simulator.wires.wire import (
    CompletionRequest,
    Turns,
    Untranslated,
    check_temperature,
    encode_json,
    last_question,
    read_limit,
    read_messages,
    read_model,
)

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_SYSTEM = frozenset({"system", "developer"})
#: What a plain request has; any other field makes it a rich one.
_PLAIN = frozenset({"model", "messages", "temperature", "max_tokens", "max_completion_tokens"})
#: Statuses of a failure in the vendor's proportions: mostly the model server, sometimes the gateway.
_FAILURES = (500, 503, 500, 502)
_TYPES = {401: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
TIERS = ("auto", "default", "flex", "priority", "scale")
#: Answers of one request at most.
MAX_N = 128
#: Tokens of an image in low detail and otherwise, and of a file or sound given by its address.
LOW_IMAGE_TOKENS, IMAGE_TOKENS, ADDRESS_TOKENS = 85, 765, 1000
#: Characters of base64 that count as one token of a file or sound.
DATA_CHARS_PER_TOKEN = 16
#: The vendor's words for why an answer ended.
_REASONS = {"stop_sequence": "stop"}


class OpenAIWire(Untranslated):
    """`POST /v1/chat/completions`."""

    limits_count_cached = True

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        model = read_model(body)
        check_temperature(body, most=2.0)
        limit, old_limit = read_limit(body, "max_completion_tokens"), read_limit(body, "max_tokens")
        talk = read_messages(body, _ROLES, _read_part)
        limit = old_limit if limit is None else limit
        system = talk.turns[0][1] if talk.turns[0][0] in _SYSTEM else ""
        wanted = None
        turns, tokens, media = talk
        if media is not None or tokens >= MIN_TOKENS or not body.keys() <= _PLAIN:
            tokens += _count_tools(body)
            wanted = _read_wanted(body, turns, tokens, media or Media())
        return CompletionRequest(model, last_question(turns), limit, tokens, system, body.get("temperature"), wanted)

    def answer(self, request: CompletionRequest, answer: SimulatedAnswer, answer_id: str, unix_s: int) -> bytes:
        """Return the body of a 200 to a plain request."""
        reason = "length" if answer.cut else "stop"
        return (
            f'{{"id":"chatcmpl-{answer_id}","object":"chat.completion","created":{unix_s},'
            f'"model":{_quoted(request.model)},"choices":[{{"index":0,"message":{{"role":"assistant",'
            f'"content":{encode_json(answer.text)},"refusal":null}},"logprobs":null,"finish_reason":"{reason}"}}],'
            f'"usage":{{"prompt_tokens":{request.input_tokens},"completion_tokens":{answer.tokens},'
            f'"total_tokens":{request.input_tokens + answer.tokens}}},"system_fingerprint":"fleet-simulator"}}'
        ).encode("ascii")

    def rich_answer(self, request: CompletionRequest, spoken: Spoken, answer_id: str, unix_s: int) -> dict[str, Any]:
        """Return the body of a 200 to any request, as JSON values."""
        wanted = request.wanted or Wanted()
        tier = {} if wanted.tier is None else {"service_tier": wanted.tier}
        return {
            "id": f"chatcmpl-{answer_id}",
            "object": "chat.completion",
            "created": unix_s,
            "model": request.model,
            "choices": [_told(index, choice) for index, choice in enumerate(spoken.choices)],
            "usage": {
                "prompt_tokens": request.input_tokens,
                "completion_tokens": spoken.tokens,
                "total_tokens": request.input_tokens + spoken.tokens,
                "prompt_tokens_details": {
                    "cached_tokens": spoken.cached.read,
                    "cache_write_tokens": spoken.cached.written + spoken.cached.written_long,
                    "audio_tokens": wanted.audio_tokens,
                    "image_tokens": wanted.image_tokens,
                },
                "completion_tokens_details": {
                    "reasoning_tokens": spoken.thinking_tokens,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
            },
            "system_fingerprint": "fleet-simulator",
            **tier,
        }

    def events(self, answer: Mapping[str, Any], wanted: Wanted) -> list[bytes]:
        """Return a body of a 200 as server-sent events."""
        return openai_events(answer, wanted)

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
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        error = {"message": message, "type": kind, "param": param, "code": code}
        return encode_json({"error": error}).encode("ascii")

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends."""
        return _FAILURES[chance % len(_FAILURES)]


def _told(index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.thoughts:
        message["reasoning_content"] = choice.thoughts
    if choice.calls:
        message["content"] = choice.text or None
        message["tool_calls"] = [
            {
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.calls
        ]
    reason = _REASONS.get(choice.reason, choice.reason)
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def _count_tools(body: dict[str, Any]) -> int:
    """Return the tokens of tools and their calls. Raises `WireError` when a result does not follow its call."""
    tools = sum(count_tokens(encode_json(tool)) for tool in read_list_at(body.get("tools"), "tools", most=MAX_TOOLS))
    return tools + check_openai_turns(body["messages"])


def _read_wanted(body: dict[str, Any], turns: Turns, tokens: int, media: Media) -> Wanted:
    """Return what is asked beyond an answer. Raises `WireError`. Unknown fields are let pass, as most servers do."""
    read_share(body.get("top_p"), "top_p")
    tools = _read_tools(body)
    is_streamed = read_flag(body.get("stream"), "stream", default=False)
    if body.get("stream_options") is not None and not is_streamed:
        raise WireError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    options = read_object_at(body.get("stream_options") or {}, "stream_options")
    tier = read_choice(body.get("service_tier"), TIERS, "service_tier")
    return Wanted(
        schema=_read_format(body, turns),
        tools=tools,
        choice=_read_tool_choice(body, tools),
        is_parallel=read_flag(body.get("parallel_tool_calls"), "parallel_tool_calls", default=True),
        is_answered=turns[-1][0] == "tool",
        tool_turns=openai_tool_turns(body["messages"], turns) if tools else NO_TURNS,
        effort=read_choice(body.get("reasoning_effort"), EFFORTS, "reasoning_effort"),
        verbosity=read_choice(body.get("verbosity"), ("low", "medium", "high"), "verbosity") or "medium",
        seed=read_whole(body.get("seed"), "seed", least=-(2**63), most=2**63 - 1),
        stop=read_stops(body.get("stop"), "stop"),
        n=read_whole(body.get("n"), "n", least=1, most=MAX_N) or 1,
        tier="default" if tier == "auto" else tier,
        is_streamed=is_streamed,
        tells_usage=read_flag(options.get("include_usage"), "stream_options.include_usage", default=False),
        image_tokens=media.image_tokens,
        audio_tokens=media.audio_tokens,
        places=_places(body, turns, tokens) if tokens >= MIN_TOKENS else (),
        cache_key=_read_cache_key(body),
    )


def _read_cache_key(body: dict[str, Any]) -> str:
    key = body.get("prompt_cache_key") or ""
    if not isinstance(key, str):
        raise WireError("prompt_cache_key: expected a string", param="prompt_cache_key", code="invalid_type")
    return key


def _places(body: dict[str, Any], turns: Turns, tokens: int) -> list[CachePlace]:
    """Return where the automatic cache looks: tools come first in a prompt."""
    texts = [encode_json(body.get("tools") or []), *(f"{role}\x1f{text}" for role, text in turns)]
    kept = read_choice(body.get("prompt_cache_retention"), ("in_memory", "24h"), "prompt_cache_retention")
    return automatic_places(texts, tokens, KEPT_A_DAY_S if kept == "24h" else KEPT_S)


def _read_format(body: dict[str, Any], turns: Turns) -> Mapping[str, Any] | None:
    """Return the schema of `response_format`; an empty one for any JSON object. Raises `WireError`."""
    if body.get("response_format") is None:
        return None
    told = read_object_at(body["response_format"], "response_format")
    kind = read_choice(told.get("type"), ("json_object", "json_schema", "text"), "response_format.type")
    if kind is None:
        raise WireError(
            "Missing required parameter: 'response_format.type'.",
            param="response_format.type",
            code="missing_required_parameter",
        )
    if kind == "text":
        return None
    if kind == "json_object":
        if not any("json" in text.lower() for _, text in turns):
            raise WireError(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                param="messages",
            )
        return {}
    form = read_object_at(told.get("json_schema"), "response_format.json_schema")
    name = read_name(form.get("name"), "response_format.json_schema.name")
    schema = read_object_at(form.get("schema", {"type": "object"}), "response_format.json_schema.schema")
    is_strict = read_flag(form.get("strict"), "response_format.json_schema.strict", default=False)
    _check_schema(schema, f"response_format '{name}'", "response_format", is_strict=is_strict)
    return schema


def _read_tools(body: dict[str, Any]) -> tuple[OfferedTool, ...]:
    tools = []
    for i, tool in enumerate(read_list_at(body.get("tools"), "tools", most=MAX_TOOLS)):
        where = f"tools[{i}]"
        read_choice(read_object_at(tool, where).get("type"), ("function", "custom"), f"{where}.type")
        if tool.get("type") == "custom":  # free text to a tool; nothing here calls one
            continue
        function = read_object_at(tool.get("function"), f"{where}.function")
        name = read_name(function.get("name"), f"{where}.function.name")
        parameters = read_object_at(function.get("parameters") or {}, f"{where}.function.parameters")
        if parameters:
            is_strict = read_flag(function.get("strict"), f"{where}.function.strict", default=False)
            param = f"{where}.function.parameters"
            _check_schema(
                parameters, f"function '{name}'", param, is_strict=is_strict, code="invalid_function_parameters"
            )
        tools.append(offered(name, function.get("description"), parameters))
    return tuple(tools)


def _check_schema(
    schema: Mapping[str, Any], what: str, param: str, *, is_strict: bool, code: str | None = None
) -> None:
    try:
        compiled(schema)
        objection = strict.openai_objection(schema, is_strict=is_strict)
    except ValueError as error:
        objection = str(error)
    if objection is not None:
        raise WireError(f"Invalid schema for {what}: {objection}", param=param, code=code)


def _read_tool_choice(body: dict[str, Any], tools: Iterable[OfferedTool]) -> str:
    """Return `auto`, `none`, `required` or a tool's name. Raises `WireError`."""
    told = body.get("tool_choice")
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not body.get("tools"):
            raise WireError(
                f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", param=name
            )
    if told is None or isinstance(told, str):
        return read_choice(told, ("none", "auto", "required"), "tool_choice") or "auto"
    function = read_object_at(read_object_at(told, "tool_choice").get("function"), "tool_choice.function")
    wanted = str(function.get("name"))
    if wanted not in [tool.name for tool in tools]:
        raise WireError(f"Tool choice {quote(wanted)} not found in 'tools' parameter.", param="tool_choice")
    return wanted


def _read_part(part: dict[str, Any], where: str, media: Media) -> str:
    """Count an image, a sound or a file; none of them has text. Raises `WireError`."""
    kind = part.get("type")
    if kind == "image_url":
        image = read_object_at(part.get("image_url"), f"{where}.image_url")
        url, detail = image.get("url"), read_choice(image.get("detail"), ("auto", "low", "high"), f"{where}.detail")
        if not isinstance(url, str) or not url.startswith(("http://", "https://", "data:image/")):
            raise WireError(f"{where}.image_url.url: expected an address or a data URL of an image", param=where)
        tokens = LOW_IMAGE_TOKENS if detail == "low" else IMAGE_TOKENS
        media.image_tokens += tokens
    elif kind == "input_audio":
        tokens = _data_tokens(read_object_at(part.get("input_audio"), f"{where}.input_audio").get("data"), where)
        media.audio_tokens += tokens
    elif kind == "file":
        file = read_object_at(part.get("file"), f"{where}.file")
        tokens = ADDRESS_TOKENS if file.get("file_id") else _data_tokens(file.get("file_data"), where)
    elif kind == "refusal":
        return str(part.get("refusal", ""))
    else:
        raise WireError(
            f"Invalid value: {quote(kind)}. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', and "
            "'file'.",
            param=where,
            code="invalid_value",
        )
    media.tokens += tokens
    return ""


def _data_tokens(data: object, where: str) -> int:
    if not isinstance(data, str) or not data:
        raise WireError(f"{where}: expected base64 data", param=where)
    return 1 + len(data) // DATA_CHARS_PER_TOKEN


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    return encode_json(model)
