"""Gemini's `generateContent`, as far as the simulator speaks it: read as a chat completion, told in its own words."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fleet.workers.simulator.rich.streaming import data_event, pieces
from fleet.workers.simulator.rich.wanted import MAX_TOOLS, Wanted, WireError, read_list_at, read_object_at, read_whole
from fleet.workers.simulator.wires.openai_wire import OpenAIWire
from fleet.workers.simulator.wires.wire import CompletionRequest, encode_json

#: What its addresses begin with, in both versions, and the two ways to ask a model: whole, and in pieces.
PATHS, WHOLE, IN_PIECES = ("/v1/models/", "/v1beta/models/"), ":generateContent", ":streamGenerateContent"
#: Turns of a conversation, and parts of one, at most.
MAX_TURNS = 10_000
#: Fields of `generationConfig` and what a chat completion calls them.
_SETTINGS = {
    "temperature": "temperature", "topP": "top_p", "maxOutputTokens": "max_tokens", "stopSequences": "stop",
    "seed": "seed", "candidateCount": "n",
}  # fmt: skip
#: Fields whose insides are the user's own.
_OPAQUE = frozenset({"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"})
_MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
_REASONS = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
#: The vendor's words for statuses.
_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def is_asked(path: str) -> bool:
    """True for the address of a model that is asked for an answer."""
    return path.endswith((WHOLE, IN_PIECES)) and path.startswith(PATHS)


class GeminiWire(OpenAIWire):
    """`POST /v1/models/MODEL:generateContent` and `:streamGenerateContent?alt=sse`.

    Limits are told by no header. A 429 says in its body when to come again.
    """

    is_translated, tells_limits, tells_writes = True, False, False

    def understood(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the chat completion that says the same. Raises `WireError`. Unknown fields are let pass."""
        body = _humped(body)
        model, _, way = path.partition("/models/")[2].rpartition(":")
        if f":{way}" == IN_PIECES and query.get("alt") != "sse":
            raise WireError("alt: expected `sse`, nothing else is simulated", param="alt")
        config = read_object_at(body.get("generationConfig") or {}, "generationConfig")
        chat: dict[str, Any] = {"model": model}
        chat |= {theirs: config[ours] for ours, theirs in _SETTINGS.items() if config.get(ours) is not None}
        if f":{way}" == IN_PIECES:
            chat |= {"stream": True, "stream_options": {"include_usage": True}}
        if (schema := _schema(config)) is not None:
            form = {"name": "answer", "schema": schema, "strict": False}
            chat["response_format"] = {"type": "json_schema", "json_schema": form}
        chat |= _thinking(config)
        if tools := [tool for one in read_list_at(body.get("tools"), "tools", most=MAX_TOOLS) for tool in _tools(one)]:
            chat["tools"] = tools
            chat["tool_choice"] = _choice(body)
        return {**chat, "messages": list(_turns(body))}

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        limit, shows = body.get("thinking_limit"), bool(body.get("shows_thinking"))
        asked = super().read(body, headers)
        wanted = asked.wanted or Wanted()
        return replace(asked, wanted=replace(wanted, thinking_limit=limit, shows_thinking=shows))

    def told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return a chat completion as Gemini tells it; an error instead of one stays."""
        if "choices" not in answer:
            return answer
        told: dict[str, Any] = {
            "candidates": [_candidate(choice) for choice in answer["choices"]],
            "modelVersion": answer["model"],
            "responseId": answer["id"].removeprefix("chatcmpl-"),
        }
        return {**told, "usageMetadata": _usage(answer["usage"])} if answer.get("usage") else told

    def events(self, answer: Mapping[str, Any], wanted: Wanted) -> list[bytes]:
        """Return a body of a 200 as server-sent events: the last one says why it ended, and the usage."""
        if "candidates" not in answer:
            return [data_event(answer)]
        head = {name: value for name, value in answer.items() if name not in ("candidates", "usageMetadata")}
        usage = {"usageMetadata": answer["usageMetadata"]} if "usageMetadata" in answer else {}
        events = []
        for candidate in answer["candidates"]:
            index = candidate["index"]
            for part in candidate["content"]["parts"]:
                for piece in _pieces(part):
                    content = {"role": "model", "parts": [piece]}
                    events.append(data_event({"candidates": [{"content": content, "index": index}], **head}))
            ends = {**candidate, "content": {"role": "model", "parts": [{"text": ""}]}}
            events.append(data_event({"candidates": [ends], **usage, **head}))
        return events

    def error(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> bytes:
        """Return the body of an error, with a `RetryInfo` where it passes."""
        error: dict[str, Any] = {"code": status, "message": message}
        error["status"] = _STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT")
        if retry_after_s is not None:
            error["details"] = [{"@type": _RETRY_INFO, "retryDelay": f"{math.ceil(retry_after_s * 1000) / 1000:g}s"}]
        return encode_json({"error": error}).encode("ascii")

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends."""
        return (500, 503)[chance % 2]


