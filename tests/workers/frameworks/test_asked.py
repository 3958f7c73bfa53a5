"""What requests of SDKs ask: where they lead, what is reserved, what is sent instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.errors import BotFunctionFailed
from fleet.workers.frameworks.asked import asked_by, read
from fleet.workers.frameworks.raw import RawRequest


def request(path: str, body: object = None, *, method: str = "POST", **headers: str) -> RawRequest:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return RawRequest(method, path, headers, raw)


@pytest.mark.parametrize(
    ("path", "below", "wire"),
    [
        ("/v1/chat/completions", "/chat/completions", "openai"),
        ("/openai/v1/chat/completions", "/chat/completions", "openai"),
        ("/openai/deployments/gpt-9/chat/completions?api-version=1", "/chat/completions?api-version=1", "openai"),
        ("/api/paas/v4/embeddings", "/embeddings", "openai"),
        ("/v1/messages?beta=true", "/messages?beta=true", "anthropic"),
        ("/v1/responses/r1/cancel", "/responses/r1/cancel", "openai"),
        ("/v1/realtime/sessions", "/realtime/sessions", "openai"),
        ("/v1beta/models/gemini-9:generateContent?alt=sse", "/models/gemini-9:generateContent?alt=sse", "gemini"),
    ],
)  # fmt: skip
def test_what_stands_below_an_apis_root_is_found_wherever_the_sdk_thinks_that_it_is(path: str, below: str, wire: str):
    ask = read(request(path, {"model": "m"}))
    assert (ask.path, ask.wire) == (below, wire)


def test_a_shared_path_is_of_the_vendor_whose_version_is_told():
    assert read(request("/v1/files", {}, **{"anthropic-version": "2023-06-01"})).wire == "anthropic"
    assert read(request("/v1/files", {})).wire == "openai"


@pytest.mark.parametrize("path", [
    "/v1/../admin", "/v1//files", "/v1/%2e%2e/files", "@elsewhere.example/v1/files", "", ".elsewhere.example/files",
    "/v1/a\\b", "/v1/a b", "/v1/files\r\nx: y", "/v1/files?a=\r\nx: y", "/v1/files?a#b", "/v1/f\u00fcr",
])  # fmt: skip
def test_a_path_that_may_lead_out_of_the_api_is_refused(path: str):
    with pytest.raises(BotFunctionFailed, match="name its endpoint plainly"):
        read(request(path, {}))


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "responses", "messages", "embeddings"])
@pytest.mark.parametrize("body", [None, b"{", b"[]", b"\x1f\x8b packed", b'{"a":' * 100_000])
def test_what_asks_a_model_in_a_body_that_cannot_be_read_is_refused(endpoint: str, body: bytes | None):
    with pytest.raises(BotFunctionFailed, match="expected a JSON object"):
        read(request(f"/v1/{endpoint}", body))


@pytest.mark.parametrize("body", [{"messages": []}, {"messages": [], "model": ""}, {"messages": [], "model": 4}])
def test_a_request_that_names_no_model_asks_the_pools_and_takes_a_grant(body: dict[str, Any]):
    ask = read(request("/v1/chat/completions", body))
    assert ask.asked is not None and json.loads(ask.written("ours").body)["model"] == "ours"


@pytest.mark.parametrize(
    ("body", "answers"),
    [
        ({"prompt": "a"}, 1), ({"prompt": "a", "n": 2}, 2), ({"prompt": ["a", "b"], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1), ({"prompt": [[1], [2]]}, 2), ({"prompt": "a", "n": 2, "best_of": 5}, 5),
    ],
)  # fmt: skip
def test_all_answers_that_are_made_are_reserved(body: dict[str, Any], answers: int):
    ask = read(request("/v1/completions", {"model": "m", "max_tokens": 100, **body}))
    assert ask.output_tokens(500, None) == 100 * answers


@pytest.mark.parametrize(
    ("method", "path", "body", "asks"),
    [
        ("POST", "/v1/chat/completions", {"model": "m", "messages": []}, True),
        ("POST", "/v1/images/generations", {"model": "m", "prompt": "a cat"}, True),
        ("POST", "/v1/images/generations", {"prompt": "a cat"}, True),
        ("POST", "/v1/audio/transcriptions", b"--x\r\n", True),
        ("GET", "/v1/models", None, False),
        ("POST", "/v1/files", b"--x\r\n", False),
        ("POST", "/v1/batches", {"input_file_id": "f"}, False),
        ("POST", "/v1/messages/batches", {"requests": []}, False),
        ("POST", "/v1/messages/count_tokens", {"model": "m", "messages": []}, False),
        ("DELETE", "/v1/responses/r1", None, False),
    ],
)
def test_who_asks_a_model_is_known_by_method_path_and_body(method: str, path: str, body: Any, asks: bool):
    assert (read(request(path, body, method=method)).asked is not None) is asks


def test_a_body_that_needs_no_change_is_sent_byte_for_byte():
    raw = b'{ "model":"ours",  "messages": [] }'
    assert read(request("/v1/chat/completions", raw)).written("ours", bound=50).body == raw
    assert json.loads(read(request("/v1/chat/completions", raw)).written("other").body)["model"] == "other"


def test_a_count_of_tokens_is_asked_of_the_pools_model_too():
    sent = read(request("/v1/messages/count_tokens", {"model": "theirs", "messages": []})).written("ours")
    assert json.loads(sent.body) == {"model": "ours", "messages": []}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_a_limit_above_the_bound_is_lowered_and_none_is_put_in(name: str):
    long = read(request("/v1/chat/completions", {"model": "m", "messages": [], name: 900}))
    assert json.loads(long.written("m", bound=50).body)[name] == 50
    bare = read(request("/v1/chat/completions", {"model": "m", "messages": []}))
    assert json.loads(bare.written("m", bound=50).body) == {"model": "m", "messages": []}


def test_usage_is_asked_for_beside_what_the_client_asks_of_its_stream():
    body = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_obfuscation": False}}
    ask = read(request("/v1/chat/completions", body))
    assert ask.is_streamed and not ask.tells_usage
    sent = json.loads(ask.written("m", with_usage=True).body)
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_body_that_was_changed_on_the_way_is_what_is_sent():
    ask = read(request("/v1/chat/completions", {"model": "m", "messages": []}))
    assert ask.body is not None and asked_by(ask, ask.body) is ask
    changed = asked_by(ask, {**ask.body, "messages": ["a warning"]})
    assert json.loads(changed.written("m").body)["messages"] == ["a warning"]


def test_embeddings_have_input_alone():
    ask = read(request("/v1/embeddings", {"model": "m", "input": ["some words", "and more"]}))
    most = ask.most(ask.output_tokens(500, None))
    assert most.output_tokens == 0 and most.input_tokens > 0 and most.cache_write_tokens == 0


def test_what_is_kept_for_an_hour_is_reserved_at_its_price():
    part = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]}
    assert read(request("/v1/messages", body)).most(9).cache_write_1h_tokens > 0
    assert read(request("/v1/messages", {**body, "messages": []})).most(9).cache_write_1h_tokens == 0
