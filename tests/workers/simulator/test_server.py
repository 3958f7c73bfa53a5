"""The simulator over real HTTP: its pages, its limits, its failures and its ledger."""

from __future__ import annotations

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fleet.conversation import Message
from fleet.workers.context import count_message_tokens, count_tokens
from fleet.workers.simulator.server import MAX_BODY_BYTES
from tests.every import every
from tests.waiting import wait_until
from tests.workers.simulator.running import Reply, chat, running, send, total


def message(url: str, prompt: str = "Hello there", **fields: Any) -> Reply:
    """Send one call in Anthropic's format."""
    body = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": prompt}], **fields}
    return send(url, "/v1/messages", body, **{"anthropic-version": "2023-06-01"})


def test_a_sum_is_answered_and_counted_in_the_ledger() -> None:
    with running() as url:
        reply = chat(url, "What is 2+2?", max_tokens=10)
        assert reply.status == 200
        assert reply.json["choices"][0]["message"] == {"role": "assistant", "content": "4", "refusal": None}
        assert reply.json["choices"][0]["finish_reason"] == "stop"
        assert reply.json["model"] == "simulated-1"
        usage = reply.json["usage"]
        assert usage == {"prompt_tokens": 3 + 4 + count_tokens("What is 2+2?"), "completion_tokens": 1,
                         "total_tokens": usage["prompt_tokens"] + 1}  # fmt: skip
        counters = total(url)
        assert (counters["calls"], counters["served"], counters["in_flight"]) == (1, 1, 0)
        assert (counters["input_tokens"], counters["output_tokens"]) == (usage["prompt_tokens"], 1)


def test_every_answer_says_that_it_is_the_simulators() -> None:
    with running() as url:
        for reply in (chat(url), message(url), chat(url, key=None), chat(url, n=0), send(url, "/nowhere")):
            assert reply.headers["x-fleet-simulator"] == "true"
        assert chat(url).json["system_fingerprint"] == "fleet-simulator"


def test_the_same_seed_gives_the_same_answers_in_any_order() -> None:
    prompts = [f"Tell me about {i}" for i in range(10)]

    def answers(seed: int, order: list[str]) -> dict[str, str]:
        with running(seed=seed) as url:
            return {prompt: chat(url, prompt).json["choices"][0]["message"]["content"] for prompt in order}

    assert answers(1, prompts) == answers(1, prompts[::-1])
    assert answers(1, prompts) != answers(2, prompts)


def test_a_repeated_question_gets_another_answer() -> None:
    with running() as url:
        assert len({chat(url, "Again").json["choices"][0]["message"]["content"] for _ in range(5)}) == 5


def test_an_answer_longer_than_allowed_is_cut_and_says_so_on_both_wires() -> None:
    with running() as url:
        first, second = chat(url, max_completion_tokens=5), message(url, max_tokens=5)
        assert first.json["choices"][0]["finish_reason"] == "length"
        assert second.json["stop_reason"] == "max_tokens"
        assert first.json["usage"]["completion_tokens"] <= 5
        assert second.json["usage"]["output_tokens"] <= 5


def test_input_is_counted_as_the_fleet_counts_it() -> None:
    talk = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello?"),
        Message(role="assistant", content="Yes."),
        Message(role="user", content="Why is the sea salty?"),
    )
    with running() as url:
        body = {"model": "m", "messages": [message.model_dump() for message in talk]}
        reply = send(url, "/v1/chat/completions", body)
        assert reply.json["usage"]["prompt_tokens"] == count_message_tokens(talk)


