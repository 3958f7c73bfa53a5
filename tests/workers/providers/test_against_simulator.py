"""Both adapters against the simulator: answers, and each failure as its error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleet.errors import BadRequest, KeyRejected, ProviderUnavailable, RateLimited
from fleet.workers.calls import Call, Completion
from fleet.workers.providers.base import HttpProvider
from tests.waiting import wait_until
from tests.workers.providers.raw_server import call, provider
from tests.workers.simulator.running import running, total

pytestmark = pytest.mark.parametrize("kind", ["openai", "anthropic", "simulator"])


def use(url: str, kind: str, work: Callable[[HttpProvider], Awaitable[Any]]) -> Any:
    """Run `work` with an adapter."""

    async def main() -> Any:
        async with provider(url, kind) as adapter:
            return await work(adapter)

    return asyncio.run(main())


def complete(url: str, kind: str, request: Call | None = None, *, key: str = "test-key") -> Completion:
    completion = use(url, kind, lambda adapter: adapter.complete(request or call(), api_key=key))
    assert isinstance(completion, Completion)
    return completion


def test_an_answer_arrives_with_what_was_billed(kind: str) -> None:
    with running() as url:
        completion = complete(url, kind)
        assert (completion.text, completion.finish_reason) == ("4", "stop")
        assert completion.headers["X-Fleet-Simulator"] == "true"
        counters = total(url)
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (
            counters["input_tokens"],
            counters["output_tokens"],
        )
        assert counters["calls"] == counters["served"] == 1


def test_an_answer_that_was_cut_short_says_so(kind: str) -> None:
    with running() as url:
        assert complete(url, kind, call("Tell me a story", max_output_tokens=3)).finish_reason == "length"


def test_a_429_is_a_rate_limit_with_the_seconds_to_wait(kind: str) -> None:
    async def twice(adapter: HttpProvider) -> float | None:
        await adapter.complete(call(), api_key="k")
        with pytest.raises(RateLimited) as refused:
            await adapter.complete(call(), api_key="k")
        assert "429 (rate_limit" in str(refused.value)
        return refused.value.retry_after_s

    with running(rpm=6) as url:
        retry_after_s = use(url, kind, twice)
        assert 9 < retry_after_s <= 10.01
        assert total(url)["calls"] == 2


def test_a_5xx_is_an_unavailable_provider_after_one_request(kind: str) -> None:
    with running(error_rate=1.0) as url:
        with pytest.raises(ProviderUnavailable, match=r"127\.0\.0\.1 answered 5\d\d"):
            complete(url, kind)
        assert total(url)["calls"] == 1


def test_a_hang_is_an_unavailable_provider_and_the_connection_is_closed(kind: str) -> None:
    with running(hang_rate=1.0) as url:
        with pytest.raises(ProviderUnavailable, match=r"expected an answer within 0\.2 s"):
            complete(url, kind, call(timeout_s=0.2))
        assert total(url)["calls"] == total(url)["hung"] == 1


def test_a_cut_connection_is_an_unavailable_provider_after_one_request(kind: str) -> None:
    with running(cut_rate=1.0) as url:
        with pytest.raises(ProviderUnavailable, match="connection failed") as raised:
            complete(url, kind)
        assert raised.value.sent
        assert total(url)["calls"] == 1


def test_a_call_without_a_key_is_a_rejected_key(kind: str) -> None:
    with running() as url, pytest.raises(KeyRejected, match="check this key"):
        complete(url, kind, key="")


def test_a_request_that_the_provider_refuses_is_a_bad_request(kind: str) -> None:
    with running() as url, pytest.raises(BadRequest, match=r"400 \(invalid_request_error\)"):
        complete(url, kind, call(model="m" * 300))


def test_a_server_that_is_not_there_is_an_unavailable_provider(kind: str) -> None:
    with running() as url:
        pass
    with pytest.raises(ProviderUnavailable, match="connection failed") as raised:
        complete(url, kind)
    assert not raised.value.sent


def test_cancelling_closes_the_connection(kind: str) -> None:
    async def cancelled(adapter: HttpProvider) -> None:
        task = asyncio.create_task(adapter.complete(call(), api_key="k"))
        await asyncio.to_thread(wait_until, lambda: total(url)["in_flight"] == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: total(url)["abandoned"] == 1)

    with running(latency_ms=600_000) as url:
        use(url, kind, cancelled)


def test_calls_run_side_by_side_on_one_adapter_and_connections_are_kept(kind: str) -> None:
    async def many(adapter: HttpProvider) -> list[str]:
        asked = [adapter.complete(call(f"What is {i}+1?"), api_key="k") for i in range(60)]
        return [completion.text for completion in await asyncio.gather(*asked)]

    with running() as url:
        assert use(url, kind, many) == [str(i + 1) for i in range(60)]


def test_a_closed_adapter_opens_again_for_a_later_call(kind: str) -> None:
    async def close_between(adapter: HttpProvider) -> str:
        await adapter.close()
        await adapter.complete(call(), api_key="k")
        await adapter.close()
        return (await adapter.complete(call(), api_key="k")).text

    with running() as url:
        assert use(url, kind, close_between) == "4"
