"""OpenAI's Responses API, as far as the simulator speaks it: read as a chat completion, and told in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fleet.quoting import quote
from fleet.workers.simulator.rich.spoken import Spoken
from fleet.workers.simulator.rich.streaming import named_event, pieces
from fleet.workers.simulator.rich.wanted import (
    MAX_TOOLS,
    Responding,
    Wanted,
    WireError,
    read_flag,
    read_list_at,
    read_object_at,
)
from fleet.workers.simulator.wires.openai_wire import OpenAIWire
from fleet.workers.simulator.wires.wire import CompletionRequest

#: Items of a conversation at most.
MAX_ITEMS = 10_000
#: Fields that are called the same in a chat completion.
_SAME = (
    "model", "temperature", "top_p", "service_tier", "parallel_tool_calls", "stream", "prompt_cache_retention",
    "prompt_cache_key",
)  # fmt: skip
#: Fields that stand in the response as the request had them, and what they are when it had none.
_REPEATED: Mapping[str, Any] = {
    "instructions": None, "metadata": {}, "parallel_tool_calls": True, "previous_response_id": None, "store": True,
    "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
    "truncation": "disabled", "max_output_tokens": None,
}  # fmt: skip
#: The reasons of a chat completion that leave a response incomplete, in this API's words.
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesWire(OpenAIWire):
    """`POST /v1/responses`."""

    is_translated = True

    def understood(self, body: dict[str, Any], path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the chat completion that says the same. Raises `WireError`. Unknown fields are let pass."""
        chat = {name: body[name] for name in _SAME if body.get(name) is not None}
        if body.get("stream"):
            chat["stream_options"] = {"include_usage": True}
        if body.get("max_output_tokens") is not None:
            chat["max_completion_tokens"] = body["max_output_tokens"]
        text, thinking = (read_object_at(body.get(name) or {}, name) for name in ("text", "reasoning"))
        if thinking.get("effort") is not None:
            chat["reasoning_effort"] = thinking["effort"]
        if text.get("verbosity") is not None:
            chat["verbosity"] = text["verbosity"]
        form = read_object_at(text.get("format") or {"type": "text"}, "text.format")
        if form.get("type") != "text":
            inner = {name: value for name, value in form.items() if name != "type"}
            chat["response_format"] = {"type": form.get("type"), **({"json_schema": inner} if inner else {})}
        if tools := [_tool(tool) for tool in read_list_at(body.get("tools"), "tools", most=MAX_TOOLS)]:
            chat["tools"] = tools
        if (choice := body.get("tool_choice")) is not None and (tools or choice != "auto"):
            chat["tool_choice"] = (
                {"type": "function", "function": {"name": choice.get("name")}} if isinstance(choice, dict) else choice
            )
        if not tools:
            chat.pop("parallel_tool_calls", None)
        told = body.get("instructions")
        chat["messages"] = [*([{"role": "system", "content": told}] if told else []), *_turns(body)]
        chat["responding"] = _responding(body)
        return chat

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        responding = body.pop("responding")
        asked = super().read(body, headers)
        return replace(asked, wanted=replace(asked.wanted or Wanted(), responding=responding))

    def rich_answer(self, request: CompletionRequest, spoken: Spoken, answer_id: str, unix_s: int) -> dict[str, Any]:
        """Return the body of a 200 to any request, as JSON values, with what the response repeats of the request."""
        responding = request.wanted.responding if request.wanted else None
        answer = super().rich_answer(request, spoken, answer_id, unix_s)
        return {**answer, "repeated": responding.repeated if responding else {}}

    def told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return a chat completion as a response; an error instead of one stays."""
        if "choices" not in answer:
            return answer
        choice: dict[str, Any] = next(iter(answer["choices"]), {})
        reason = choice.get("finish_reason")
        incomplete = _INCOMPLETE.get(str(reason))
        status = "incomplete" if incomplete else "failed" if choice.get("error") else "completed"
        told = {
            "id": answer["id"].replace("chatcmpl-", "resp_"),
            "object": "response",
            "created_at": answer["created"],
            "model": answer["model"],
            "status": status,
            "error": choice.get("error"),
            "incomplete_details": {"reason": incomplete} if incomplete else None,
            **_REPEATED,
            **answer.get("repeated", {}),
            "output": list(_items(choice.get("message") or {}, answer["id"], status)),
            "service_tier": answer.get("service_tier") or "default",
        }
        return {**told, "usage": _usage(answer["usage"])} if answer.get("usage") else told

    def events(self, answer: Mapping[str, Any], wanted: Wanted) -> list[bytes]:
        """Return a body of a 200 as server-sent events; the usage is in the last one."""
        if answer.get("object") != "response":
            return [named_event("error", {**(answer.get("error") or {}), "type": "error"})]
        begun = {**answer, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        ends = f"response.{answer['status']}"
        told = [
            ("response.created", {"response": begun}),
            ("response.in_progress", {"response": begun}),
            *(event for index, item in enumerate(answer["output"]) for event in _item_events(index, item)),
            (ends, {"response": answer}),
        ]
        return [named_event(name, {"sequence_number": number, **said}) for number, (name, said) in enumerate(told)]


def _responding(body: Mapping[str, Any]) -> Responding:
    """Return what is kept and repeated of a request. Raises `WireError`."""
    repeated = {name: body[name] for name in _REPEATED if body.get(name) is not None}
    items = read_list_at(body.get("input"), "input", most=MAX_ITEMS)
    return Responding(items, repeated, is_stored=read_flag(body.get("store"), "store", default=True))


def _turns(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a chat completion; calls of tools that follow each other are one turn's."""
    turns: list[dict[str, Any]] = []
    for i, item in enumerate(read_list_at(body.get("input"), "input", most=MAX_ITEMS)):
        where = f"input[{i}]"
        kind = read_object_at(item, where).get("type") or "message"
        if kind == "message":
            turns.append({"role": item.get("role"), "content": _content(item.get("content"), where)})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if turns and turns[-1].get("tool_calls"):
                turns[-1]["tool_calls"].append(call)
            else:
                turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            said = _content(item.get("output"), where)
            turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": said})
        elif kind != "reasoning":
            raise WireError(f"Invalid value: {quote(kind)}.", param=f"{where}.type", code="invalid_value")
    return turns