def test_both_wires_and_their_refusals_carry_both_header_families() -> None:
    with running(rpm=60, tpm=60_000) as url:  # bursts: 3 requests, 3,000 tokens
        replies = [chat(url), chat(url), chat(url), chat(url)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        for reply in replies:
            assert reply.headers["x-ratelimit-limit-requests"] == "60"
            assert reply.headers["anthropic-ratelimit-tokens-limit"] == "60000"
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0"]
        refused = replies[-1]
        assert 0 < float(refused.headers["retry-after"]) <= 1.01
        assert float(refused.headers["retry-after"]) * 1000 == float(refused.headers["retry-after-ms"])
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        counters = total(url)
        assert (counters["calls"], counters["served"], counters["refused_429"]) == (4, 3, 1)


def test_who_waits_for_retry_after_is_admitted() -> None:
    with running(rpm=1200, tpm=10**9, burst=0.001) as url:  # one request every 50 ms
        for _ in range(5):
            while (reply := chat(url)).status == 429:
                time.sleep(float(reply.headers["retry-after"]))
        counters = total(url)
        assert counters["served"] == 5
        assert counters["refused_429"] <= 5


def test_a_refusal_does_not_change_the_answer_that_follows() -> None:
    with running(seed=5) as url:
        free = [chat(url, "Say something").json["choices"][0]["message"]["content"] for _ in range(2)]
    with running(seed=5, rpm=1200, burst=0.0001) as url:
        limited: list[str] = []
        while len(limited) < 2:
            reply = chat(url, "Say something")
            if reply.status == 200:
                limited.append(reply.json["choices"][0]["message"]["content"])
    assert limited == free


def test_tokens_bind_as_well_and_input_and_output_are_charged_together() -> None:
    with running(rpm=10**6, tpm=60_000, burst=0.01) as url:  # 600 tokens of burst
        reply = chat(url, "What is 1+1?")
        used = reply.json["usage"]["total_tokens"]
        assert int(reply.headers["x-ratelimit-remaining-tokens"]) == 600 - used
        statuses = [chat(url, "word " * 200).status for _ in range(4)]
        assert 429 in statuses


def test_keys_and_models_have_limits_of_their_own() -> None:
    with running(rpm=1) as url:
        assert chat(url, key="one").status == 200
        assert chat(url, key="one").status == 429
        assert chat(url, key="two").status == 200
        assert chat(url, key="one", model="other").status == 200


def test_a_call_without_a_key_is_refused_in_each_vendors_shape() -> None:
    with running() as url:
        assert chat(url, key=None).status == 401
        assert chat(url, key=None).json["error"]["code"] == "invalid_api_key"
        reply = send(url, "/v1/messages", {}, key=None)
        assert (reply.status, reply.json["type"]) == (401, "error")
        assert reply.json["error"]["type"] == "authentication_error"
        assert send(url, "/ledger").json["unauthorized_401"] == 3
        assert total(url)["calls"] == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": ["hi"]}, "messages[0].role"),
        ({"messages": [{"role": [], "content": "hi"}]}, "messages[0].role"),
        ({"model": ""}, "model"),
        ({"model": 4}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_completion_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"top_p": 1.1}, "top_p"),
        ({"seed": 0.5}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"verbosity": 3}, "verbosity"),
        ({"service_tier": "cheap"}, "service_tier"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "json_object"}}, "messages"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": "x"}]}, "messages.[0].role"),
        ({"model": "odd-nothing"}, "model"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    with running() as url:
        reply = chat(url, **fields)
        assert (reply.status, reply.json["error"]["param"]) == (400, param)
        assert reply.json["error"]["type"] == "invalid_request_error"
        counters = total(url)
        assert (counters["calls"], counters["bad_requests"]) == (1, 1)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'"text"'])
def test_a_body_that_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    with running() as url:
        assert send(url, "/v1/chat/completions", body).status == 400
        assert send(url, "/v1/messages", body, **{"anthropic-version": "1"}).json["type"] == "error"


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": None},
        {"temperature": 1.5},
        {"messages": [{"role": "assistant", "content": "hi"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "system", "content": "hi"}]},
        {"system": 5},
    ],
)
def test_anthropics_own_rules_are_enforced(fields: dict[str, Any]) -> None:
    with running() as url:
        reply = message(url, **fields)
        assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")


