"""What vendors, routers and proxies really say when they refuse, and whose fault it is.

Each row is a kind that was seen in public reports or on a vendor's page, in words of our own or in theirs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.errors import BadRequest, FleetError, KeyRejected, KeySpent, NotServed, ProviderUnavailable, RateLimited
from fleet.workers.providers.problem import read_problem
from fleet.workers.providers.verdict import error_of

#: Now, in all tests: 2026-11-28 12:00 UTC.
NOW_S = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
DECEMBER_S = datetime(2026, 12, 1, tzinfo=UTC).timestamp()


def verdict(status: int, body: Any, headers: dict[str, str] | None = None, prompt: str = "What is 2+2?") -> FleetError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    problem = read_problem(raw, secrets=("sk-secret-0123456789",), texts=[prompt])
    return error_of("api.example", status, problem, headers or {}, now_s=NOW_S)


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@dataclass(frozen=True)
class Row:
    """One refusal and what is right; a None is not looked at."""

    status: int
    body: Any
    error: type[FleetError]
    blame: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    shown: str = ""


MONEY = [
    Row(429, said("Current quota exceeded; check plan and billing.", type="insufficient_quota"), KeySpent),
    Row(429, said("You exceeded your current quota, please check your plan and billing details."), KeySpent),
    Row(401, said("You exceeded your quota", type="insufficient_quota"), KeySpent),
    Row(400, said("The credit balance is too low for this request.", type="invalid_request_error"), KeySpent),
    Row(402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}, KeySpent),
    Row(402, b"", KeySpent),
    Row(402, said("This request requires more credits, or fewer max_tokens; you can only afford 210"), KeySpent),
    Row(403, said("Your team has used all available credits or reached its monthly spending limit."), KeySpent),
    Row(403, said("Key limit exceeded (monthly limit). Manage it on the settings page", code=403), KeySpent),
    Row(403, {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}, KeySpent),
    Row(403, said("The account has an overdue balance", code="AccountOverdueError"), KeySpent),
    Row(422, {"detail": "Monthly included credits are exhausted"}, KeySpent),
    Row(400, {"code": "Arrearage", "message": "Access denied, make sure the account is in good standing."}, KeySpent),
    Row(400, said("Budget has been exceeded! Current cost: 0.1, Max budget: 0.05", type="budget_exceeded"), KeySpent),
    Row(429, said("ExceededBudget: the key is over budget"), KeySpent),
    Row(429, said("余额不足或无可用资源包,请充值。", code="1113"), KeySpent),
    Row(403, said("user quota is not enough", type="new_api_error", code="insufficient_user_quota"), KeySpent),
    Row(500, said("upstream: insufficient balance, please recharge"), KeySpent),
    Row(403, said("This API method requires billing to be enabled.", status="PERMISSION_DENIED"), KeySpent),
    Row(429, said("Quota exceeded for free_tier_requests, limit: 0. Please retry in 9s.", code=429), KeySpent),
    Row(
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "Spend limit reached.",
                                    "details": {"error_code": "enforced_spend_limit_reached"}}},
        KeySpent, headers={"x-should-retry": "false"},
    ),
    Row(429, said("Extra usage is required.", type="rate_limit_error"), KeySpent, headers={"x-should-retry": "false"}),
    Row(429, said("No more for now.", type="rate_limit_error"), KeySpent, headers={"x-should-retry": "false"}),
    Row(200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, KeySpent),
    Row(200, {"error": "Monthly usage limit reached"}, KeySpent),
    Row(400, said("Your organization has reached its monthly budget of $50."), KeySpent),
    Row(429, said("You have run out of credits", type="quota"), KeySpent),
    Row(412, {"error": "Account acme is suspended: monthly spending limit reached"}, KeySpent),
]  # fmt: skip

PROMPT = [
    Row(400, said("The response was filtered due to the prompt triggering the content management policy.",
                  code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}), BadRequest, "prompt"),
    Row(400, said("Your request was rejected by the safety system.", code="content_policy_violation"),
        BadRequest, "prompt"),
    Row(400, said("Output blocked by content filtering policy"), BadRequest, "prompt"),
    Row(403, said("m/x requires moderation. Your input was flagged", metadata={"reasons": ["harassment"]}),
        BadRequest, "prompt"),
    Row(403, {"code": "x", "error": "Content violates usage guidelines. Failed check: BIO"}, BadRequest, "prompt"),
    Row(400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."},
        BadRequest, "prompt"),
    Row(400, said("Content Exists Risk", type="invalid_request_error"), BadRequest, "prompt"),
    Row(403, {"detail": "Request blocked: prompt contains PII (policy)"}, BadRequest, "prompt"),
    Row(403, said("Jailbreak attempt detected"), BadRequest, "prompt"),
    Row(200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, BadRequest, "prompt"),
    Row(200, {"error": {"message": "The prompt was flagged by moderation", "code": 403}}, BadRequest, "prompt"),
    Row(200, {"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}, BadRequest, "prompt"),
    Row(413, said("Request too large: Limit 6000, Requested 9000. See settings/billing", code="rate_limit_exceeded"),
        BadRequest, "prompt"),
    Row(400, {"object": "error", "message": "maximum context length of this model is 2048 tokens, got 2723",
              "type": "BadRequestError", "param": None, "code": 400}, BadRequest, "prompt"),
    Row(422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"},
        BadRequest, "prompt"),
    Row(400, said("input length and `max_tokens` exceed context limit: 19 + 20 > 30"), BadRequest, "prompt"),
    Row(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},
        BadRequest, "prompt"),
]  # fmt: skip

CONFIGURATION = [
    Row(404, said("Model `gpt-404` does not exist, or this account has no access to it.", code="model_not_found"),
        NotServed, shown="correct the pool's `model`"),
    Row(404, {"error": 'model "x" not found, try pulling it first'}, NotServed, shown="correct the pool's `model`"),
    Row(404, {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-0"}}, NotServed),
    Row(400, {"error": {"message": "Model Not Exist", "type": "invalid_request_error"}}, NotServed),
    Row(400, said("x is not a valid model ID", code=400), NotServed),
    Row(400, said("Invalid model name passed in model=x. Call `/v1/models` to view those of your key."), NotServed),
    Row(400, said("The model `x` has been decommissioned and is no longer supported.", code="model_decommissioned"),
        NotServed),
    Row(400, {"message": "The provided model identifier is invalid."}, NotServed),
    Row(403, said("Project `p` does not have access to model `x`", code="model_not_found"), NotServed),
    Row(404, said("models/x is not found for API version v1beta", status="NOT_FOUND"), NotServed),
    Row(404, said("No endpoints found that support image input", code=404), NotServed),
    Row(404, said("The API deployment for this resource does not exist.", code="DeploymentNotFound"), NotServed),
    Row(503, said("No available channel for model x under group default", code="model_not_found"), NotServed),
    Row(404, {"detail": "Not Found"}, NotServed, shown="`base_url`"),
    Row(404, b"<html><head><title>404 Not Found</title></head></html>", NotServed, shown="404 Not Found"),
    Row(405, {"detail": "Method Not Allowed"}, NotServed, shown="`base_url`"),
    Row(200, b"<!doctype html><html><head><title>Chat UI</title></head><body></body></html>", NotServed),
    Row(404, said("Invalid URL (POST /v1/v1/chat/completions)"), NotServed, shown="`base_url`"),
    Row(400, b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>", NotServed),
    Row(308, b"", NotServed, shown="redirect"),
    Row(200, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, NotServed),
]  # fmt: skip

KEY = [
    Row(401, said("Incorrect API key provided: sk-se****6789."), KeyRejected),
    Row(400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
                         "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}], KeyRejected),
    Row(400, {"code": "x", "error": "Incorrect API key provided."}, KeyRejected),
    Row(403, said("Your account was suspended for violating our usage policies"), KeyRejected),
    Row(403, said("Country not supported", code="unsupported_country_region_territory"), KeyRejected, shown="Country"),
    Row(500, {"error": {"message": "x", "type": "authentication_error"}}, KeyRejected),
    Row(400, said("User location is not supported for the API use.", status="FAILED_PRECONDITION"), KeyRejected),
    Row(400, said("this key is not authorized for model x"), KeyRejected),
    Row(200, {"error": {"type": "authentication_error", "message": "no such key"}}, KeyRejected),
    Row(200, {"code": 16, "message": "no", "details": []}, KeyRejected),
]  # fmt: skip

PASSES = [
    Row(498, said("No flex capacity at present; try again later.", code="capacity_exceeded"), ProviderUnavailable),
    Row(499, [{"error": {"code": 499, "message": "cancelled", "status": "CANCELLED"}}], ProviderUnavailable),
    Row(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, ProviderUnavailable),
    Row(503, {"error": "Model is loading", "estimated_time": 20.0}, ProviderUnavailable, retry_after_s=20),
    Row(503, said("The model is overloaded. Please retry in 7s."), ProviderUnavailable, retry_after_s=7),
    Row(520, b"<html><title>520: Web server returns an unknown error</title></html>", ProviderUnavailable),
    Row(502, b"upstream connect error or disconnect/reset before headers", ProviderUnavailable,
        shown="upstream connect error"),
    Row(400, said("The server is busy, try again later"), ProviderUnavailable),
    Row(400, said("x", status="UNAVAILABLE"), ProviderUnavailable),
    Row(400, said("upstream connect error or disconnect/reset before headers"), ProviderUnavailable),
    Row(400, said("APIConnectionError: Connection refused by the model's server"), ProviderUnavailable),
    Row(400, said("Provider returned error", code=400, metadata={"raw": '{"error":{"code":503,"message":"down"}}'}),
        ProviderUnavailable, shown="down"),
    Row(400, said("once more, please"), ProviderUnavailable, headers={"x-should-retry": "true"}),
    Row(424, {"error": "Request failed during generation", "error_type": "generation"}, ProviderUnavailable),
    Row(200, {"error": {"code": 502, "message": "Upstream disconnected"}}, ProviderUnavailable),
    Row(200, {"error": "something broke"}, ProviderUnavailable, shown="something broke"),
    Row(200, {"choices": [{"message": {"content": "Half"}, "error": {"code": 502, "message": "gone"}}]},
        ProviderUnavailable, shown="gone"),
    Row(200, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
        ProviderUnavailable, shown="Overloaded"),
    Row(200, b"<html><title>502 Bad Gateway</title></html>", ProviderUnavailable, shown="502 Bad Gateway"),
    Row(200, b"upstream request timeout", ProviderUnavailable, shown="upstream request timeout"),
    Row(200, {"success": False, "errors": [{"code": 7009, "message": "Upstream service unavailable"}]},
        ProviderUnavailable, shown="Upstream service"),
    Row(200, json.dumps(json.dumps(said("try later", code=503))).encode(), ProviderUnavailable, shown="try later"),
]  # fmt: skip

RATES = [
    Row(429, said("slow down"), RateLimited),
    Row(429, said("Current quota exceeded; retry in 10s.", status="RESOURCE_EXHAUSTED",
                  details=[{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "10s"}]),
        RateLimited, retry_after_s=10),
    Row(429, said("You exceeded your current quota, check your plan and billing details. Please retry in 49.5s."),
        RateLimited, retry_after_s=49.5),
    Row(429, said("Quota exceeded for requests_per_minute_per_project", status="RESOURCE_EXHAUSTED"), RateLimited),
    Row(429, said("Rate limit reached on tokens per min: Limit 10000. Please try again in 6s. You can increase your "
                  "rate limit by adding a payment method at /account/billing.", code="rate_limit_exceeded"),
        RateLimited, retry_after_s=6),
    Row(429, said("Rate limit reached for requests per day. See your billing page.", code="rate_limit_exceeded"),
        RateLimited),
    Row(429, said("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free requests per day",
                  metadata={"headers": {"X-RateLimit-Reset": str(round((NOW_S + 60) * 1000))}}),
        RateLimited, retry_after_s=60),
    Row(429, said("Please try again in 20ms"), RateLimited, retry_after_s=0.02),
    Row(429, said("try again in 1m30s."), RateLimited, retry_after_s=90),
    Row(429, said("Please try again in 6 minutes"), RateLimited, retry_after_s=360),
    Row(429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 5 seconds."}, RateLimited,
        retry_after_s=5),
    Row(429, said("x"), RateLimited, headers={"retry-after": "7"}, retry_after_s=7),
    Row(429, said("Please wait 30000 seconds before retrying; 50 per 86400s"), RateLimited, retry_after_s=30_000),
    Row(429, b"error code: 1015", RateLimited, shown="error code: 1015"),
    Row(403, said("Rate Limit Exceeded", reason="rateLimitExceeded"), RateLimited),
    Row(400, {"__type": "ThrottlingException", "message": "Too many requests"}, RateLimited),
    Row(500, said('litellm.RateLimitError: {"error": {"code": 429, "message": "slow"}}'), RateLimited, shown="slow"),
    Row(200, {"id": None, "choices": None, "error": {"message": "upstream returned an error", "code": 429,
                                                     "metadata": {"raw": "Too Many Requests"}}},
        RateLimited, shown="upstream returned an error: Too Many Requests"),
    Row(200, {"code": 8, "message": "no", "details": []}, RateLimited),
    Row(200, {"error": {"status": "RESOURCE_EXHAUSTED"}}, RateLimited),
    Row(200, {"message": "Rate limit exceeded"}, RateLimited),
    Row(200, [{"error": {"code": "429", "message": "slow"}}], RateLimited),
    Row(200, b'{"error": "Too many requests"}\n', RateLimited),
    Row(200, said("Error code: 429 - {'error': {'message': 'calm down', 'code': 429}}"), RateLimited,
        shown="calm down"),
]  # fmt: skip

UNKNOWN = [
    Row(422, {"detail": "field max_tokens: value is larger than the server allows (256)"}, BadRequest,
        shown="value is larger than the server allows"),
    Row(400, [{"error": {"code": 400, "message": "Request contains an invalid argument: top_k",
                         "status": "INVALID_ARGUMENT"}}], BadRequest, shown="top_k"),
    Row(422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "ensure this value is less than 256", "input": "x"}]},
        BadRequest, shown="body.max_tokens: ensure this value"),
    Row(400, {"errors": ["bad things", "worse things"]}, BadRequest, shown="bad things: worse things"),
    Row(400, {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "no such field: foo"},
        BadRequest, shown="no such field: foo"),
    Row(400, said("litellm.BadRequestError: OpenAIException - {'error': {'message': \"field 'foo' is odd\"}}"),
        BadRequest, shown="is odd"),
    Row(400, b"not a JSON body", BadRequest, shown="not a JSON body"),
    Row(400, said("max_tokens: 9000 is more than the maximum tokens of an answer (4096)"), BadRequest),
    Row(400, said("The engine is out of memory budget for this request; thinking budget exceeded"), BadRequest),
    Row(418, b"", BadRequest),
    Row(404, said("No such file: file-1", code="not_found"), BadRequest),
    Row(501, said("This server does not support embeddings", type="not_supported_error"), BadRequest),
]  # fmt: skip


def table(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: f"{row.status}-{str(row.body)[:60]}")


def check(row: Row, blame: str) -> FleetError:
    error = verdict(row.status, row.body, row.headers)
    assert (type(error), error.blame) == (row.error, row.blame or blame), str(error)
    assert row.shown in str(error) and f"api.example answered {row.status}" in str(error)
    if row.retry_after_s is not None:
        assert isinstance(error, RateLimited | ProviderUnavailable)
        assert error.retry_after_s == pytest.approx(row.retry_after_s, abs=0.01)
        assert error.passes_at == pytest.approx(NOW_S + row.retry_after_s, abs=0.01)
    return error


@table(MONEY)
def test_a_key_without_money_is_the_keys_and_does_not_pass(row: Row) -> None:
    error = check(row, "key")
    assert (error.parks, error.passes, error.passes_at, error.holds) == ("at once", False, None, False)


@pytest.mark.parametrize(
    ("status", "message", "at_s"),
    [
        (
            400,
            "Your specified API usage limits are reached. Access is regained on 2026-12-01 at 00:00 UTC.",
            DECEMBER_S,
        ),
        (429, "You have hit your monthly limit; it resets at 2026-12-01T00:00:00Z", DECEMBER_S),
        (403, "Usage limit reached, try again at Dec 1st, 2026 12:00 AM.", DECEMBER_S),
        (429, "Your weekly quota is exhausted. It resets in 3h.", NOW_S + 3 * 3600),
        (400, "Usage quota exceeded; available again in 2 days and 1 hour", NOW_S + 49 * 3600),
        (429, "Monthly usage limit reached|1796083200", 1796083200),
        (429, "Daily quota exceeded. Resets at midnight UTC", NOW_S + 12 * 3600),
        (429, "Daily limit reached. Resets at 2026-11-28T15:00:00Z", NOW_S + 3 * 3600),
        (402, "free quota used up, resets in 5 hours", NOW_S + 5 * 3600),
    ],
)
def test_a_quota_until_a_time_is_the_keys_and_carries_the_time(status: int, message: str, at_s: float) -> None:
    error = verdict(status, said(message))
    assert (type(error), error.blame, error.parks, error.passes) == (KeySpent, "key", "at once", True)
    assert error.passes_at == pytest.approx(at_s)
    assert datetime.fromtimestamp(at_s, UTC).strftime("until %Y-%m-%d %H:%M UTC") in str(error)


def test_a_time_may_stand_in_a_field_of_its_own() -> None:
    error = verdict(429, said("limit", type="usage_limit_reached", resets_at=round(DECEMBER_S), plan_type="team"))
    assert (type(error), error.passes_at) == (KeySpent, DECEMBER_S)
    assert verdict(429, said("limit", type="usage_limit_reached", resets_in_seconds=7200)).passes_at == NOW_S + 7200


@table(PROMPT)
def test_what_is_said_of_the_prompt_is_the_prompts(row: Row) -> None:
    error = check(row, "prompt")
    assert (error.parks, error.passes) == ("never", False)


@table(CONFIGURATION)
def test_a_wrong_model_or_address_is_the_configurations_and_says_what_to_change(row: Row) -> None:
    error = check(row, "configuration")
    assert (error.parks, error.passes) == ("at once", False)
    assert "base_url" in str(error) or "model" in str(error)


@table(KEY)
def test_a_key_that_is_not_taken_is_the_keys(row: Row) -> None:
    error = check(row, "key")
    assert (error.parks, error.passes) == ("at once", False) and "check this key" in str(error)
    assert ".: check" not in str(error)
    assert "sk-se" not in str(error) and "6789" not in str(error)


@table(PASSES)
def test_what_passes_is_the_providers(row: Row) -> None:
    error = check(row, "provider")
    assert (error.parks, error.passes, error.holds) == ("lasting", True, False)


@table(RATES)
def test_a_rate_holds_the_fleet_and_passes(row: Row) -> None:
    error = check(row, "provider")
    assert (error.parks, error.passes, error.holds) == ("lasting", True, True)


@table(UNKNOWN)
def test_what_nobody_knows_is_unknown_and_shown(row: Row) -> None:
    error = check(row, "unknown")
    assert (error.parks, error.passes) == ("never", False)


@pytest.mark.parametrize("status", [500, 503, 529, 409, 408])
def test_a_provider_that_says_not_to_repeat_is_obeyed(status: int) -> None:
    error = verdict(status, said("no use"), {"x-should-retry": "false"})
    assert (type(error), error.passes) == (ProviderUnavailable, False)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"retry-after": "60", "rate_limit_type": "max_parallel_requests"}, "slow"),
        ({"retry-after": "60"}, "Too many parallel requests"),
        ({}, "Concurrency limit reached: 5 concurrent requests, retry in 60s"),
    ],
)
def test_too_many_calls_at_once_hold_nobody_for_the_time_that_comes_with_it(
    headers: dict[str, str], message: str
) -> None:
    error = verdict(429, said(message), headers)
    assert isinstance(error, RateLimited) and error.parallel and not error.holds and error.retry_after_s is None
    plain = verdict(429, said("slow"), {"retry-after": "60"})
    assert isinstance(plain, RateLimited) and not plain.parallel and plain.retry_after_s == 60


def test_a_refusal_that_quotes_the_prompt_is_not_read_as_the_providers_own_words() -> None:
    prompt = "Explain what a bank means by: your credit balance is too low and your account is suspended"
    error = verdict(400, said(f"Invalid value in messages[0]: '{prompt}'"), prompt=prompt)
    assert (type(error), error.blame) == (BadRequest, "unknown") and "balance" not in str(error)


@pytest.mark.parametrize(("status", "timed_out"), [(408, True), (504, True), (524, True), (500, False), (503, False)])
def test_a_gateway_that_got_no_answer_in_time_says_so(status: int, timed_out: bool) -> None:
    error = verdict(status, b"")
    assert isinstance(error, ProviderUnavailable)
    assert error.timed_out is timed_out
