"""Odd refusals: errors that providers and the proxies before them were seen to send, and what they are sent for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.wires.wire import CompletionRequest, Wire, encode_json

#: Tokens of prompt and answer that the models with a small window take together.
WINDOW_TOKENS = 2048
#: Tokens of an answer that the model with a small allowance gives at most.
MOST_OUTPUT_TOKENS = 256


class OddCall(NamedTuple):
    """A request that meets something odd.

    Args:
        wire: Whose format it has.
        body: As it came, or the chat completion that says the same.
        asked: As it was read.
    """

    wire: Wire
    body: Mapping[str, Any]
    asked: CompletionRequest

    @property
    def is_anthropic(self) -> bool:
        return "anthropic" in type(self.wire).__name__.lower()

    @property
    def roles(self) -> list[str]:
        return [message["role"] for message in self.body["messages"]]


@dataclass(frozen=True, slots=True)
class Refused:
    """An error as it is sent.

    Args:
        status: HTTP status.
        body: As JSON values; a text is sent as it is.
        headers: Beside the usual ones.
        means: The status that it means, where HTTP says another one.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    means: int | None = None

    @property
    def raw(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else encode_json(self.body).encode("ascii")


#: Says no to a request; None: has nothing against it.
Refuse = Callable[[OddCall], Refused | None]


def refusal(
    seen: OddCall,
    status: int,
    message: str,
    *,
    kind: str,
    param: str | None = None,
    code: str | None = None,
    **more: Any,
) -> Refused:
    """Return an error in the vendor's own shape."""
    headers = more.pop("headers", {})
    if not seen.wire.tells_limits:  # Gemini's own shape
        return Refused(status, json.loads(seen.wire.error(status, message, param=param, code=code)), headers)
    if seen.is_anthropic:
        return Refused(status, {"type": "error", "error": {"type": kind, "message": message, **more}}, headers)
    return Refused(status, {"error": {"message": message, "type": kind, "param": param, "code": code, **more}}, headers)


def invalid(
    seen: OddCall, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
) -> Refused:
    """Return an error that is the request's."""
    return refusal(seen, status, message, kind="invalid_request_error", param=param, code=code)


def temperature(seen: OddCall) -> Refused | None:
    """The newer models of both vendors."""
    value = seen.body.get("temperature")
    if value is None or value == 1:
        return None
    if seen.is_anthropic:
        return invalid(seen, "`temperature` is deprecated for this model.")
    return invalid(
        seen,
        f"Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) value is "
        "supported.",
        param="temperature",
        code="unsupported_value",
    )


def temperature_by_proxy(seen: OddCall) -> Refused | None:
    """A proxy's own words around it, without the parameter's name apart."""
    if seen.body.get("temperature") is None:
        return None
    message = (
        "proxy.BadRequestError: upstream - {'error': {'message': \"Unsupported parameter: 'temperature' is not "
        'supported with this model."}}. Received Model Group=reasoner'
    )
    return Refused(400, {"error": {"message": message, "type": None, "param": None, "code": "400"}})


def sampling(seen: OddCall) -> Refused | None:
    """Several parameters at once, in the plural."""
    given = [name for name in ("temperature", "top_p") if seen.body.get(name) is not None]
    if not given:
        return None
    return invalid(seen, f"reasoning models don't support the parameters {' and '.join(given)}, please remove them")


def max_tokens(seen: OddCall) -> Refused | None:
    """The newer name of the limit is wanted."""
    if seen.is_anthropic or "max_tokens" not in seen.body:
        return None
    return invalid(
        seen,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        param="max_tokens",
        code="unsupported_parameter",
    )


def system_role(seen: OddCall) -> Refused | None:
    """Templates without a place for it, as with Gemma."""
    if not seen.body.get("system") and not {"system", "developer"} & set(seen.roles):
        return None
    return _top_level(400, "System role not supported")


def response_format(seen: OddCall) -> Refused | None:
    """Servers without structured output."""
    output = seen.body.get("output_config")
    asked = seen.body.get("response_format") or (isinstance(output, dict) and output.get("format"))
    if not asked or (isinstance(asked, dict) and asked.get("type") == "text"):
        return None
    name = "output_config.format" if seen.is_anthropic else "response_format"
    return invalid(seen, f"This {name} type is unavailable now", param=name)


def strict_schema(seen: OddCall) -> Refused | None:
    """Servers that know json_schema, but not `strict`."""
    form = seen.body.get("response_format")
    schema = form.get("json_schema") if isinstance(form, dict) else None
    if not isinstance(schema, dict) or not schema.get("strict"):
        return None
    return invalid(seen, "Invalid schema for response_format: strict mode is not supported by this model.",
                   param="response_format")  # fmt: skip


def tools(seen: OddCall) -> Refused | None:
    """Models without tools."""
    return invalid(seen, f"{seen.asked.model} does not support tools") if seen.body.get("tools") else None


def stream_options(seen: OddCall) -> Refused | None:
    """Servers that stream, but know nothing of usage in a stream."""
    if seen.body.get("stream_options") is None:
        return None
    return invalid(seen, "Unrecognized request argument supplied: stream_options")


def unknown_fields(seen: OddCall) -> Refused | None:
    """Servers that take nothing that they do not know, each told in a list."""
    known = {"model", "messages", "system", "max_tokens", "temperature", "stream"}
    extra = [name for name in seen.body if name not in known]
    if not extra:
        return None
    told = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in extra
    ]
    return Refused(422, {"detail": told})


