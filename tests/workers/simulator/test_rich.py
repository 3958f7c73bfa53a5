"""What the vendors' SDKs can ask beyond an answer: schemas, tools, thinking, parts, tiers, streams, caches.

Every body is checked by the SDKs' own types, strictly: they read wrong ones without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Literal

import anthropic
import openai
import pydantic
import pytest
from anthropic.types import Message, ModelInfo
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from fleet.workers.simulator.prefix_cache import PrefixCache
from fleet.workers.simulator.wires.openai_wire import OpenAIWire
from tests.every import every
from tests.workers.simulator.running import Reply, chat, running, send, total

ANTHROPIC = {"anthropic-version": "2023-06-01"}
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
OPENAI_TOOL = {"type": "function", "function": {**TOOL, "strict": True}}
ANTHROPIC_TOOL = {"name": TOOL["name"], "input_schema": TOOL["parameters"]}
OTHER_TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
#: 1,500 tokens and more: long enough for the prefix caches.
LONG = "The old bridge follows the northern line. " * 250


class Step(pydantic.BaseModel):
    explanation: str
    result: int | None


class Solution(pydantic.BaseModel):
    steps: list[Step]
    answer: int
    level: Literal["easy", "hard"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(seed=3) as address:
        yield address


@pytest.fixture(scope="module")
def sdks(url: str) -> Iterator[tuple[openai.OpenAI, anthropic.Anthropic]]:
    with ExitStack() as stack:
        yield (
            stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)),
            stack.enter_context(anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)),
        )


def asked(url: str, prompt: str = "Hello there", **fields: Any) -> Reply:
    """Send one message, in Anthropic's format."""
    body = {"model": "m", "max_tokens": 5000, "messages": [{"role": "user", "content": prompt}], **fields}
    return send(url, "/v1/messages", body, **ANTHROPIC)


def checked(reply: Reply) -> dict[str, Any]:
    """Return a body that the SDKs' own types accept, values and all."""
    assert reply.status == 200, reply.json
    kind: type[pydantic.BaseModel] = Message if reply.json.get("type") == "message" else ChatCompletion
    kind.model_validate(reply.json)
    return reply.json


# -- structured output