def _content(content: object, where: str) -> object:
    """Return the text or the parts of a message in the words of a chat completion. Raises `WireError`."""
    if not isinstance(content, list):
        return content
    return [_part(read_object_at(part, f"{where}.content"), f"{where}.content[{i}]") for i, part in enumerate(content)]


def _part(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part.get("image_url"), **detail}}
    if kind == "input_file":
        return {"type": "file", "file": {"file_id": part.get("file_url") or part.get("file_id"), **part}}
    if kind == "refusal":
        return dict(part)
    raise WireError(f"Invalid value: {quote(kind)}.", param=f"{where}.type", code="invalid_value")


def _tool(tool: object) -> dict[str, Any]:
    """Return a tool in the words of a chat completion; one that the vendor runs itself is as good as none."""
    inner = read_object_at(tool, "tools")
    if inner.get("type") != "function":
        return {"type": "custom"}
    return {"type": "function", "function": {name: value for name, value in inner.items() if name != "type"}}


def _items(message: Mapping[str, Any], answer_id: str, status: str) -> Iterator[dict[str, Any]]:
    """Yield what a response puts out: thoughts, text, calls of tools."""
    number = answer_id.removeprefix("chatcmpl-")
    ended = "incomplete" if status == "incomplete" else "completed"
    if thoughts := message.get("reasoning_content"):
        summary = [{"type": "summary_text", "text": thoughts}]
        yield {"type": "reasoning", "id": f"rs_{number}", "summary": summary}
    content: list[dict[str, Any]] = []
    if text := message.get("content"):
        content.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    if refusal := message.get("refusal"):
        content.append({"type": "refusal", "refusal": refusal})
    calls = message.get("tool_calls") or ()
    if content or not calls:
        yield {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": ended, "content": content}
    for call in calls:
        function = call["function"]
        yield {
            "type": "function_call", "id": call["id"].replace("call_", "fc_"), "call_id": call["id"],
            "name": function["name"], "arguments": function["arguments"], "status": ended,
        }  # fmt: skip


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    given, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {name: given.get(name, 0) for name in ("cached_tokens", "cache_write_tokens")},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": made.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }


def _item_events(index: int, item: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield how one item comes, by name."""
    at = {"output_index": index, "item_id": item["id"]}
    empty = {name: [] if isinstance(value, list) else value for name, value in item.items()}
    if "arguments" in item:
        empty["arguments"] = ""
    if "status" in item:
        empty["status"] = "in_progress"
    yield "response.output_item.added", {"output_index": index, "item": empty}
    for number, part in enumerate(item.get("content") or ()):
        yield from _part_events({**at, "content_index": number}, part)
    for number, part in enumerate(item.get("summary") or ()):
        place, name = {**at, "summary_index": number}, "response.reasoning_summary"
        yield f"{name}_part.added", {**place, "part": {**part, "text": ""}}
        for piece in pieces(part["text"]):
            yield f"{name}_text.delta", {**place, "delta": piece}
        yield f"{name}_text.done", {**place, "text": part["text"]}
        yield f"{name}_part.done", {**place, "part": part}
    if "arguments" in item:
        name = "response.function_call_arguments"
        for piece in pieces(item["arguments"]):
            yield f"{name}.delta", {**at, "delta": piece}
        yield f"{name}.done", {**at, "name": item["name"], "arguments": item["arguments"]}
    yield "response.output_item.done", {"output_index": index, "item": dict(item)}


def _part_events(at: Mapping[str, Any], part: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = "refusal" if part["type"] == "refusal" else "text"
    name = f"response.{'refusal' if kind == 'refusal' else 'output_text'}"
    logs: dict[str, Any] = {} if kind == "refusal" else {"logprobs": []}
    yield "response.content_part.added", {**at, "part": {**part, kind: ""}}
    for piece in pieces(part[kind]):
        yield f"{name}.delta", {**at, "delta": piece, **logs}
    yield f"{name}.done", {**at, kind: part[kind], **logs}
    yield "response.content_part.done", {**at, "part": dict(part)}