def _humped(value: Any) -> Any:
    """Return a body with its fields spelt in one way: this vendor takes `topP` and `top_p`."""
    if isinstance(value, list):
        return [_humped(one) for one in value]
    if not isinstance(value, dict):
        return value
    named = ((re.sub(r"_([a-z])", lambda found: found[1].upper(), name), inner) for name, inner in value.items())
    return {name: inner if name in _OPAQUE else _humped(inner) for name, inner in named}


def _thinking(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how much is thought, and whether it is told. A budget below zero leaves it to the model."""
    told = read_object_at(config.get("thinkingConfig") or {}, "generationConfig.thinkingConfig")
    if not told:
        return {}
    where = "generationConfig.thinkingConfig.thinkingBudget"
    budget = read_whole(told.get("thinkingBudget"), where, least=-1, most=32_768)
    level = str(told.get("thinkingLevel") or "medium").lower()
    return {
        "reasoning_effort": "none" if budget == 0 else level,
        "thinking_limit": budget if budget is not None and budget > 0 else None,
        "shows_thinking": told.get("includeThoughts"),
    }


def _schema(config: Mapping[str, Any]) -> Any:
    """Return the JSON schema that is asked for; any object for JSON without one; None for text."""
    for name in ("responseJsonSchema", "responseSchema"):
        if config.get(name) is not None:
            return _lowered(config[name])
    return {"type": "object"} if config.get("responseMimeType") == "application/json" else None


def _lowered(schema: Any) -> Any:
    """Return a schema with its types in small letters: this vendor also takes `OBJECT`."""
    if isinstance(schema, list):
        return [_lowered(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: value.lower() if name == "type" and isinstance(value, str) else _lowered(value)
        for name, value in schema.items()
    }


def _tools(one: object) -> Iterator[dict[str, Any]]:
    """Yield the functions of a tool; what the vendor runs itself is as good as none."""
    declared = read_object_at(one, "tools").get("functionDeclarations")
    for tool in read_list_at(declared, "tools.functionDeclarations", most=MAX_TOOLS):
        inner = read_object_at(tool, "tools.functionDeclarations")
        parameters = _lowered(inner.get("parametersJsonSchema") or inner.get("parameters") or {})
        yield {"type": "function", "function": {"name": inner.get("name"), "parameters": parameters}}


def _choice(body: Mapping[str, Any]) -> Any:
    config = read_object_at(body.get("toolConfig") or {}, "toolConfig").get("functionCallingConfig") or {}
    config = read_object_at(config, "toolConfig.functionCallingConfig")
    allowed = config.get("allowedFunctionNames")
    if config.get("mode") == "ANY" and isinstance(allowed, list) and len(allowed) == 1:
        return {"type": "function", "function": {"name": allowed[0]}}
    return _MODES.get(str(config.get("mode") or "AUTO"), "auto")


def _turns(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a chat completion. Calls without an id get one; their results follow in their order."""
    system = body.get("systemInstruction")
    if system is not None:
        yield {"role": "system", "content": _texts(_parts(system, "systemInstruction"))}
    contents, calls = (
        read_list_at(body.get("contents"), "contents", most=MAX_TURNS),
        defaultdict[str, deque[str]](deque),
    )
    if not contents:
        raise WireError("* GenerateContentRequest.contents: contents is not specified")
    for i, content in enumerate(contents):
        parts, role = _parts(content, f"contents[{i}]"), content.get("role") or "user"
        if role not in ("user", "model"):
            raise WireError("Please use a valid role: user, model.")
        if role == "model":
            yield _said(parts, calls, i)
            continue
        results = [part["functionResponse"] for part in parts if part.get("functionResponse")]
        for result in results:
            open_ids = calls[str(result.get("name"))]
            call_id = open_ids.popleft() if open_ids else str(result.get("id"))
            yield {"role": "tool", "tool_call_id": call_id, "content": encode_json(result.get("response"))}
        if rest := [_part(part, f"contents[{i}]") for part in parts if not part.get("functionResponse")]:
            is_text = all(part["type"] == "text" for part in rest)
            yield {"role": "user", "content": "".join(part["text"] for part in rest) if is_text else rest}


def _said(parts: list[Mapping[str, Any]], calls: Mapping[str, deque[str]], turn: int) -> dict[str, Any]:
    """Return a turn of the model's, and note the ids of its calls."""
    text = _texts([part for part in parts if not part.get("thought")])
    made = []
    for number, part in enumerate(parts):
        if part.get("functionCall"):
            called = read_object_at(part["functionCall"], "functionCall")
            call_id = str(called.get("id") or f"{turn}-{number}")
            calls[str(called.get("name"))].append(call_id)
            function = {"name": called.get("name"), "arguments": encode_json(called.get("args") or {})}
            made.append({"id": call_id, "type": "function", "function": function})
    return {"role": "assistant", "content": text or None, "tool_calls": made} if made else {
        "role": "assistant", "content": text
    }  # fmt: skip


def _parts(content: object, where: str) -> list[Mapping[str, Any]]:
    """Return the parts of a turn. Raises `WireError`."""
    parts = read_list_at(read_object_at(content, where).get("parts"), f"{where}.parts", most=MAX_TURNS)
    return [read_object_at(part, f"{where}.parts") for part in parts]


def _texts(parts: list[Mapping[str, Any]]) -> str:
    return "".join(str(part.get("text") or "") for part in parts)


def _part(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a part of a chat completion's message. Raises `WireError`."""
    if isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    data, file = part.get("inlineData"), part.get("fileData")
    if isinstance(data, dict):
        if str(data.get("mimeType")).startswith("image/"):
            url = f"data:{data['mimeType']};base64,{data.get('data')}"
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "file", "file": {"file_data": data.get("data")}}
    if isinstance(file, dict):
        return {"type": "file", "file": {"file_id": file.get("fileUri")}}
    raise WireError(f"{where}: expected text, inlineData, fileData or functionResponse")


def _candidate(choice: Mapping[str, Any]) -> dict[str, Any]:
    message, reason = choice["message"], choice.get("finish_reason")
    parts: list[dict[str, Any]] = []
    if thoughts := message.get("reasoning_content"):
        parts.append({"text": thoughts, "thought": True})
    if text := message.get("content"):
        parts.append({"text": text})
    for call in message.get("tool_calls") or ():
        function = call["function"]
        # Cut arguments are no JSON: the vendor then sends a call without them.
        arguments = json.loads(function["arguments"]) if reason == "tool_calls" else {}
        parts.append({"functionCall": {"name": function["name"], "args": arguments}})
    ends = _REASONS.get(str(reason), str(reason).upper())
    return {"content": {"role": "model", "parts": parts}, "finishReason": ends, "index": choice.get("index", 0)}


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage: what was thought stands beside the candidates, and nothing that is zero is told."""
    given, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    thought = made.get("reasoning_tokens", 0)
    told = {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"] - thought,
        "totalTokenCount": usage["total_tokens"],
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage["prompt_tokens"]}],
    }
    more = {"thoughtsTokenCount": thought, "cachedContentTokenCount": given.get("cached_tokens", 0)}
    return {**told, **{name: count for name, count in more.items() if count}}


def _pieces(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{**part, "text": piece} for piece in pieces(part["text"])] if "text" in part else [part]