def test_the_sdks_parse_answers_by_a_model_class(sdks: tuple[openai.OpenAI, anthropic.Anthropic]) -> None:
    one, two = sdks
    completion = one.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": "What is 2+40?"}], response_format=Solution
    )
    message = two.messages.parse(
        model="m", max_tokens=500, messages=[{"role": "user", "content": "What is 2+40?"}], output_format=Solution
    )
    parsed = completion.choices[0].message.parsed
    assert isinstance(parsed, Solution)
    assert isinstance(message.parsed_output, Solution)
    numbers = [parsed.answer, *(step.result for step in parsed.steps)]
    assert 42 in numbers


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {"enum": ["x", 3, None]}, "b": {"const": True}}, "required": ["a", "b"]},
    {"type": "object", "properties": {"n": {"type": "integer", "minimum": 7, "maximum": 9, "multipleOf": 4}}},
    {"type": "object", "properties": {"n": {"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 0}},
     "required": ["n"]},
    {"type": "object", "properties": {"t": {"type": "array", "items": {"type": "string", "maxLength": 4},
                                            "minItems": 2, "maxItems": 2, "uniqueItems": True}}, "required": ["t"]},
    {"type": "object", "properties": {"p": {"type": "string", "pattern": "^[A-Z]{2}-\\d{3,5}(x|yz)?$"}},
     "required": ["p"]},
    {"type": "object", "properties": {"d": {"type": "string", "format": "date"}, "s": {"type": "string",
                                                                                       "minLength": 40}},
     "required": ["d", "s"]},
    {"type": "object", "properties": {"u": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
     "required": ["u"], "$defs": {"node": {"type": "object", "properties": {
         "name": {"type": "string"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
         "required": ["name", "next"], "additionalProperties": False}}},
    {"type": "object", "allOf": [{"properties": {"a": {"type": "boolean"}}, "required": ["a"]},
                                 {"properties": {"b": {"type": ["integer", "null"]}}, "required": ["b"]}]},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_answer_fits_its_schema_whatever_that_asks(url: str, schema: dict[str, Any]) -> None:
    import jsonschema

    for number in range(6):
        form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
        body = checked(chat(url, f"Question {number}", response_format=form))
        jsonschema.validate(json.loads(body["choices"][0]["message"]["content"]), schema)


def test_a_schema_for_which_nothing_can_be_made_is_refused_and_not_answered_wrongly(url: str) -> None:
    schema = {"type": "object", "properties": {"a": False}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    reply = chat(url, response_format=form)
    assert reply.status == 400
    assert "expected a schema that this simulator can make a value for" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "array", "items": {"type": "string"}},
         "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'."),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
         "In context=(), 'additionalProperties' is required to be supplied and to be false."),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"],
          "additionalProperties": False},
         "In context=(), 'required' is required to be supplied and to be an array including every key in properties. "
         "Missing 'b'."),
        ({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {}}, "required": ["b"],
                                                 "additionalProperties": False}},
          "required": ["a"], "additionalProperties": False},
         "In context=('properties', 'a', 'properties', 'b'), schema must have a 'type' key."),
        ({"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}]}}, "required": ["a"],
          "additionalProperties": False}, "In context=('properties', 'a'), 'oneOf' is not permitted."),
    ],
)  # fmt: skip
def test_strict_mode_refuses_in_the_vendors_words(url: str, schema: dict[str, Any], told: str) -> None:
    form = {"name": "answer", "schema": schema, "strict": True}
    reply = chat(url, response_format={"type": "json_schema", "json_schema": form})
    assert reply.status == 400
    assert reply.json["error"]["message"] == f"Invalid schema for response_format 'answer': {told}"
    assert reply.json["error"]["param"] == "response_format"
    if schema["type"] == "object":
        form["strict"] = False
        assert chat(url, response_format={"type": "json_schema", "json_schema": form}).status == 200
    tool = {"type": "function", "function": {"name": "it", "parameters": schema, "strict": True}}
    refused = chat(url, tools=[tool]).json["error"]
    assert (refused["code"], refused["param"]) == ("invalid_function_parameters", "tools[0].function.parameters")


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "object", "properties": {}},
         "For 'object' type, 'additionalProperties' must be explicitly set to false"),
        ({"type": "object", "properties": {}, "additionalProperties": True},
         "For 'object' type, 'additionalProperties: true' is not supported. "
         "Please set 'additionalProperties' to false"),
        ({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 3}},
          "additionalProperties": False}, "For 'integer' type, properties maximum, minimum are not supported"),
    ],
)  # fmt: skip
def test_anthropics_structured_output_refuses_in_its_own_words(url: str, schema: dict[str, Any], told: str) -> None:
    reply = asked(url, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert reply.status == 400
    assert reply.json["error"] == {"type": "invalid_request_error", "message": f"output_config.format.schema: {told}"}


def test_200_questions_in_strict_mode_are_valid_at_the_first_call(url: str) -> None:
    with running() as own, openai.OpenAI(base_url=f"{own}/v1", api_key="k", max_retries=0) as client:
        for number in range(200):
            question: Any = [{"role": "user", "content": f"What is {number} + {number}?"}]
            completion = client.chat.completions.parse(model="m", messages=question, response_format=Solution)
            assert completion.choices[0].message.parsed is not None
        counters = total(own)
        assert (counters["calls"], counters["served"], counters["bad_requests"]) == (200, 200, 0)


# -- tools


def test_a_tool_is_called_when_it_must_be_or_the_prompt_names_it_and_its_result_is_taken(url: str) -> None:
    plain = checked(chat(url, "Tell me a story", tools=[OPENAI_TOOL]))
    assert plain["choices"][0]["finish_reason"] == "stop"
    for prompt, choice in (("Use get_weather, please", "auto"), ("Hello", "required"),
                           ("Hello", {"type": "function", "function": {"name": "get_weather"}})):  # fmt: skip
        body = checked(chat(url, prompt, tools=[OPENAI_TOOL], tool_choice=choice))
        answer = body["choices"][0]
        assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", None)
        call = answer["message"]["tool_calls"][0]
        assert json.loads(call["function"]["arguments"]).keys() == {"city"}
        talk = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": prompt},
            answer["message"],
            {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"},
        ]
        after = checked(chat(url, messages=talk, tools=[OPENAI_TOOL]))
        assert after["choices"][0]["finish_reason"] == "stop"
        assert after["usage"]["prompt_tokens"] > body["usage"]["prompt_tokens"]
        assert chat(url, messages=talk[:-1], tools=[OPENAI_TOOL]).json["error"]["param"] == "messages.[3].role"


def test_several_tools_may_be_called_at_once_unless_that_is_forbidden(url: str) -> None:
    tools = [OPENAI_TOOL, OTHER_TOOL]
    counts = [
        len(checked(chat(url, "get_weather and get_time", tools=tools, parallel_tool_calls=many))["choices"][0]
            ["message"]["tool_calls"])
        for many in (True, False)
    ]  # fmt: skip
    assert counts == [2, 1]
    assert "tool_calls" not in chat(url, "get_time", tools=tools, tool_choice="none").json["choices"][0]["message"]


def test_anthropics_tools_go_the_same_way(url: str) -> None:
    body = checked(asked(url, tools=[ANTHROPIC_TOOL], tool_choice={"type": "any"}))
    assert body["stop_reason"] == "tool_use"
    call = body["content"][-1]
    assert (call["type"], call["input"].keys()) == ("tool_use", {"city"})
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": body["content"]}]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "12 degrees"}]}
    answered = [*talk, {"role": "user", "content": [result]}]
    assert checked(asked(url, messages=answered, tools=[ANTHROPIC_TOOL]))["stop_reason"] == "end_turn"
    unanswered = asked(url, messages=[*talk, {"role": "user", "content": "And?"}], tools=[ANTHROPIC_TOOL])
    assert "`tool_use` ids were found without `tool_result` blocks" in unanswered.json["error"]["message"]
    unasked = asked(url, messages=[{"role": "user", "content": [result]}])
    assert "unexpected `tool_use_id` found in `tool_result` blocks" in unasked.json["error"]["message"]


# -- what shapes an answer


def test_effort_decides_how_much_is_thought_and_thinking_is_output(url: str) -> None:
    spent = {}
    for effort in ("none", "low", "high"):
        body = checked(chat(url, "Think", reasoning_effort=effort))
        usage = body["usage"]
        spent[effort] = usage["completion_tokens_details"]["reasoning_tokens"]
        assert spent[effort] <= usage["completion_tokens"]
        assert ("reasoning_content" in body["choices"][0]["message"]) == (effort != "none")
    assert spent["none"] == 0 < spent["low"] < spent["high"]
    message = checked(asked(url, thinking={"type": "enabled", "budget_tokens": 1024}))
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert 0 < message["usage"]["output_tokens_details"]["thinking_tokens"] <= 1024


def test_an_allowance_that_thinking_uses_up_leaves_no_text(url: str) -> None:
    body = checked(chat(url, "Think", reasoning_effort="xhigh", max_completion_tokens=100))
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("", "length")
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 100


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "greater than or equal to 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 6000}}, "must be greater than `thinking.budget_tokens`"),
        ({"thinking": {"type": "adaptive"}, "temperature": 0.5}, "may only be set to 1 when thinking is enabled"),
        ({"thinking": {"type": "adaptive"}, "tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}},
         "Thinking may not be enabled when tool_choice forces tool use"),
        ({"output_config": {"effort": "none"}}, "Invalid value: 'none'"),
        ({"tool_choice": {"type": "tool", "name": "it"}, "tools": [ANTHROPIC_TOOL]}, "not found in provided tools"),
        ({"messages": [{"role": "user", "content": [{"type": "movie"}]}]}, "does not match any of the expected tags"),
        ({"service_tier": "flex"}, "Invalid value: 'flex'"),
    ],
)  # fmt: skip
def test_what_anthropics_api_refuses_is_refused(url: str, fields: dict[str, Any], told: str) -> None:
    reply = asked(url, **fields)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert told in reply.json["error"]["message"]


