"""Anthropic's messages API: system text apart, turns that alternate and begin with the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from yarl import URL

from fleet.batches import BatchApi
from fleet.conversation import MOST_MARKS
from fleet.quoting import Hidden
from fleet.workers.calls import Call, Completion
from fleet.workers.ports import Lessons
from fleet.workers.providers.answers.parts import read_content
from fleet.workers.providers.answers.streams import AnswerStream, AnthropicStream
from fleet.workers.providers.base import HttpProvider, bad_wire
from fleet.workers.providers.batches.anthropic_api import AnthropicBatchApi
from fleet.workers.providers.batches.http import BatchHttp
from fleet.workers.providers.finish_reasons import finish_reason
from fleet.workers.providers.usage import read_usage
from fleet.workers.providers.written.anthropic_body import (
    ABSENT,
    add_wishes,
    bound_marks,
    read_thoughts,
    read_tool_calls,
    split_messages,
    thinks,
    with_documents_kept,
)
from fleet.workers.providers.written.wishes import MARK, has_marks, lacking, marks_in

#: Version of the wire, as the vendor dates it.
API_VERSION = "2023-06-01"
#: What a call carries whose token was exchanged (workload identity), beside the token itself.
TOKEN_BETA = "oauth-2025-04-20"
_BETA = "anthropic-beta"
#: Highest temperature this vendor takes; a hotter persona gets this one.
MAX_TEMPERATURE = 1.0


class Anthropic(HttpProvider):
    """Adapter for `POST {base_url}/v1/messages`."""

    _STREAM: ClassVar[Mapping[str, Any]] = {"stream": True}
    _WIRES = frozenset({"anthropic"})
    _RAW_PATH = "/v1"

    def __init__(
        self, base_url: URL, *, name: str = "", lessons: Lessons | None = None, takes_tokens: bool = False
    ) -> None:
        super().__init__(base_url, "/v1/messages", name=name, lessons=lessons)
        self._takes_tokens = takes_tokens

    def batches(self, key: Callable[[], str]) -> BatchApi:
        """Return the message batches of this API under a key."""
        return AnthropicBatchApi(BatchHttp(self, key))

    def _stream(self) -> AnswerStream:
        return AnthropicStream()

    def _headers(self, api_key: str) -> Mapping[str, str]:
        own = key_headers(api_key, is_token=self._takes_tokens)
        return {**own, "anthropic-version": API_VERSION, "Content-Type": "application/json"}

    def _joined(self, theirs: Mapping[str, str], own: Mapping[str, str]) -> Mapping[str, str]:
        name = next((name for name in theirs if name.lower() == _BETA), None) if _BETA in own else None
        return own if name is None else {**_without(own, _BETA), name: f"{theirs[name]},{TOKEN_BETA}"}

    def _body(self, call: Call) -> dict[str, Any]:
        messages = with_documents_kept(call.messages, call.wishes)
        system, turns = split_messages(messages)
        body: dict[str, Any] = {"model": call.model, "max_tokens": call.max_output_tokens, "messages": turns}
        if system:
            body["system"] = system
        if call.temperature is not None and not thinks(call.wishes):
            body["temperature"] = min(call.temperature, MAX_TEMPERATURE)
        add_wishes(body, call.wishes)
        if messages is not call.messages or has_marks(call):
            bound_marks(body)
        return body

    def _left_out(self, call: Call) -> tuple[str, ...]:
        heat = ("temperature",) if thinks(call.wishes) and call.temperature is not None else ()
        most = MOST_MARKS - (MARK in call.wishes.extra_body)
        marks = (MARK,) if has_marks(call) and len(marks_in(call)) > most else ()
        return (*lacking(call.wishes, ABSENT), *heat, *marks)

    def _completion(self, call: Call, answer: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        blocks = answer.get("content")
        if not isinstance(blocks, list):
            if answer.get("type") != "message" or blocks is not None:
                raise bad_wire(self.host, "a message with `content`", blocks)
            blocks = []
        text, reasoning = read_content(blocks)
        reason = answer.get("stop_reason")
        return Completion(
            text=text,
            finish_reason=finish_reason(reason) if isinstance(reason, str) and reason else "stop",
            usage=read_usage(answer.get("usage"), call, reasoning + text),
            headers=headers,
            tool_calls=read_tool_calls(blocks),
            thoughts=read_thoughts(blocks),
            tier=_tier(answer),
            left_out=self._left_out(call),
            reasoning=reasoning,
        )


def _tier(answer: dict[str, Any]) -> str | None:
    usage = answer.get("usage")
    tier = usage.get("service_tier") if isinstance(usage, dict) else None
    return tier if isinstance(tier, str) else None


def key_headers(api_key: str, *, is_token: bool) -> dict[str, str]:
    """Return the headers that carry a key, or a token that was had in its place; none for none."""
    if not api_key:
        return {}
    if is_token:
        return {"Authorization": Hidden(f"Bearer {api_key}"), _BETA: TOKEN_BETA}
    return {"x-api-key": Hidden(api_key)}


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}
