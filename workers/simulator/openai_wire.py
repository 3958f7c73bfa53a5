"""OpenAI's chat completions, as far as the simulator speaks them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

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
)

_ROLES = frozenset({"system", "developer", "user", "assistant"})
_SYSTEM = frozenset({"system", "developer"})
#: Statuses of a failure in the vendor's proportions: mostly the model server, sometimes the gateway.
_FAILURES = (500, 503, 500, 502)
_TYPES = {401: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class OpenAIWire:
    """`POST /v1/chat/completions`."""

    def read(self, body: dict[str, Any], headers: Mapping[str, str]) -> CompletionRequest:
        """Read a request. Raises `WireError`."""
        model = read_model(body)
        check_options(body, max_temperature=2.0)
        if body.get("n") not in (None, 1):
            raise WireError("n: expected 1: this simulator gives one choice", param="n")
        limit, old_limit = read_limit(body, "max_completion_tokens"), read_limit(body, "max_tokens")
        messages, tokens = read_messages(body, _ROLES)
        limit = old_limit if limit is None else limit
        system = messages[0][1] if messages[0][0] in _SYSTEM else ""
        return CompletionRequest(model, last_question(messages), limit, tokens, system, body.get("temperature"))

    def answer(self, request: CompletionRequest, answer: SimulatedAnswer, answer_id: str, unix_s: int) -> bytes:
        """Return the body of a 200."""
        reason = "length" if answer.cut else "stop"
        return (
            f'{{"id":"chatcmpl-{answer_id}","object":"chat.completion","created":{unix_s},'
            f'"model":{_quoted(request.model)},"choices":[{{"index":0,"message":{{"role":"assistant",'
            f'"content":{encode_json(answer.text)},"refusal":null}},"logprobs":null,"finish_reason":"{reason}"}}],'
            f'"usage":{{"prompt_tokens":{request.input_tokens},"completion_tokens":{answer.tokens},'
            f'"total_tokens":{request.input_tokens + answer.tokens}}},"system_fingerprint":"fleet-simulator"}}'
        ).encode("ascii")

    def error(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
        """Return the body of an error."""
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        error = {"message": message, "type": kind, "param": param, "code": code}
        return encode_json({"error": error}).encode("ascii")

    def failure_status(self, chance: int) -> int:
        """Return one of the 5xx that this vendor sends."""
        return _FAILURES[chance % len(_FAILURES)]


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    return encode_json(model)