def test_seed_stop_verbosity_and_n_do_what_they_say(url: str) -> None:
    def texts(**fields: Any) -> list[str]:
        return [choice["message"]["content"] for choice in checked(chat(url, "A story", **fields))["choices"]]

    assert texts(seed=7) == texts(seed=7) != texts(seed=8)
    assert len(set(texts(n=3))) == 3
    stopped = checked(chat(url, "A story", seed=7, stop=["."]))["choices"][0]
    assert (stopped["message"]["content"] + ".", stopped["finish_reason"]) == (
        texts(seed=7)[0].partition(".")[0] + ".",
        "stop",
    )
    brief, usual, long = (len(texts(seed=9, verbosity=word)[0]) for word in ("low", "medium", "high"))
    assert brief < long
    assert usual < long
    message = checked(asked(url, stop_sequences=["."]))
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", ".")


def test_n_answers_are_counted_and_billed_n_fold() -> None:
    with running() as own:
        usage = checked(chat(own, "What is 1+1?", n=4))["usage"]
        assert usage["completion_tokens"] == 4
        assert total(own)["output_tokens"] == 4


def test_parts_of_messages_are_taken_and_counted(url: str) -> None:
    words = {"type": "text", "text": "What is this?"}
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    sound = {"type": "input_audio", "input_audio": {"data": "QUJD" * 100, "format": "wav"}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}}
    alone = checked(chat(url, messages=[{"role": "user", "content": [words]}]))["usage"]["prompt_tokens"]
    talk = [{"role": "user", "content": [words, picture, sound, file]}]
    usage = checked(chat(url, messages=talk))["usage"]
    assert usage["prompt_tokens_details"]["image_tokens"] == 85
    assert usage["prompt_tokens_details"]["audio_tokens"] == 26
    assert usage["prompt_tokens"] > alone + 85 + 26
    blocks = [
        words,
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ]
    assert checked(asked(url, messages=[{"role": "user", "content": blocks}]))["usage"]["input_tokens"] > 2600


