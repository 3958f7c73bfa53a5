"""The vendors' own SDKs against the simulator: what keeps its wire honest. Their retries are off but in one test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import anthropic
import openai
import pytest

from tests.workers.simulator.running import running


@contextmanager
def openai_client(url: str, *, timeout_s: float = 5.0, key: str = "test-key") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=timeout_s) as client:
        yield client


@contextmanager
def anthropic_client(url: str, *, timeout_s: float = 5.0) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="test-key", max_retries=0, timeout=timeout_s) as client:
        yield client


def ask_openai(client: openai.OpenAI, prompt: str = "What is 2+2?") -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model="simulated-1", messages=[{"role": "user", "content": prompt}])


def ask_anthropic(client: anthropic.Anthropic, prompt: str = "What is 2+2?") -> anthropic.types.Message:
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": prompt}]
    return client.messages.create(model="simulated-1", max_tokens=50, messages=messages)


def test_the_openai_sdk_reads_an_answer() -> None:
    with running() as url, openai_client(url) as client:
        completion = ask_openai(client)
        assert completion.choices[0].message.content == "4"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.system_fingerprint == "fleet-simulator"
        assert completion.usage is not None
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
        assert [model.id for model in client.models.list()][:2] == ["simulated-1", "odd-refused-temperature"]


def test_the_anthropic_sdk_reads_an_answer() -> None:
    with running() as url, anthropic_client(url) as client:
        message = ask_anthropic(client)
        assert [block.text for block in message.content if block.type == "text"] == ["4"]
        assert (message.role, message.stop_reason) == ("assistant", "end_turn")
        assert message.usage.output_tokens == 1
        assert [model.id for model in client.models.list()][:2] == ["simulated-1", "odd-refused-temperature"]


def test_the_async_sdks_read_answers_side_by_side() -> None:
    async def ask(url: str) -> tuple[str | None, str]:
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as one,
            anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as two,
        ):
            completion, message = await asyncio.gather(
                one.chat.completions.create(model="m", messages=[{"role": "user", "content": "What is 5*5?"}]),
                two.messages.create(
                    model="m", max_tokens=9, system="Be brief.", messages=[{"role": "user", "content": "What is 6*6?"}]
                ),
            )
            block = message.content[0]
            assert block.type == "text"
            return completion.choices[0].message.content, block.text

    with running() as url:
        assert asyncio.run(ask(url)) == ("25", "36")


def test_a_429_is_the_sdks_rate_limit_error_with_both_headers() -> None:
    with running(rpm=1) as url:
        with openai_client(url) as client:
            ask_openai(client)
            with pytest.raises(openai.RateLimitError) as refused:
                ask_openai(client)
            assert 0 < float(refused.value.response.headers["retry-after"]) <= 61
            assert refused.value.code == "rate_limit_exceeded"
        with anthropic_client(url) as other, pytest.raises(anthropic.RateLimitError) as refused_too:
            ask_anthropic(other)
        assert float(refused_too.value.response.headers["retry-after-ms"]) > 0
        assert refused_too.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_the_sdks_own_retry_waits_as_told_and_succeeds() -> None:
    with (
        running(rpm=600, burst=0.001) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=1) as client,
    ):
        assert [ask_openai(client).choices[0].message.content for _ in range(3)] == ["4", "4", "4"]


def test_a_5xx_is_the_sdks_status_error() -> None:
    with running(error_rate=1.0) as url:
        with openai_client(url) as client, pytest.raises(openai.InternalServerError) as failed:
            ask_openai(client)
        assert failed.value.status_code >= 500
        with anthropic_client(url) as other, pytest.raises(anthropic.APIStatusError) as failed_too:
            ask_anthropic(other)
        assert failed_too.value.status_code in (500, 529)


def test_a_hang_is_the_sdks_timeout() -> None:
    with running(hang_rate=1.0) as url:
        with openai_client(url, timeout_s=0.2) as client, pytest.raises(openai.APITimeoutError):
            ask_openai(client)
        with anthropic_client(url, timeout_s=0.2) as other, pytest.raises(anthropic.APITimeoutError):
            ask_anthropic(other)


def test_a_cut_connection_is_the_sdks_connection_error() -> None:
    with running(cut_rate=1.0) as url:
        with openai_client(url) as client, pytest.raises(openai.APIConnectionError):
            ask_openai(client)
        with anthropic_client(url) as other, pytest.raises(anthropic.APIConnectionError):
            ask_anthropic(other)


def test_a_wrong_request_is_the_sdks_bad_request_error() -> None:
    with running() as url:
        with openai_client(url) as client, pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="m", messages=[])
        assert refused.value.param == "messages"
        with anthropic_client(url) as other, pytest.raises(anthropic.BadRequestError):
            other.messages.create(model="m", max_tokens=5, messages=[])


def test_an_unknown_path_is_the_sdks_not_found_error() -> None:
    with running() as url, openai_client(url) as client, pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="m", input="text")