def test_anthropics_version_header_is_required() -> None:
    with running() as url:
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        assert send(url, "/v1/messages", body).status == 400


def test_text_may_come_in_parts() -> None:
    with running() as url:
        parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "3*3?"}]
        reply = chat(url, messages=[{"role": "user", "content": parts}])
        assert reply.json["choices"][0]["message"]["content"] == "9"
        blocks = message(url, messages=[{"role": "user", "content": parts}], system=[{"type": "text", "text": "Be."}])
        assert blocks.json["content"] == [{"type": "text", "text": "9"}]


def test_a_body_beyond_the_largest_is_refused_and_one_of_a_megabyte_is_not() -> None:
    with running() as url:
        assert chat(url, "word " * 400_000).status == 200
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Authorization", "Bearer k")
        connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
        connection.endheaders()
        chunk = b" " * 65536
        try:
            for _ in range(MAX_BODY_BYTES // len(chunk) + 1):
                connection.send(chunk)
        except OSError:
            pass  # it may well answer before everything is sent
        assert connection.getresponse().status == 413
        connection.close()


def test_an_unknown_path_or_method_is_told_in_json() -> None:
    with running() as url:
        assert send(url, "/v1/embeddings", {}).status == 404
        assert send(url, "/v1/embeddings", {}).json["error"]["code"] == "unknown_url"
        assert send(url, "/v1/chat/completions").status == 405
        assert send(url, "/ledger/reset").status == 405
        assert send(url, "/healthz", {}).status == 405


def test_health_models_and_ledger_answer() -> None:
    with running() as url:
        assert send(url, "/healthz", key=None).json == {"status": "ok", "simulator": True}
        assert send(url, "/v1/models").json["data"][0]["id"] == "simulated-1"
        assert send(url, "/v1/models", key=None).status == 401
        assert send(url, "/ledger", key=None).json["simulator"] is True


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Host": "192.0.2.7:8000"},
        {"Authorization": "Bearer wrong"},
    ],
)
def test_ledger_and_switches_answer_this_machine_only(headers: dict[str, str]) -> None:
    with running(admin_token="right") as url:
        for path, method in (("/ledger", "GET"), ("/ledger/reset", "POST"), ("/failures?error_rate=1", "POST"),
                             ("/bad?errors=1", "POST"), ("/collapse?share=1", "POST"), ("/bad", "GET")):  # fmt: skip
            is_here = headers == {"Authorization": "Bearer wrong"}
            reply = send(url, path.replace("=1", "=0"), key=None, method=method, **headers)
            assert reply.status == (200 if is_here else 403), path
            if not is_here:
                assert "admin token" in reply.json["error"]["message"]
        assert send(url, "/ledger", key="right", **headers).status == 200
        assert chat(url, **{}).status == 200


def test_a_reset_empties_the_ledger() -> None:
    with running() as url:
        chat(url)
        assert send(url, "/ledger/reset", {}).json["total"]["calls"] == 0
        assert total(url)["served"] == 0


def test_an_error_is_a_5xx_that_is_not_billed_and_costs_no_tokens() -> None:
    with running(error_rate=1.0, tpm=60_000) as url:
        replies = [chat(url), message(url)]
        assert {reply.status for reply in replies} <= {500, 502, 503, 529}
        assert replies[0].json["error"]["type"] == "server_error"
        assert replies[1].json["error"]["type"] in ("api_error", "overloaded_error")
        assert replies[0].headers["x-ratelimit-remaining-tokens"] == "3000"
        counters = total(url)
        assert (counters["errors_5xx"], counters["served"], counters["billed_usd_micros"]) == (2, 0, 0)