def small_output(seen: OddCall) -> Refused | None:
    """A server's own bound, told without an `error` object."""
    name = "max_completion_tokens" if "max_completion_tokens" in seen.body else "max_tokens"
    if (seen.asked.max_tokens or 0) <= MOST_OUTPUT_TOKENS:
        return None
    return Refused(422, {"detail": f"{name} must be less than or equal to {MOST_OUTPUT_TOKENS}"})


def long_context(seen: OddCall) -> Refused | None:
    """The vendor's words."""
    wanted = seen.asked.input_tokens + (seen.asked.max_tokens or 0)
    if wanted <= WINDOW_TOKENS:
        return None
    if seen.is_anthropic:
        return invalid(seen, f"prompt is too long: {wanted} tokens > {WINDOW_TOKENS} maximum")
    return invalid(
        seen,
        f"This model's maximum context length is {WINDOW_TOKENS} tokens. However, you requested {wanted} tokens "
        f"({seen.asked.input_tokens} in the messages, {seen.asked.max_tokens or 0} in the completion). Please reduce "
        "the length of the messages or completion.",
        param="messages",
        code="context_length_exceeded",
    )


def long_context_top_level(seen: OddCall) -> Refused | None:
    """A local server's words, without an `error` object."""
    wanted = seen.asked.input_tokens + (seen.asked.max_tokens or 0)
    if wanted <= WINDOW_TOKENS:
        return None
    return _top_level(
        400, f"The context window of {WINDOW_TOKENS} tokens is exceeded: the request takes {wanted} tokens"
    )


def flex_capacity(seen: OddCall) -> Refused | None:
    """Only for the tier `flex`."""
    return flex_refusal(seen) if seen.body.get("service_tier") == "flex" else None


def flex_refusal(seen: OddCall) -> Refused:
    """Return the refusal of a call of the tier `flex` for want of capacity."""
    return refusal(seen, 429, "Resource Unavailable", kind="resource_unavailable", code="resource_unavailable")


def parallel_refusal(most: int) -> Refused:
    """Return a proxy's refusal of one call too many at the same time."""
    message = f"Crossed max_parallel_requests: current limit {most} (rate_limit_type: max_parallel_requests)"
    headers = {"retry-after": "60", "rate_limit_type": "max_parallel_requests"}
    return Refused(429, {"error": {"message": message, "type": "None", "param": "None", "code": "429"}}, headers)


def wrong_request(seen: OddCall, error: WireError) -> Refused:
    """Return a request's own error in the vendor's shape."""
    return invalid(seen, str(error), param=error.param, code=error.code)


def _top_level(status: int, message: str) -> Refused:
    return Refused(
        status, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": status}
    )