# -- tiers and caches


def test_the_tier_that_answered_is_told_and_billed_at_its_price() -> None:
    with running(input_usd_per_mtok=1.0, output_usd_per_mtok=10.0) as own:
        bills = []
        for tier, told in (("default", "default"), ("auto", "default"), ("flex", "flex"), ("priority", "priority")):
            before = total(own)["billed_usd_micros"]
            body = checked(chat(own, "What is 12+30?", service_tier=tier))
            assert body["service_tier"] == told
            bills.append(total(own)["billed_usd_micros"] - before)
        usage = body["usage"]
        plain = usage["prompt_tokens"] + 10 * usage["completion_tokens"]
        assert bills == pytest.approx([plain, plain, plain / 2, 2 * plain], abs=1)
        assert "service_tier" not in chat(own).json
        assert checked(asked(own, service_tier="auto"))["usage"]["service_tier"] == "priority"
        assert checked(asked(own, service_tier="standard_only"))["usage"]["service_tier"] == "standard"


def test_flex_is_refused_for_want_of_capacity_on_demand() -> None:
    with running(flex_busy_rate=1.0) as own:
        reply = chat(own, service_tier="flex")
        assert (reply.status, reply.json["error"]["code"]) == (429, "resource_unavailable")
        assert chat(own).status == chat(own, service_tier="default").status == 200
        assert (total(own)["refused_429"], total(own)["served"]) == (1, 2)