def test_a_cut_answer_ends_in_the_middle_and_is_counted_apart() -> None:
    with running(cut_rate=1.0) as url:
        with pytest.raises(http.client.IncompleteRead) as raised:
            chat(url)
        assert 0 < len(raised.value.partial) < (raised.value.expected or 0) + len(raised.value.partial)
        counters = total(url)
        assert (counters["cut"], counters["served"], counters["in_flight"]) == (1, 0, 0)
        assert counters["cut_output_tokens"] > 0
        assert counters["cut_billed_usd_micros"] > 0
        assert counters["billed_usd_micros"] == 0


def open_call(url: str) -> socket.socket:
    """Send a call and leave the answer unread."""
    parts = urlsplit(url)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    connection = socket.create_connection((parts.hostname, parts.port), timeout=5)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


def test_a_hanging_call_is_held_until_the_client_leaves() -> None:
    with running(hang_rate=1.0) as url:
        connection = open_call(url)
        wait_until(lambda: total(url)["hung"] == 1)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()
        counters = total(url)
        assert (counters["served"], counters["billed_usd_micros"], counters["in_flight"]) == (0, 0, 0)


def test_a_client_that_leaves_before_the_answer_is_counted_as_abandoned() -> None:
    with running(latency_ms=600_000) as url:
        connection = open_call(url)
        wait_until(lambda: total(url)["in_flight"] == 1)
        connection.close()
        wait_until(lambda: total(url)["abandoned"] == 1)
        assert total(url)["served"] == 0


def test_latency_delays_the_answer_and_calls_wait_side_by_side() -> None:
    with running(latency_ms=400) as url, ThreadPoolExecutor(10) as threads:
        begin = time.monotonic()
        replies = list(threads.map(lambda i: chat(url, f"Call {i}"), range(10)))
        took_s = time.monotonic() - begin
        assert every(reply.status == 200 for reply in replies)
        assert 0.3 < took_s < 3  # 4 s one after the other


def test_every_call_ends_in_exactly_one_column() -> None:
    with running(error_rate=0.3, cut_rate=0.3, rpm=600, tpm=60_000) as url:
        for i in range(60):
            try:
                chat(url, f"Call {i}", n=0 if i % 10 == 0 else None)
            except http.client.IncompleteRead:
                continue
        counters = total(url)
        ends = [counters[name] for name in ("served", "refused_429", "errors_5xx", "cut", "bad_requests")]
        assert sum(ends) == counters["calls"] == 60
        assert every(ends)
        assert counters["in_flight"] == 0


def test_recorded_answers_are_replayed_and_the_rest_is_counted_as_unmatched(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    records = [{"q": "Why?", "m": {"text": "Because it is so."}}, {"q": "Why?", "m": {"text": "Twice"}}]
    path.write_text("\n".join(map(json.dumps, records)), "utf-8")
    with running(answers=path, answer_field="m.text", question_field="q") as url:
        reply = chat(url, "  Why?\n")
        assert reply.json["choices"][0]["message"]["content"] == "Because it is so."
        assert reply.json["usage"]["completion_tokens"] == count_tokens("Because it is so.")
        assert message(url, "Why?", max_tokens=2).json["stop_reason"] == "max_tokens"
        assert chat(url, "How?").status == 200
        assert total(url)["unmatched"] == 1
        assert send(url, "/ledger").json["answers"] == {"recorded": 1, "duplicates": 1}


def test_of_several_answer_fields_each_voice_keeps_to_one(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    records = [{"question": f"Why {n}?", "a": {"text": "first"}, "b": {"text": "second"}} for n in range(5)]
    path.write_text("\n".join(map(json.dumps, records)), "utf-8")
    with running(answers=path, answer_field="a.text,b.text") as url:

        def said_by(temperature: float) -> set[str]:
            replies = [chat(url, f"Why {n}?", temperature=temperature) for n in range(5)]
            return {reply.json["choices"][0]["message"]["content"] for reply in replies}

        said = [said_by(number / 10) for number in range(12)]
    assert {len(texts) for texts in said} == {1}
    assert set.union(*said) == {"first", "second"}
