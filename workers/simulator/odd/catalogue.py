"""All odd behaviours by name: what `fleet simulator --help` lists, and what models, headers and the switch may name.

A model called `odd-NAME`, or any call with the header `x-fleet-odd: NAME`, behaves so; `POST /odd` makes a share of all
calls do. Each is an example of what public reports tell of real providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fleet.quoting import nearest, quote
from fleet.workers.simulator.odd import answers, refusals
from fleet.workers.simulator.odd.refusals import OddCall, Refuse, Refused, refusal
from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.voices import read_query
from fleet.workers.simulator.wires.limit_headers import Family

#: What a model's name begins with that behaves oddly, and the header that asks for the same.
PREFIX, HEADER = "odd-", "x-fleet-odd"
#: The model that is listed with a date of its end.
RETIRING = "retiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Odd:
    """One odd behaviour.

    Args:
        says: What it does, in a few words.
        refuse: Refuses a call, or lets it pass.
        spoil: Changes an answer.
        family: Tells limits in these headers.
        breaks_stream: A stream ends in the middle with this error.
    """

    says: str
    refuse: Refuse | None = None
    spoil: answers.Spoil | None = None
    family: Family | None = None
    breaks_stream: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class OddMode:
    """What `POST /odd` switches: a share of all calls behaves oddly.

    Args:
        name: In the catalogue; empty: none.
        share: Share of the calls.

    Raises:
        ValueError: When there is no such name, or no such share.
    """

    name: str = ""
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.name and self.name not in ODD:
            raise ValueError(unknown(self.name))
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected a share from 0 to 1, got {self.share:g}")

    @classmethod
    def read(cls, query: Mapping[str, str]) -> OddMode:
        """Read a mode from the query of a URL. Raises `ValueError`."""
        return cls(**read_query(query, {"name": str, "share": float}))


def unknown(name: str) -> str:
    """Say that there is no such behaviour."""
    return f"odd behaviour: expected one that `fleet simulator --help` lists, got {quote(name)}; {nearest(name, ODD)}"


def _always(status: int, message: str, *, kind: str, **more: Any) -> Refuse:
    return lambda seen: refusal(seen, status, message, kind=kind, **more)


def _body(status: int, body: Any, *, means: int | None = None, **headers: str) -> Refuse:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda seen: Refused(status, body, sent, means)


def _until_a_date(seen: OddCall) -> Refused:
    day = (datetime.now(UTC) + timedelta(days=1)).date()
    message = f"You have reached your specified API usage limits. You will regain access on {day} at 00:00 UTC."
    return refusal(seen, 400, message, kind="invalid_request_error")


def _google(code: int, message: str, status: str, *details: Mapping[str, str]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


_RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "10s"}
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_POLICY = "Your request was rejected as a result of our safety system."

ODD: Mapping[str, Odd] = {
    # Parameters that a model refuses; a call without them is answered.
    "refused-temperature": Odd(says="no temperature but the default", refuse=refusals.temperature),
    "refused-temperature-behind-a-proxy": Odd(says="the same in a proxy's words", refuse=refusals.temperature_by_proxy),
    "refused-sampling": Odd(says="neither temperature nor top_p", refuse=refusals.sampling),
    "refused-max-tokens": Odd(says="max_completion_tokens only", refuse=refusals.max_tokens),
    "refused-system-role": Odd(says="no system prompt", refuse=refusals.system_role),
    "refused-response-format": Odd(says="no structured output", refuse=refusals.response_format),
    "refused-strict": Odd(says="json_schema, but not strict", refuse=refusals.strict_schema),
    "refused-tools": Odd(says="no tools", refuse=refusals.tools),
    "refused-stream-options": Odd(says="no usage in streams", refuse=refusals.stream_options),
    "refused-unknown-fields": Odd(says="422 with a list in `detail`", refuse=refusals.unknown_fields),
    "top-level-detail": Odd(says="422 above 256 tokens of output", refuse=refusals.small_output),
    "context-too-long": Odd(says="a window of 2,048 tokens", refuse=refusals.long_context),
    "context-too-long-top-level": Odd(
        says="the same, without an `error` object", refuse=refusals.long_context_top_level
    ),
    # Money and rights.
    "usage-limit-until-a-date": Odd(says="400: access again tomorrow", refuse=_until_a_date),
    "credit-too-low": Odd(
        says="400: no credit",
        refuse=_always(
            400,
            "Your credit balance is too low to access this API. Please go to Plans & Billing to purchase credits.",
            kind="invalid_request_error",
        ),
    ),
    "out-of-quota": Odd(
        says="429: insufficient_quota",
        refuse=_always(429, _QUOTA, kind="insufficient_quota", code="insufficient_quota"),
    ),
    "payment-required": Odd(
        says="402, no type", refuse=_body(402, {"error": {"message": "Insufficient Balance", "code": 402}})
    ),
    "spend-limit-429": Odd(
        says="429 that does not pass",
        refuse=_always(
            429,
            "This organization has reached its enforced spend limit.",
            kind="rate_limit_error",
            details={"error_code": "enforced_spend_limit_reached"},
            headers={"x-should-retry": "false"},
        ),
    ),
    "dead-key": Odd(
        says="401: the key was revoked",
        refuse=_always(401, "This API key was revoked.", kind="authentication_error", code="invalid_api_key"),
    ),
    "no-such-model": Odd(
        says="404",
        refuse=_always(
            404,
            "The model does not exist or you do not have access to it.",
            kind="invalid_request_error",
            code="model_not_found",
        ),
    ),
    "moderated": Odd(
        says="400: the prompt is refused",
        refuse=_always(400, _POLICY, kind="invalid_request_error", code="content_policy_violation"),
    ),
    # Errors of the provider, some well hidden.
    "429-in-a-200": Odd(
        says="a 200 with an `error` object",
        refuse=_body(
            200,
            {
                "id": None,
                "choices": None,
                "usage": None,
                "error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "Too Many Requests"}},
            },
            means=429,
        ),
    ),
    "502-in-a-200": Odd(
        says="a 200 with a top-level message",
        refuse=_body(200, {"message": "upstream connect error", "code": 502}, means=502),
    ),
    "list-of-errors": Odd(
        says="503 as a list",
        refuse=_body(503, [_google(503, "The model is overloaded. Please try again later.", "UNAVAILABLE")]),
    ),
    "delay-in-the-body": Odd(
        says="429, 10 s, told in the body only",
        refuse=_body(429, _google(429, f"{_QUOTA} Please retry in 10s.", "RESOURCE_EXHAUSTED", _RETRY_INFO)),
    ),
    "capacity-498": Odd(
        says="498: no flex capacity",
        refuse=_body(498, {"error": {"message": "Flex tier capacity exceeded.", "code": "capacity_exceeded"}}),
    ),
    "resource-unavailable": Odd(says="429 for the tier flex only", refuse=refusals.flex_capacity),
    "overloaded-529": Odd(says="529", refuse=_always(529, "Overloaded", kind="overloaded_error")),
    "web-page-503": Odd(
        says="503 with a page of HTML",
        refuse=_body(503, "<html><body>Bad gateway</body></html>", Content_Type="text/html"),
    ),
    "parallel-limit": Odd(says="429: too many at the same time", refuse=lambda seen: refusals.parallel_refusal(1)),
    "error-in-the-stream": Odd(
        says="a stream ends with an error",
        breaks_stream={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "code": 529}},
    ),
    # Answers that are none, or not all.
    "error-in-the-choice": Odd(says="half an answer, then an error", spoil=answers.error_in_choice),
    "unknown-finish-reason": Odd(says="half an answer, `network_error`", spoil=answers.network_error),
    "filtered": Odd(says="a filter struck", spoil=answers.filtered),
    "filtered-otherwise": Odd(says="the same, `SAFETY`", spoil=answers.filtered_otherwise),
    "refusal-apart": Odd(says="a refusal in its own field", spoil=answers.refused_in_words),
    "allowance-spent-on-thinking": Odd(says="thoughts and no text", spoil=answers.only_thoughts),
    "thinking-in-the-text": Odd(says="<think> before the answer", spoil=answers.thoughts_in_text),
    "fenced": Odd(says="a code fence between sentences", spoil=answers.fenced),
    "looping": Odd(says="says the same to the end", spoil=answers.looping),
    "parts-for-text": Odd(says="a list where a text belongs", spoil=answers.parts_for_text),
    "no-choices": Odd(says="an answer without a choice", spoil=answers.no_choices),
    "cut-arguments": Odd(says="tool calls that are no JSON", spoil=answers.cut_json),
    "without-usage": Odd(says="no word of usage", spoil=answers.without_usage),
    "thinking-beside-output": Odd(says="only the total holds it", spoil=answers.usage_without_thoughts),
    # Headers.
    "resets-as-epoch": Odd(says="resets are Unix times", family="epoch"),
    "limits-of-a-proxy-key": Odd(says="x-ratelimit-api_key-*", family="litellm"),
    "limits-of-openrouter": Odd(says="X-RateLimit-*, ms since 1970", family="openrouter"),
    "limits-by-ietf": Odd(says="RateLimit, RateLimit-Policy", family="ietf"),
    "without-limits": Odd(says="no limit in any header", family="none"),
    # The list of models.
    RETIRING: Odd(says="listed with the date of its end"),
}


def wished(model: str, header: str | None) -> Odd | None:
    """Return the behaviour that a call asks for, by its header or its model's name; None: none.

    Raises:
        WireError: When there is none of that name.
    """
    name = header or (model.removeprefix(PREFIX) if model.startswith(PREFIX) else "")
    if not name:
        return None
    if name not in ODD:
        raise WireError(unknown(name), param="model")
    return ODD[name]


def help_lines() -> str:
    """Return all names with what they do, for `--help`."""
    width = max(map(len, ODD))
    return "\n".join(f"  {name:<{width}}  {odd.says}" for name, odd in ODD.items())