def test_a_long_prompt_is_read_from_the_cache_the_second_time() -> None:
    with running(cached_usd_per_mtok=0.0, input_usd_per_mtok=1.0, output_usd_per_mtok=0.0) as own:
        first, second = (checked(chat(own, f"{LONG} Question {n}"))["usage"] for n in range(2))
        assert first["prompt_tokens_details"]["cached_tokens"] == 0
        cached = second["prompt_tokens_details"]["cached_tokens"]
        assert cached % 128 == 0
        assert 1024 <= cached < second["prompt_tokens"]
        other = chat(own, f"{LONG} Question 2", key="another")
        assert other.json["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        counters = total(own)
        assert counters["cached_tokens"] == cached
        assert counters["billed_usd_micros"] == counters["input_tokens"] - cached


@pytest.mark.parametrize(("kept", "is_read"), [(None, False), ("in_memory", False), ("24h", True)])
def test_openais_cache_forgets_in_minutes_or_asked_so_in_a_day(kept: str | None, is_read: bool) -> None:
    asked = {} if kept is None else {"prompt_cache_retention": kept}
    body = {"model": "m", "messages": [{"role": "user", "content": LONG}], **asked}
    wanted = OpenAIWire().read(body, {}).wanted
    assert wanted is not None
    cache = PrefixCache(places=1000)
    cache.keep("key/m", wanted.places, now_s=0.0)
    assert cache.look("key/m", wanted.places, now_s=299.0).read >= 1024
    assert (cache.look("key/m", wanted.places, now_s=3601.0).read >= 1024) is is_read
    assert cache.look("key/m", wanted.places, now_s=86_401.0).read == 0


def test_a_time_that_openais_cache_does_not_have_is_refused(url: str) -> None:
    refused = chat(url, LONG, prompt_cache_retention="1h")
    assert (refused.status, refused.json["error"]["param"]) == (400, "prompt_cache_retention")


def test_a_cache_remembers_no_more_places_than_it_has() -> None:
    with running(cache_places=0) as own:
        for number in range(2):
            checked(chat(own, f"{LONG} Question {number}"))
        assert total(own)["cached_tokens"] == 0


def test_anthropics_cache_is_written_where_it_is_marked_and_bills_by_its_time_to_live() -> None:
    prices = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 0.0, "cached_usd_per_mtok": 0.1,
              "cache_write_usd_per_mtok": 1.25, "cache_write_1h_usd_per_mtok": 2.0}  # fmt: skip
    with running(**prices) as own:

        def usage(ttl: str, text: str) -> dict[str, Any]:
            mark = {"type": "ephemeral", "ttl": ttl}
            system = [{"type": "text", "text": text, "cache_control": mark}]
            told: dict[str, Any] = checked(asked(own, "Hello", system=system))["usage"]
            return told

        first, second, hour = usage("5m", LONG), usage("5m", LONG), usage("1h", f"Otherwise. {LONG}")
        written = first["cache_creation_input_tokens"]
        assert written > 1024
        assert (first["cache_read_input_tokens"], first["cache_creation"]["ephemeral_5m_input_tokens"]) == (0, written)
        assert (second["cache_read_input_tokens"], second["cache_creation_input_tokens"]) == (written, 0)
        assert hour["cache_creation"]["ephemeral_1h_input_tokens"] == hour["cache_creation_input_tokens"] > written
        rest = first["input_tokens"] + second["input_tokens"] + hour["input_tokens"]
        wanted = rest + 1.25 * written + 0.1 * written + 2.0 * hour["cache_creation_input_tokens"]
        assert total(own)["billed_usd_micros"] == pytest.approx(wanted, abs=1)
        assert asked(own, "Hello").json["usage"]["cache_creation_input_tokens"] == 0


def test_what_is_read_from_a_cache_counts_against_openais_limit_and_not_against_anthropics() -> None:
    def used(path: str, first: Reply, second: Reply) -> tuple[int, int]:
        left = [int(reply.headers["x-ratelimit-remaining-tokens"]) for reply in (first, second)]
        return 10**6 - left[0], left[0] - left[1]

    with running(tpm=10**6, burst=1.0, minute_s=1e9) as own:
        marked = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
        cold, warm = used("messages", *(asked(own, "What is 1+1?", model="a", system=marked) for _ in range(2)))
        assert warm < 50 < cold
        cold, warm = used("chat", *(chat(own, LONG, model="b", max_tokens=1) for _ in range(2)))
        assert warm == pytest.approx(cold, abs=1)


# -- streams


