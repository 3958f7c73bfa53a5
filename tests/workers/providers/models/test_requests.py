"""One call through pydantic-ai's models is one HTTP request, whatever the vendor and whatever comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from fleet.conversation import FilePart, ImagePart, Message, Tool, ToolCall
from fleet.errors import (
    BadRequest,
    ConfigurationError,
    ContextTooLong,
    FleetError,
    KeyRejected,
    KeySpent,
    NotServed,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
)
from fleet.schema import compiled
from fleet.workers.calls import Call, Completion, Wishes
from fleet.workers.ports import StreamingProvider
from fleet.workers.providers.models.adapter import Models
from fleet.workers.providers.wire_schema import SchemaRefused
from tests.every import every
from tests.workers.providers.models.vendors import ENVIRONMENT, GOOD, models
from tests.workers.providers.raw_server import KEY, RawServer, raw_server, response
from tests.workers.providers.raw_server import call as quick_call

CHAT, RESPONSES, ANTHROPIC, GOOGLE = tuple(GOOD)[:4]
MISTRAL, COHERE, BEDROCK = (next(name for name in GOOD if name.startswith(v)) for v in ("mistral", "cohere", "bedrock"))
RATES = {
    "Content-Type": "application/json", "Retry-After": "7",
    "X-RateLimit-Limit-Requests": "500", "X-RateLimit-Remaining-Requests": "499",
}  # fmt: skip
SCHEMA = compiled({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
                   "additionalProperties": False})  # fmt: skip

#: A call that waits for a slow machine: its first one loads an SDK.
call = partial(quick_call, timeout_s=120.0)

pytestmark = pytest.mark.filterwarnings("ignore:Sampling parameters:UserWarning")  # they are told in `left_out`


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return


def json_of(body: object) -> bytes:
    """Return a good answer; one SDK insists on being told that it is JSON."""
    return response(body, headers={"Content-Type": "application/json"})


def use(work: Callable[[Models, RawServer], Awaitable[Any]], *answers: bytes | None) -> Any:
    """Run `work` with an adapter for a server that gives these answers."""

    async def main() -> Any:
        async with raw_server(*answers) as server, models(server.url) as adapter:
            return await work(adapter, server)

    return asyncio.run(main())


def ask(request: Call, *answers: bytes | None) -> tuple[Completion, RawServer]:
    """Send one call and return what came of it, and what the server saw."""

    async def once(adapter: Models, server: RawServer) -> tuple[Completion, RawServer]:
        return await adapter.complete(request, api_key=KEY), server

    found: tuple[Completion, RawServer] = use(once, *answers)
    return found


def fail(request: Call, *answers: bytes | None) -> tuple[FleetError, RawServer]:
    """Send one call that must fail, and return how, and what the server saw."""

    async def once(adapter: Models, server: RawServer) -> tuple[FleetError, RawServer]:
        with pytest.raises(FleetError) as failed:
            await adapter.complete(request, api_key=KEY)
        return failed.value, server

    found: tuple[FleetError, RawServer] = use(once, *answers)
    return found


def asking(model: str, **wishes: Any) -> Call:
    return replace(call(model=model, max_output_tokens=4000), wishes=Wishes(**wishes))


@pytest.mark.parametrize("model", GOOD)
def test_each_vendors_call_is_one_request_that_is_answered_limited_or_failed(model: str) -> None:
    """Given 200, 429 and 500 in turn, I expect three requests for three calls: no SDK repeats anything."""
    limited = {"error": {"message": "slow down", "type": "rate_limit_error"}, "message": "slow down"}

    async def three(adapter: Models, server: RawServer) -> None:
        completion = await adapter.complete(call(model=model), api_key=KEY)
        assert (completion.text, completion.finish_reason, completion.left_out) == ("4", "stop", ())
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (20, 5)
        assert completion.headers["x-ratelimit-limit-requests"] == "500"
        with pytest.raises(RateLimited) as refused:
            await adapter.complete(call(model=model), api_key=KEY)
        assert refused.value.retry_after_s == 7
        assert refused.value.rates is not None and refused.value.rates[0].limit == 500
        with pytest.raises(ProviderUnavailable):
            await adapter.complete(call(model=model), api_key=KEY)
        assert len(server.heads) == 3
        if not model.startswith("bedrock"):  # signed there, and never sent
            assert every(KEY in head for head in server.heads)

    answers = (response(GOOD[model], headers=RATES), response(limited, status=429, headers=RATES))
    use(three, *answers, response({"error": {"message": "oops"}}, status=500, headers=RATES))


@pytest.mark.parametrize("model", [CHAT, COHERE, BEDROCK])
def test_a_call_without_a_connection_was_surely_not_sent(model: str) -> None:
    async def to_nobody() -> None:
        async with models("http://127.0.0.1:1") as adapter:
            with pytest.raises(ProviderUnavailable) as failed:
                await adapter.complete(call(model=model), api_key=KEY)
            assert not failed.value.sent

    asyncio.run(to_nobody())


@pytest.mark.parametrize("model", [CHAT, COHERE])
def test_a_call_without_an_answer_ends_with_its_timeout_and_may_have_been_paid(model: str) -> None:
    failed, server = fail(replace(call(model=model), timeout_s=0.5), None)
    assert isinstance(failed, ProviderUnavailable) and failed.sent and failed.timed_out and len(server.heads) == 1


#: Status, body, and what it is.
NO_ANSWERS: tuple[tuple[int, object, type[FleetError]], ...] = (
    (401, {"error": {"message": "Incorrect API key provided"}}, KeyRejected),
    (402, {"error": {"message": "Insufficient credits"}}, KeySpent),
    (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, KeySpent),
    (404, {"error": {"message": "The model does not exist", "code": "model_not_found"}}, NotServed),
    (503, {"message": "overloaded"}, ProviderUnavailable),
    (422, {"detail": "max_tokens is too large"}, BadRequest),
    (200, {"choices": None, "error": {"message": "upstream: too many requests", "code": 429}}, RateLimited),
    (200, b"<html>", ProviderUnavailable),
    (200, {"choices": None}, ProviderUnavailable),
    (200, [1, 2], ProviderUnavailable),
    (200, b"", ProviderUnavailable),
    (204, b"", ProviderUnavailable),
)


@pytest.mark.parametrize("model", [CHAT, ANTHROPIC, GOOGLE, MISTRAL])
def test_what_is_no_answer_is_a_typed_error_without_key_or_prompt(model: str) -> None:
    async def all_of_them(adapter: Models, server: RawServer) -> None:
        for sent, (status, body, expected) in enumerate(NO_ANSWERS, 1):
            with pytest.raises(FleetError) as failed:
                await adapter.complete(call("A secret thought of nobody else", model=model), api_key=KEY)
            assert isinstance(failed.value, expected), (status, body, failed.value)
            assert len(server.heads) == sent
            told = str(failed.value)
            assert KEY not in told and "secret thought" not in told and len(told) <= 1024

    headers = {"Content-Type": "application/json"}
    use(all_of_them, *(response(body, status=status, headers=headers) for status, body, _ in NO_ANSWERS))


def test_a_refused_temperature_is_learnt_and_left_out_from_then_on() -> None:
    told = {"error": {"message": "temperature is not supported", "param": "temperature"}}

    async def twice(adapter: Models, server: RawServer) -> None:
        with pytest.raises(Relearnt):
            await adapter.complete(call(model=CHAT), api_key=KEY)
        completion = await adapter.complete(call(model=CHAT), api_key=KEY)
        assert completion.left_out == ("temperature",)
        assert ["temperature" in body for body in server.bodies] == [True, False]

    use(twice, response(told, status=400), json_of(GOOD[CHAT]))


def test_a_refused_setting_that_the_task_asked_for_is_a_bad_request_that_names_it() -> None:
    told = {"error": {"message": "Unrecognized request argument supplied: seed"}}
    wishes = Wishes(seed=1, asked=frozenset({"seed"}))

    async def main(adapter: Models, server: RawServer) -> None:
        with pytest.raises(BadRequest, match="refuses 'seed'"):
            await adapter.complete(replace(call(model=CHAT), wishes=wishes), api_key=KEY)
        dropping = replace(wishes, drop_params=True)
        completion = await adapter.complete(replace(call(model=CHAT), wishes=dropping), api_key=KEY)
        assert completion.left_out == ("seed",)
        assert ["seed" in body for body in server.bodies] == [True, False]

    use(main, response(told, status=400), json_of(GOOD[CHAT]))


def test_a_prompt_that_is_too_long_for_another_vendors_model_says_what_fits() -> None:
    told = {"error": {"message": "This model's maximum context length is 2048 tokens, you sent 2723 input tokens."}}

    async def main(adapter: Models, _: RawServer) -> None:
        with pytest.raises(ContextTooLong) as raised:
            await adapter.complete(call(model=CHAT), api_key=KEY)
        assert (raised.value.window_tokens, raised.value.true_input_tokens) == (2048, 2723)

    use(main, response(told, status=400))


def test_a_model_whose_profile_has_no_temperature_gets_none_and_says_so() -> None:
    completion, server = ask(call(model="openai-chat:gpt-5-mini"), json_of(GOOD[CHAT]))
    assert completion.left_out == ("temperature",)
    assert "temperature" not in server.bodies[0]


def test_a_schema_goes_by_the_wire_where_the_model_has_a_way_for_it_and_is_asked_by_the_prompt_elsewhere() -> None:
    def sent(model: str) -> dict[str, Any]:
        _, server = ask(asking(model, schema=SCHEMA), json_of(GOOD[model]))
        return server.bodies[0]

    assert sent(CHAT)["response_format"]["json_schema"]["strict"] is True
    assert sent(RESPONSES)["text"]["format"]["type"] == "json_schema"
    assert sent(ANTHROPIC)["output_config"]["format"]["schema"]["required"] == ["a"]
    assert sent(GOOGLE)["generationConfig"]["responseJsonSchema"]["required"] == ["a"]
    loose, _ = ask(asking(CHAT, schema=SCHEMA, form="loose"), json_of(GOOD[CHAT]))
    assert loose.text == "4"
    refused, server = fail(asking(MISTRAL, schema=SCHEMA), json_of(GOOD[MISTRAL]))
    assert isinstance(refused, SchemaRefused) and refused.whole and server.heads == []


def test_a_schema_that_the_provider_refuses_is_asked_in_the_next_form() -> None:
    told = {"error": {"message": "Invalid schema for response_format 'answer': 'a' must be required."}}
    refused, _ = fail(asking(CHAT, schema=SCHEMA), response(told, status=400))
    assert isinstance(refused, SchemaRefused) and not refused.whole


@pytest.mark.parametrize("model", [CHAT, ANTHROPIC, GOOGLE])
def test_tools_their_calls_and_their_results_are_put_into_the_vendors_words(model: str) -> None:
    request = asking(model, tools=(Tool(name="weather", parameters={"type": "object", "properties": {}}),))
    called = ToolCall(id="call_1", name="weather", arguments='{"city":"Bonn"}')
    result = Message(role="tool", tool_call_id="call_1", content="it rains")
    request = replace(request, messages=(*request.messages, Message(role="assistant", tool_calls=(called,)), result))
    _, server = ask(request, json_of(GOOD[model]))
    body = str(server.bodies[0])
    assert "'weather'" in body and "call_1" in body and "Bonn" in body and "it rains" in body


def test_calls_of_tools_thoughts_tier_and_cached_tokens_come_back_in_our_words() -> None:
    called = {"id": "call_9", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    message = {"role": "assistant", "content": None, "reasoning_content": "rain?", "tool_calls": [called]}
    usage = {"prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
             "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 5},
             "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 7}}  # fmt: skip
    answer = {**GOOD[CHAT], "usage": usage, "service_tier": "flex",
              "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}  # fmt: skip
    completion, _ = ask(asking(CHAT, tools=(Tool(name="weather"),), tier="flex"), json_of(answer))
    assert completion.tool_calls == (ToolCall(id="call_9", name="weather", arguments='{"city": "Bonn"}'),)
    assert (completion.finish_reason, completion.reasoning, completion.tier) == ("tool_calls", "rain?", "flex")
    used = completion.usage
    assert (used.input_tokens, used.cached_tokens, used.output_tokens, used.reasoning_tokens) == (2006, 1920, 300, 200)
    assert (used.audio_input_tokens, used.audio_output_tokens) == (5, 7)


def test_cache_reads_and_writes_of_both_lives_are_counted_within_the_input() -> None:
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 17002,
             "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
             "output_tokens": 10}  # fmt: skip
    completion, _ = ask(call(model=ANTHROPIC), json_of({**GOOD[ANTHROPIC], "usage": usage}))
    used = completion.usage
    assert (used.input_tokens, used.cached_tokens, used.cache_write_tokens) == (17111, 17002, 100)
    assert (used.cache_write_1h_tokens, used.output_tokens) == (40, 10)


def test_thoughts_of_gemini_are_part_of_the_output() -> None:
    usage = {"promptTokenCount": 20, "candidatesTokenCount": 5, "thoughtsTokenCount": 30, "totalTokenCount": 55,
             "cachedContentTokenCount": 8}  # fmt: skip
    parts = [{"text": "hm", "thought": True}, {"text": "4"}]
    answer = {**GOOD[GOOGLE], "usageMetadata": usage,
              "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}  # fmt: skip
    completion, _ = ask(call(model=GOOGLE), json_of(answer))
    assert (completion.text, completion.reasoning) == ("4", "hm")
    used = completion.usage
    assert (used.input_tokens, used.cached_tokens, used.output_tokens, used.reasoning_tokens) == (20, 8, 35, 30)


@pytest.mark.parametrize(
    ("model", "reason", "expected"),
    [
        (CHAT, "length", "length"),
        (CHAT, "content_filter", "content_filter"),
        (CHAT, "network_error", "network_error"),
        (ANTHROPIC, "max_tokens", "length"),
        (ANTHROPIC, "refusal", "content_filter"),
        (ANTHROPIC, "pause_turn", "length"),
        (GOOGLE, "MAX_TOKENS", "length"),
        (GOOGLE, "SAFETY", "content_filter"),
        (GOOGLE, "MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"),
        (COHERE, "MAX_TOKENS", "length"),
    ],
)
def test_why_an_answer_ended_is_one_of_our_words_or_the_providers_own(model: str, reason: str, expected: str) -> None:
    answer = {**GOOD[model]}
    if model == CHAT:
        answer["choices"] = [{**answer["choices"][0], "finish_reason": reason}]
    elif model == GOOGLE:
        answer["candidates"] = [{**answer["candidates"][0], "finishReason": reason}]
    else:
        answer[{ANTHROPIC: "stop_reason", COHERE: "finish_reason"}[model]] = reason
    completion, _ = ask(call(model=model), json_of(answer))
    assert completion.finish_reason == expected


def test_half_an_answer_with_an_error_is_that_error_with_what_it_has_used() -> None:
    half = {"index": 0, "message": {"role": "assistant", "content": "The first half of"}, "finish_reason": "error",
            "error": {"code": 502, "message": "Upstream disconnected"}}  # fmt: skip
    failed, server = fail(call(model=CHAT), json_of({**GOOD[CHAT], "choices": [half]}))
    assert isinstance(failed, ProviderUnavailable) and "Upstream disconnected" in str(failed)
    assert failed.usage is not None and failed.usage.input_tokens == 20 and len(server.heads) == 1


def test_an_answer_without_usage_is_estimated() -> None:
    answer = {key: value for key, value in GOOD[CHAT].items() if key != "usage"}
    completion, _ = ask(call(model=CHAT), json_of(answer))
    assert completion.usage.input_tokens > 5 and completion.usage.output_tokens == 1


def test_wishes_go_out_in_the_vendors_words_and_what_a_wire_has_not_is_named() -> None:
    wishes = {"effort": "low", "verbosity": "low", "seed": 7, "stop": ("END",), "tier": "flex", "n": 2,
              "extra_body": {"user": "me"}, "extra_headers": {"X-Extra": "1"}}  # fmt: skip
    completion, server = ask(asking(CHAT, **wishes), json_of(GOOD[CHAT]))
    body = server.bodies[0]
    assert (body["reasoning_effort"], body["verbosity"], body["seed"], body["stop"]) == ("low", "low", 7, ["END"])
    assert (body["service_tier"], body["n"], body["user"]) == ("flex", 2, "me")
    assert "temperature" not in body and completion.left_out == ("temperature",)  # a model that thinks takes none
    completion, server = ask(asking(COHERE, **wishes), json_of(GOOD[COHERE]))
    assert completion.left_out == ("effort", "verbosity", "tier", "n", "user")
    assert "X-Extra: 1" in server.heads[0] or "x-extra: 1" in server.heads[0]


def test_what_the_task_itself_asks_for_fails_where_a_wire_has_no_field_for_it_and_nothing_is_sent() -> None:
    failed, server = fail(asking(COHERE, verbosity="low", asked=frozenset({"verbosity"})), json_of(GOOD[COHERE]))
    assert isinstance(failed, BadRequest) and failed.blame == "prompt"
    assert str(failed).startswith("verbosity: ") and server.heads == []
    completion, _ = ask(
        asking(COHERE, verbosity="low", asked=frozenset({"verbosity"}), drop_params=True), json_of(GOOD[COHERE])
    )
    assert completion.left_out == ("verbosity",)


def test_signed_thoughts_come_back_and_go_out_again_with_the_results_of_the_calls() -> None:
    called = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bonn"}}
    blocks = [{"type": "thinking", "thinking": "rain?", "signature": "c2ln"}, called]
    answer = {**GOOD[ANTHROPIC], "content": blocks, "stop_reason": "tool_use"}
    request = asking(ANTHROPIC, tools=(Tool(name="weather"),))
    completion, _ = ask(request, json_of(answer))
    assert [thought.signature for thought in completion.thoughts] == ["c2ln"]
    said = Message(role="assistant", content=completion.thoughts, tool_calls=completion.tool_calls)
    result = Message(role="tool", tool_call_id="call_1", content="it rains")
    _, server = ask(replace(request, messages=(*request.messages, said, result)), json_of(GOOD[ANTHROPIC]))
    assert "'signature': 'c2ln'" in str(server.bodies[0])


def test_several_answers_come_back_where_a_wire_gives_them() -> None:
    other = {"index": 1, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
    completion, _ = ask(asking(CHAT, n=2), json_of({**GOOD[CHAT], "choices": [*GOOD[CHAT]["choices"], other]}))
    assert (completion.text, completion.others) == ("4", ("four",))


def test_several_answers_are_asked_for_whole_where_pieces_of_them_would_come_mixed() -> None:
    other = {"index": 1, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
    answer = json_of({**GOOD[CHAT], "choices": [*GOOD[CHAT]["choices"], other]})

    async def main() -> None:
        async with raw_server(answer) as server, models(server.url) as adapter:
            assert isinstance(adapter, StreamingProvider)
            pieces = [piece async for piece in adapter.stream(asking(CHAT, n=2), api_key=KEY)]
            (whole,) = pieces
            assert isinstance(whole, Completion)
            assert (whole.text, whole.others) == ("4", ("four",))
            assert [(body["n"], body.get("stream", False)) for body in server.bodies] == [(2, False)]

    asyncio.run(main())


def test_a_thinking_budget_goes_to_who_takes_one_and_is_named_elsewhere() -> None:
    for model, is_left_out in ((ANTHROPIC, False), (GOOGLE, False), (RESPONSES, True)):
        completion, server = ask(asking(model, thinking_tokens=1024), json_of(GOOD[model]))
        assert ("thinking_tokens" in completion.left_out) == is_left_out, model
        assert ("1024" in str(server.bodies[0])) != is_left_out


@pytest.mark.parametrize(
    "part",
    [ImagePart(type="image", url="http://127.0.0.1:9/cat.png"), FilePart(type="file", url="http://127.0.0.1:9/a.pdf")],
)
def test_an_address_is_handed_on_or_refused_but_never_fetched(part: ImagePart | FilePart) -> None:
    request = replace(call(model=ANTHROPIC), messages=(Message(role="user", content=(part,)),))
    _, server = ask(request, json_of(GOOD[ANTHROPIC]))
    assert str(part.url) in str(server.bodies[0])
    failed, server = fail(replace(request, model=GOOGLE), json_of(GOOD[GOOGLE]))
    assert isinstance(failed, BadRequest) and "send base64" in str(failed)
    assert server.heads == []


def test_an_image_given_as_data_is_sent() -> None:
    part = ImagePart(type="image", data="aGVsbG8=", media_type="image/png")
    request = replace(call(model=GOOGLE), messages=(Message(role="user", content=(part,)),))
    _, server = ask(request, json_of(GOOD[GOOGLE]))
    assert "aGVsbG8=" in str(server.bodies[0])
    failed, _ = fail(
        replace(request, messages=(Message(role="user", content=(ImagePart(type="image", data="no base64!"),)),)),
        json_of(GOOD[GOOGLE]),
    )
    assert isinstance(failed, BadRequest) and "base64" in str(failed)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gemini", "expected `vendor:model`"),
        ("gogle:gemini-3-flash-preview", "Unknown provider: gogle"),
        ("xai:grok-4", 'pip install "pydantic-ai-slim[xai]"'),
        ("openai-codex:gpt-5", "use `openai-chat:MODEL`"),
    ],
)
def test_a_model_that_cannot_be_called_says_what_to_do(model: str, told: str) -> None:
    async def once() -> None:
        async with models("http://127.0.0.1:9") as adapter:
            with pytest.raises(ConfigurationError, match="model") as failed:
                await adapter.complete(call(model=model), api_key=KEY)
            assert told in str(failed.value)

    asyncio.run(once())
