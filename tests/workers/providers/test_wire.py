"""Adapters against servers that answer wrongly, and what exactly they send."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest

from fleet.conversation import Message
from fleet.errors import (
    BadRequest,
    ConfigurationError,
    FleetError,
    KeyRejected,
    KeySpent,
    NotServed,
    ProviderUnavailable,
    RateLimited,
)
from fleet.usage import Usage
from fleet.workers.calls import Call, Completion
from fleet.workers.context import count_message_tokens, count_tokens
from fleet.workers.frameworks.unpacking import unpacking
from fleet.workers.providers.written.anthropic_body import OPENING, split_messages
from tests.workers.providers.raw_server import KEY, RawServer, call, provider, raw_server, response

KINDS = pytest.mark.parametrize("kind", ["openai", "anthropic"])

OPENAI_ANSWER: dict[str, Any] = {
    "choices": [{"message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3},
}
ANTHROPIC_ANSWER: dict[str, Any] = {
    "type": "message",
    "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 3},
}
ANSWERS = {"openai": OPENAI_ANSWER, "anthropic": ANTHROPIC_ANSWER}


def ask(kind: str, *answers: bytes | None, request: Call | None = None) -> tuple[Completion, RawServer]:
    """Send one call to a server with these answers; also give what the server saw."""

    async def main() -> tuple[Completion, RawServer]:
        async with raw_server(*answers) as server, provider(server.url, kind) as adapter:
            return await adapter.complete(request or call(), api_key=KEY), server

    return asyncio.run(main())


def failure(kind: str, answer: bytes, request: Call | None = None) -> FleetError:
    """Return the error of one call, after exactly one HTTP request."""

    async def main() -> FleetError:
        async with raw_server(answer) as server, provider(server.url, kind) as adapter:
            with pytest.raises(FleetError) as raised:
                await adapter.complete(request or call(), api_key=KEY)
            assert len(server.heads) == 1
            return raised.value

    return asyncio.run(main())


def test_the_openai_request_is_what_the_wire_says() -> None:
    completion, server = ask("openai", response(OPENAI_ANSWER))
    assert server.heads[0].startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"\r\nAuthorization: Bearer {KEY}\r\n" in server.heads[0]
    assert server.bodies[0] == {
        "model": "simulated-1",
        "messages": [
            {"role": "system", "content": "You are an analytical bot."},
            {"role": "user", "content": "What is 2+2?"},
        ],
        "max_tokens": 100,
        "temperature": 0.7,
    }
    assert (completion.text, completion.usage.input_tokens, completion.usage.output_tokens) == ("four", 12, 3)


def test_the_anthropic_request_is_what_the_wire_says() -> None:
    completion, server = ask("anthropic", response(ANTHROPIC_ANSWER))
    assert server.heads[0].startswith("POST /v1/messages HTTP/1.1\r\n")
    assert f"\r\nx-api-key: {KEY}\r\n" in server.heads[0]
    assert "\r\nanthropic-version: 2023-06-01\r\n" in server.heads[0]
    assert server.bodies[0] == {
        "model": "simulated-1",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "What is 2+2?"}],
        "system": "You are an analytical bot.",
        "temperature": 0.7,
    }
    assert (completion.text, completion.usage.input_tokens, completion.usage.output_tokens) == ("four", 12, 3)


@KINDS
def test_any_text_of_a_prompt_arrives_as_it_was(kind: str) -> None:
    prompt = 'ä 漢字 🙂 \u2028 \x00 \ud800 "quoted" \\ </script>'
    _, server = ask(kind, response(ANSWERS[kind]), request=call(prompt))
    assert server.bodies[0]["messages"][-1]["content"] == prompt


def test_anthropics_temperature_stays_within_the_vendors_range() -> None:
    _, server = ask("anthropic", response(ANTHROPIC_ANSWER), request=replace(call(), temperature=1.7))
    assert server.bodies[0]["temperature"] == 1.0


@KINDS
@pytest.mark.parametrize(
    "answer",
    [
        response(b"<html><body>Bad gateway</body></html>"),
        response(b""),
        response(b'{"choices": [{"mess'),
        response(b"[" * 100_000),
        response([]),
        response("text"),
        response({}),
        response({"error": {"type": "server_error", "message": "oops"}}),
        response({"choices": [], "content": "text"}),
        response({"choices": [None], "content": 4}),
        response({"choices": [{"message": None}], "content": {}}),
        response(b'{"choices": [', length=5000),
        b"",
        b"this is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_an_answer_that_is_not_the_wires_is_an_unavailable_provider(kind: str, answer: bytes) -> None:
    assert isinstance(failure(kind, answer), ProviderUnavailable)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("openai", {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}),
        ("openai", {"choices": [{"message": {}, "finish_reason": "length"}]}),
        ("anthropic", {"type": "message", "content": [], "stop_reason": "max_tokens"}),
        ("anthropic", {"type": "message", "content": None, "stop_reason": "max_tokens"}),
        ("anthropic", {"type": "message", "content": [None, {"type": "text"}], "stop_reason": "max_tokens"}),
    ],
)  # fmt: skip
def test_an_empty_answer_is_an_empty_text_and_not_an_error(kind: str, answer: dict[str, Any]) -> None:
    completion, _ = ask(kind, response(answer))
    assert (completion.text, completion.finish_reason) == ("", "length")


@KINDS
@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "input_tokens": "many"}, [1]])
def test_a_provider_that_does_not_say_what_it_billed_gets_the_estimate(kind: str, usage: object) -> None:
    completion, _ = ask(kind, response({**ANSWERS[kind], "usage": usage}))
    assert completion.usage.input_tokens == count_message_tokens(call().messages)
    assert completion.usage.output_tokens == count_tokens(completion.reasoning + "four")


def test_a_refusal_is_a_text_with_its_reason() -> None:
    message = {"content": None, "refusal": "I will not."}
    completion, _ = ask("openai", response({"choices": [{"message": message, "finish_reason": "stop"}]}))
    assert (completion.text, completion.finish_reason) == ("I will not.", "content_filter")
    refused, _ = ask("anthropic", response({**ANTHROPIC_ANSWER, "stop_reason": "refusal"}))
    assert refused.finish_reason == "content_filter"


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "fo"}, {"type": "other"}, None, {"type": "text", "text": "ur"}]
    completion, _ = ask("openai", response({"choices": [{"message": {"content": parts}}]}))
    assert (completion.text, completion.finish_reason) == ("four", "stop")


@KINDS
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequest), (401, KeyRejected), (402, KeySpent), (403, KeyRejected), (404, NotServed),
        (408, ProviderUnavailable), (409, ProviderUnavailable), (413, BadRequest), (422, BadRequest),
        (429, RateLimited), (500, ProviderUnavailable), (503, ProviderUnavailable), (529, ProviderUnavailable),
        (301, NotServed), (307, NotServed), (498, ProviderUnavailable), (499, ProviderUnavailable),
    ],
)  # fmt: skip
def test_each_status_is_its_error(kind: str, status: int, error: type[FleetError]) -> None:
    answer = response(b"<html>", status=status, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    raised = failure(kind, answer)
    assert type(raised) is error
    assert f"127.0.0.1 answered {status}" in str(raised)


def test_a_key_whose_money_is_used_up_is_a_rejected_key_although_the_status_is_429() -> None:
    error = {
        "error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    }
    assert isinstance(failure("openai", response(error, status=429)), KeyRejected)


@KINDS
def test_a_429_and_an_overload_carry_the_seconds_to_wait(kind: str) -> None:
    limited = failure(kind, response({}, status=429, headers={"Retry-After": "7"}))
    overloaded = failure(kind, response({}, status=503, headers={"Retry-After-Ms": "1500"}))
    assert isinstance(limited, RateLimited)
    assert limited.retry_after_s == 7
    assert isinstance(overloaded, ProviderUnavailable)
    assert overloaded.retry_after_s == 1.5


@KINDS
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 302])
def test_neither_the_prompt_nor_the_key_appears_in_an_error(kind: str, status: int) -> None:
    prompt = "My bank account is DE89-3704-0044 and the code word is Rumpelstiltskin"
    for echo in (
        prompt,
        f"bad input near 'code word is Rumpelstilt'; key {KEY}",
        prompt.upper(),
        repr(prompt),
        KEY[:16],
    ):
        body = {"error": {"type": KEY, "code": "bad", "message": f"Refused: {echo}"}}
        text = repr(failure(kind, response(body, status=status), call(prompt)))
        for secret in ("3704", "rumpel", "secret", "012345"):
            assert secret not in text.lower()


def test_a_harmless_message_is_shown_shortened() -> None:
    body = {"error": {"type": "invalid_request_error", "message": "context window exceeded " * 20}}
    text = str(failure("openai", response(body, status=400)))
    assert "(invalid_request_error): context window exceeded" in text
    assert len(text) < 400


@KINDS
def test_no_encoding_is_offered_that_cannot_be_read_and_one_that_comes_all_the_same_is_no_tasks_fault(
    kind: str,
) -> None:
    raw = json.dumps(ANSWERS[kind]).encode()
    packed = {"gzip": gzip.compress(raw), "deflate": zlib.compress(raw)}
    for encoding, body in packed.items():
        answered, server = ask(kind, response(body, headers={"Content-Encoding": encoding}))
        assert answered.text == "four"
    (offered,) = (line[16:] for line in server.heads[0].splitlines() if line.lower().startswith("accept-encoding:"))
    assert all_readable(offered), offered
    unreadable = [name for name in ("br", "zstd", "dcb") if unpacking(name) is None]
    for encoding in unreadable:
        error = failure(kind, response(b"\x0b\x02\x80four\x03", headers={"Content-Encoding": encoding}))
        assert type(error) is ProviderUnavailable, encoding  # not a 400, which would be the prompt's


def all_readable(offered: str) -> bool:
    return all(unpacking(name.partition(";")[0].strip()) is not None for name in offered.split(","))


@KINDS
def test_a_hanging_server_sees_the_client_leave(kind: str) -> None:
    async def main() -> None:
        async with raw_server(None) as server, provider(server.url, kind) as adapter:
            with pytest.raises(ProviderUnavailable) as failed:
                await adapter.complete(call(timeout_s=0.1), api_key=KEY)
            assert failed.value.timed_out
            await asyncio.wait_for(server.left.wait(), 5)

    asyncio.run(main())


def talk(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message.model_validate({"role": role, "content": content}) for role, content in turns)


def test_system_messages_are_lifted_out_and_neighbours_joined() -> None:
    system, turns = split_messages(
        talk(("system", "One."), ("user", "a"), ("system", "Two."), ("user", "b"), ("assistant", "c"), ("user", " "))
    )
    assert system == "One.\n\nTwo."
    assert turns == [{"role": "user", "content": "a\n\nb"}, {"role": "assistant", "content": "c"}]


def test_a_conversation_that_begins_with_the_assistant_gets_an_opening() -> None:
    _, turns = split_messages(talk(("assistant", "Hello. "), ("user", "Hi"), ("assistant", "Well ")))
    assert turns[0] == {"role": "user", "content": OPENING}
    assert turns[-1]["content"] == "Well"


def test_a_conversation_without_a_user_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(BadRequest, match="nothing was sent"):
        split_messages(talk(("system", "One."), ("assistant", "Hello.")))


@pytest.mark.parametrize(
    "url", ["", "example", "ftp://example.org", "http://", "http://h:x", "http://u:p@h", "http://h?k=v"]
)
def test_a_wrong_base_url_is_a_configuration_error_that_shows_no_password(url: str) -> None:
    async def main() -> None:
        with pytest.raises(ConfigurationError, match=r"expected http\(s\)://HOST") as raised:
            async with provider(url or " "):
                pass
        assert "u:p" not in str(raised.value)

    asyncio.run(main())


@KINDS
def test_an_error_in_a_200_costs_nothing_unless_it_reports_usage(kind: str) -> None:
    error = {"message": "upstream returned an error", "code": 429}
    free = failure(kind, response({"error": error, "choices": None, "usage": None}))
    assert isinstance(free, RateLimited) and free.usage == Usage()
    billed = failure(kind, response({"error": error, "usage": OPENAI_ANSWER["usage"]}))
    assert isinstance(billed, RateLimited) and billed.usage is not None
    assert (billed.usage.input_tokens, billed.usage.output_tokens) == (12, 3)


def test_half_an_answer_whose_choice_carries_an_error_is_that_error_and_charged() -> None:
    choice = {"message": {"content": "Half"}, "finish_reason": "error", "error": {"code": 502, "message": "gone"}}
    error = failure("openai", response({**OPENAI_ANSWER, "choices": [choice]}))
    assert isinstance(error, ProviderUnavailable) and error.usage is not None and error.usage.total_tokens == 15
    assert str(error) == "127.0.0.1 answered 200 with an error (502): gone"


@KINDS
def test_an_error_beside_nothing_is_not_seen_in_a_whole_answer(kind: str) -> None:
    for nothing in (
        None,
        {},
        "",
        False,
        [],
        {"code": 0, "message": "success"},
        {"code": "200", "message": None},
        "none",
    ):
        completion, _ = ask(kind, response({**ANSWERS[kind], "error": nothing, "message": "OK"}))
        assert completion.text == "four"


@KINDS
def test_a_stream_that_nobody_asked_for_is_read_by_its_last_whole_answer_or_its_error(kind: str) -> None:
    first = b': waiting\n\ndata: {"id": "x", "choices": [{"delta": {"content": "fo"}}]}\n\n'
    whole = first + b"data: " + json.dumps(ANSWERS[kind]).encode() + b"\n\ndata: [DONE]\n\n"
    completion, _ = ask(kind, response(whole))
    assert (completion.text, completion.usage.total_tokens) == ("four", 15)
    usage = b'data: {"usage": {"prompt_tokens": 12, "completion_tokens": 3}}\n\n'
    broken = failure(kind, response(first + usage + b'event: error\ndata: {"message": "overloaded", "code": 529}\n\n'))
    assert isinstance(broken, ProviderUnavailable) and "overloaded" in str(broken)
    assert broken.usage is not None and broken.usage.total_tokens == 15


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("headers", "message", "parallel"),
    [
        ({"rate_limit_type": "max_parallel_requests"}, "slow down", 0),
        ({"x-ratelimit-type": "UserConcurrentRequests"}, "slow down", 0),
        ({}, "Too many parallel requests (rate_limit_type: max_parallel_requests)", 0),
        ({}, "Rate limit exceeded for api_key: 37ab. Limit type: max_parallel_requests. Current limit: 4", 4),
        ({}, "Number of concurrent connections has exceeded your rate limit", 0),
        ({}, "request reached max organization concurrency: 3, please try again after 1 seconds", 3),
        ({}, "limit of 5 concurrent requests reached", 5),
        ({"rate_limit_type": "requests"}, "Limit type: requests; max_parallel_requests: 5", None),
        ({}, "Crossed TPM / RPM / Max Parallel Request Limit", None),
        ({}, "Too many requests, please reduce your concurrent requests", None),
        ({}, "Rate limit reached for requests", None),
    ],
)  # fmt: skip
def test_a_429_for_too_many_calls_at_once_is_told_from_one_for_too_many_a_minute(
    kind: str, headers: dict[str, str], message: str, parallel: int | None
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = json.dumps({"error": {"message": message, "type": "None", "code": "429"}})
    answer = f"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\n{lines}content-length: {len(body)}\r\n\r\n{body}"
    error = failure(kind, answer.encode())
    assert isinstance(error, RateLimited)
    assert (error.parallel, error.most_parallel) == (parallel is not None, parallel or 0)