def events_of(url: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a stream as JSON values, read without an SDK."""
    import urllib.request

    request = urllib.request.Request(f"{url}{path}", json.dumps({**body, "stream": True}).encode(),
                                     {"Authorization": "Bearer k", **ANTHROPIC})  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        lines = answer.read().decode().splitlines()
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(one) for one in told if one != "[DONE]"]


def test_a_stream_says_what_the_whole_answer_would_have_said_and_its_usage(url: str) -> None:
    fields: dict[str, Any] = {"seed": 4, "reasoning_effort": "low", "tools": [OPENAI_TOOL]}
    for prompt in ("A story", "Use get_weather"):
        whole = chat(url, prompt, **fields).json
        body = {"model": "simulated-1", "messages": [{"role": "user", "content": prompt}], **fields}
        chunks = events_of(url, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk)
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        message = whole["choices"][0]["message"]
        said = "".join(delta.get("content") or "" for delta in deltas)
        assert said == (message["content"] or "")
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == message["reasoning_content"]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        arguments = "".join(call["function"].get("arguments", "") for call in calls)
        told = [call["function"]["arguments"] for call in message.get("tool_calls", ())]
        assert arguments == "".join(told)
        assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
        assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])
        assert every(chunk["usage"] is None for chunk in chunks[:-1])


def test_the_sdks_read_streams_of_every_kind(sdks: tuple[openai.OpenAI, anthropic.Anthropic]) -> None:
    one, two = sdks
    with one.chat.completions.stream(
        model="m",
        messages=[{"role": "user", "content": "What is 2+40?"}],
        response_format=Solution,
        stream_options={"include_usage": True},
    ) as stream:
        completion = stream.get_final_completion()
    assert isinstance(completion.choices[0].message.parsed, Solution)
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0
    with two.messages.stream(
        model="m",
        max_tokens=3000,
        messages=[{"role": "user", "content": "Use get_weather"}],
        thinking={"type": "adaptive"},
        tools=[ANTHROPIC_TOOL],  # type: ignore[list-item]
    ) as events:
        message = events.get_final_message()
    Message.model_validate(message.model_dump())
    assert [block.type for block in message.content] == ["thinking", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 1


def test_a_stream_that_is_cut_is_billed_for_what_came() -> None:
    with running(cut_rate=1.0) as own, openai.OpenAI(base_url=f"{own}/v1", api_key="k", max_retries=0) as client:
        question: Any = [{"role": "user", "content": "A story"}]
        with pytest.raises(openai.APIConnectionError):
            list(client.chat.completions.create(model="m", messages=question, stream=True, seed=1))
        cut = total(own)["cut_output_tokens"]
        send(own, "/failures?cut_rate=0", method="POST")
        whole = chat(own, "A story", seed=1).json["usage"]["completion_tokens"]
        assert 0 < cut < whole + 20
        assert total(own)["cut"] == 1


def test_a_client_that_leaves_a_stream_pays_for_what_it_got() -> None:
    from tests.waiting import wait_until

    with (
        running(latency_ms=4000) as own,
        openai.OpenAI(base_url=f"{own}/v1", api_key="k", max_retries=0, timeout=60) as client,
    ):
        question: Any = [{"role": "user", "content": "A story"}]
        with client.chat.completions.create(model="m", messages=question, stream=True) as stream:
            next(iter(stream))
        wait_until(lambda: total(own)["in_flight"] == 0, timeout_s=60)
        counters = total(own)
        assert (counters["cut"], counters["served"]) == (1, 0)


# -- models


def test_models_are_listed_in_both_vendors_shapes(url: str, sdks: tuple[openai.OpenAI, anthropic.Anthropic]) -> None:
    for told in send(url, "/v1/models").json["data"]:
        openai.types.Model.model_validate(told)
        ModelInfo.model_validate(told)
    one, two = sdks
    assert one.models.retrieve("whatever").id == two.models.retrieve("whatever").id == "whatever"
    assert two.models.retrieve("odd-retiring").lifecycle == "deprecated"
    assert send(url, "/v1/models/it", key=None).status == 401
