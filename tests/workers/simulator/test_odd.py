"""Odd behaviour on demand: by model, by header, by switch, on both wires."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from click.testing import CliRunner

from fleet.cli.stack.simulator import simulator
from fleet.workers.simulator.odd.catalogue import ODD
from fleet.workers.simulator.pages import AGENTS
from tests.every import every
from tests.workers.simulator.running import Reply, chat, running, send, total


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as address:
        yield address


def odd(url: str, name: str, prompt: str = "What is 2+2?", **fields: Any) -> Reply:
    """Send one chat completion to an odd model."""
    return chat(url, prompt, model=f"odd-{name}", **fields)


def message(url: str, name: str, **fields: Any) -> Reply:
    """Send one message to an odd model, in Anthropic's format."""
    body = {
        "model": f"odd-{name}",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "What is 2+2?"}],
        **fields,
    }
    return send(url, "/v1/messages", body, **{"anthropic-version": "2023-06-01"})


@pytest.mark.parametrize("name", [name for name in ODD if name != "web-page-503"])
def test_every_behaviour_answers_on_both_wires(url: str, name: str) -> None:
    fields: dict[str, Any] = {"temperature": 0.3, "max_tokens": 300}
    for reply in (odd(url, name, **fields), message(url, name, **fields)):
        assert reply.headers["x-fleet-simulator"] == "true"
        assert reply.status in (200, 400, 401, 402, 404, 422, 429, 498, 503, 529)


def test_every_behaviour_is_listed_by_help_by_the_switch_and_among_the_models(url: str) -> None:
    told = CliRunner().invoke(simulator, ["--help"]).output
    known = send(url, "/odd").json["known"]
    models = [model["id"] for model in send(url, "/v1/models").json["data"]]
    assert models == ["simulated-1", *(f"odd-{name}" for name in ODD), *AGENTS]
    assert [name for name in ODD if f"  {name} " not in told or name not in known] == []


