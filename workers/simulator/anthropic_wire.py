"""Anthropic's messages, as far as the simulator speaks them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fleet.workers.context import MESSAGE_OVERHEAD_TOKENS
from fleet.workers.simulator.answers import SimulatedAnswer
from fleet.workers.simulator.wire import (
    CompletionRequest,
    WireError,
    check_options,
    encode_json,
    last_question,
    read_limit,
    read_messages,
    read_model,
    read_text,
    tokens_of,
)

_ROLES = frozenset({"user", "assistant"})
#: Statuses of a failure: 529 is this vendor's "overloaded".
_FAILURES = (500, 529)
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicWire:
    """`POST /v1/messages`."""

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        if "anthropic-version" not in headers:
            raise WireError("anthropic-version: header is required")
        model = read_model(body)
        check_options(body, max_temperature=1.0)
        limit = read_limit(body, "max_tokens")
        if limit is None:
            raise WireError("max_tokens: field required", param="max_tokens")
        messages, tokens = read_messages(body, _ROLES)
        if messages[0][0] != "user":
            raise WireError("messages: expected the first message to be the user's", param="messages")
        if not all(text.strip() for _, text in messages):
            raise WireError("messages: text content blocks must be non-empty", param="messages")
        system = ""
        if body.get("system") is not None:
            system = read_text(body["system"], "system")
            tokens += MESSAGE_OVERHEAD_TOKENS + tokens_of(system)
        return CompletionRequest(model, last_question(messages), limit, tokens, system, body.get("temperature"))

    def answer(self, request: CompletionRequest, answer: SimulatedAnswer, answer_id: str, unix_s: int) -> bytes:
        """Return the body of a 200."""
        reason = "max_tokens" if answer.cut else "end_turn"
        return (
            f'{{"id":"msg_{answer_id}","type":"message","role":"assistant","model":{_quoted(request.model)},'
            f'"content":[{{"type":"text","text":{encode_json(answer.text)}}}],"stop_reason":"{reason}",'
            f'"stop_sequence":null,"usage":{{"input_tokens":{request.input_tokens},"output_tokens":{answer.tokens},'
            f'"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}}}'
        ).encode("ascii")

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
        """Return the body of an error."""
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return encode_json({"type": "error", "error": {"type": kind, "message": message}}).encode("ascii")

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends."""
        return _FAILURES[chance % len(_FAILURES)]


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    return encode_json(model)