@pytest.mark.parametrize(
    ("name", "with_it", "without_it", "told"),
    [
        ("refused-temperature", {"temperature": 0.3}, {"temperature": 1}, "Only the default (1) value is supported"),
        ("refused-temperature-behind-a-proxy", {"temperature": 0.3}, {}, "'temperature' is not supported"),
        ("refused-sampling", {"top_p": 0.5}, {}, "don't support the parameters top_p"),
        ("refused-max-tokens", {"max_tokens": 9}, {"max_completion_tokens": 9}, "Use 'max_completion_tokens' instead"),
        ("refused-response-format", {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
         {"response_format": {"type": "text"}}, "This response_format type is unavailable now"),
        ("refused-strict", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True,
          "schema": {"type": "object", "properties": {}, "additionalProperties": False}}}},
         {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": False}}}, "strict mode"),
        ("refused-tools", {"tools": [{"type": "function", "function": {"name": "a"}}]}, {}, "does not support tools"),
        ("refused-stream-options", {"stream": True, "stream_options": {"include_usage": True}}, {}, "stream_options"),
        ("refused-unknown-fields", {"top_k": 5}, {"temperature": 1}, "Extra inputs are not permitted"),
        ("refused-system-role", {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
         {}, "System role not supported"),
        ("top-level-detail", {"max_tokens": 300}, {"max_tokens": 256}, "must be less than or equal to 256"),
        ("context-too-long", {"max_tokens": 2048}, {"max_tokens": 1000}, "maximum context length is 2048 tokens"),
        ("context-too-long-top-level", {"max_tokens": 2048}, {}, "window of 2048 tokens is exceeded"),
    ],
)  # fmt: skip
def test_what_a_model_refuses_is_refused_and_the_same_call_without_it_is_answered(
    url: str, name: str, with_it: dict[str, Any], without_it: dict[str, Any], told: str
) -> None:
    refused = odd(url, name, **with_it)
    assert refused.status in (400, 422)
    assert told in json.dumps(refused.json).replace("\\", "")
    assert odd(url, name, **without_it).status == 200


def test_money_that_is_gone_comes_in_all_its_shapes(url: str) -> None:
    shapes = {name: odd(url, name) for name in ("credit-too-low", "out-of-quota", "payment-required", "spend-limit-429",
                                                 "usage-limit-until-a-date")}  # fmt: skip
    assert [reply.status for reply in shapes.values()] == [400, 429, 402, 429, 400]
    assert shapes["out-of-quota"].json["error"]["code"] == "insufficient_quota"
    assert shapes["spend-limit-429"].headers["x-should-retry"] == "false"
    assert "You will regain access on 20" in shapes["usage-limit-until-a-date"].json["error"]["message"]
    told = message(url, "spend-limit-429").json
    assert (told["type"], told["error"]["details"]) == ("error", {"error_code": "enforced_spend_limit_reached"})


def test_errors_hide_in_a_200_in_a_choice_in_a_list_and_in_a_page() -> None:
    with running() as url:
        hidden = odd(url, "429-in-a-200")
        assert (hidden.status, hidden.json["error"]["code"], hidden.json["choices"]) == (200, 429, None)
        choice = odd(url, "error-in-the-choice", "A story").json["choices"][0]
        assert (choice["finish_reason"], choice["error"]["code"]) == ("error", 502)
        assert odd(url, "unknown-finish-reason").json["choices"][0]["finish_reason"] == "network_error"
        assert odd(url, "list-of-errors").json[0]["error"]["status"] == "UNAVAILABLE"  # type: ignore[index]
        assert odd(url, "delay-in-the-body").json["error"]["details"][0]["retryDelay"] == "10s"
        counters = total(url)
        ends = ("served", "refused_429", "errors_5xx", "bad_requests")
        assert [counters[name] for name in ends] == [2, 2, 1, 0]
        assert counters["in_flight"] == 0


def test_answers_come_in_wrapping_in_thoughts_or_not_at_all(url: str) -> None:
    def said(name: str) -> str:
        text: str = odd(url, name).json["choices"][0]["message"]["content"]
        return text

    assert said("thinking-in-the-text").endswith("</think>\n\n4")
    assert "```json\n4\n```" in said("fenced")
    assert said("looping").count("harbour") > 20
    spent = odd(url, "allowance-spent-on-thinking").json
    assert (spent["choices"][0]["message"]["content"], spent["choices"][0]["finish_reason"]) == ("", "length")
    assert spent["usage"]["completion_tokens_details"]["reasoning_tokens"] == spent["usage"]["completion_tokens"]
    blocks = message(url, "allowance-spent-on-thinking").json
    assert ([block["type"] for block in blocks["content"]], blocks["stop_reason"]) == (["thinking"], "max_tokens")
    assert odd(url, "filtered").json["choices"][0]["finish_reason"] == "content_filter"
    assert message(url, "filtered").json["stop_reason"] == "refusal"
    assert odd(url, "refusal-apart").json["choices"][0]["message"]["refusal"]
    assert odd(url, "parts-for-text").json["choices"][0]["message"]["content"] == [{"type": "text", "text": "4"}]
    assert "usage" not in odd(url, "without-usage").json
    beside = odd(url, "thinking-beside-output").json["usage"]
    assert beside["total_tokens"] - beside["prompt_tokens"] == beside["completion_tokens"] + 300


def test_limits_are_told_in_the_wanted_family(url: str) -> None:
    import time

    reset = int(odd(url, "resets-as-epoch").headers["x-ratelimit-reset-requests"])
    assert abs(reset - time.time()) < 120
    assert "x-ratelimit-api_key-limit-requests" in odd(url, "limits-of-a-proxy-key").headers
    assert int(odd(url, "limits-of-openrouter").headers["X-RateLimit-Reset"]) > 10**12
    assert odd(url, "limits-by-ietf").headers["RateLimit"].startswith('"requests";r=')
    assert not [name for name in odd(url, "without-limits").headers if "ratelimit" in name.lower()]


def test_a_limit_of_requests_a_day_binds_and_is_told_instead_of_the_minutes() -> None:
    with running(rpm=10**6, rpd=3, headers="openai") as url:
        replies = [chat(url) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0", "0"]
        assert replies[0].headers["x-ratelimit-limit-requests"] == "3"
        assert replies[0].headers["x-ratelimit-reset-requests"].startswith(("7h59m", "8h0m"))
        assert float(replies[3].headers["retry-after"]) > 3600
        assert not [name for name in replies[0].headers if name.startswith("anthropic")]


def test_calls_at_the_same_time_are_limited_and_the_refusal_says_of_what_kind() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with running(in_flight=2, latency_ms=500) as url, ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda n: chat(url, f"Call {n}"), range(6)))
        refused = [reply for reply in replies if reply.status == 429]
        assert refused
        assert every(reply.headers["rate_limit_type"] == "max_parallel_requests" for reply in refused)
        assert total(url)["refused_429"] == len(refused)
        assert chat(url).status == 200


def test_a_header_asks_for_the_same_and_a_switch_for_a_share_of_all_calls() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    with running() as url:
        assert send(url, "/v1/chat/completions", body, **{"x-fleet-odd": "overloaded-529"}).status == 529
        assert send(url, "/odd?name=capacity-498&share=0.5", method="POST").json["share"] == 0.5
        statuses = [chat(url, f"Call {n}").status for n in range(60)]
        assert 10 < statuses.count(498) < 50
        assert set(statuses) == {200, 498}
        assert send(url, "/odd?name=", method="POST").json["name"] == ""
        assert {chat(url, f"Call {n}").status for n in range(20)} == {200}
        wrong = send(url, "/odd?name=overloaded", method="POST")
        assert (wrong.status, "overloaded-529" in wrong.json["error"]["message"]) == (400, True)
        assert send(url, "/odd?share=2", method="POST").status == 400


def test_the_sdks_meet_an_error_in_a_stream(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        question: Any = [{"role": "user", "content": "A story"}]
        stream = client.chat.completions.create(model="odd-error-in-the-stream", messages=question, stream=True)
        with pytest.raises(openai.APIError, match="Overloaded"):
            list(stream)
    with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as other:
        turns: Any = [{"role": "user", "content": "A story"}]
        events = other.messages.create(model="odd-error-in-the-stream", max_tokens=99, messages=turns, stream=True)
        with pytest.raises(anthropic.APIStatusError):
            list(events)
