"""The limiter under the vendors' own SDKs, against the simulator over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from fleet.config import LimitSettings
from fleet.errors import ConfigurationError, DeadlineExceeded
from fleet.limiter import Caller, LimitSnapshot, ThreadedLimiter, open_limiter
from fleet.store.client import connect
from fleet.workers.limited.asks import OUTPUT_TOKENS
from fleet.workers.limited.streams import StreamWatch
from fleet.workers.limited.transport import BlockingLimitedTransport, LimitedTransport
from fleet.workers.passage import DEFAULT_HOLD_S
from tests.workers.fakes import FakeLimiter
from tests.workers.providers.raw_server import raw_server, response
from tests.workers.providers.test_streams import ANTHROPIC, OPENAI, events, streamed
from tests.workers.simulator.running import chat, running, total

LIMIT = "openai/m/default"
QUESTION: list[Any] = [{"role": "user", "content": "What is 2+2?"}]


@asynccontextmanager
async def openai_sdk(limiter: Any, url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    transport: Any = LimitedTransport(limiter, "openai", httpx2.AsyncHTTPTransport())
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, http_client=http) as client,
    ):
        yield client


@contextmanager
def anthropic_sdk(limiter: ThreadedLimiter, url: str) -> Iterator[anthropic.Anthropic]:
    transport: Any = BlockingLimitedTransport(limiter, "anthropic", httpx2.HTTPTransport())
    with (
        httpx2.Client(transport=transport) as http,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, http_client=http) as client,
    ):
        yield client


def test_the_openai_sdk_meets_no_429_and_is_settled_by_its_usage(redis_url: str) -> None:
    async def main(url: str) -> tuple[int, int, LimitSnapshot]:
        limits = {"openai/m": LimitSettings(rpm=1200, burst=0.01, counting="bucket")}
        async with open_limiter(redis_url, limits) as limiter, openai_sdk(limiter, url) as client:
            calls = [client.chat.completions.create(model="m", messages=QUESTION) for _ in range(40)]
            answers = await asyncio.gather(*calls)
            used = sum(answer.usage.total_tokens for answer in answers if answer.usage)
            return len(answers), used, await limiter.snapshot(LIMIT)

    with running(rpm=1200, burst=0.02) as url:
        answered, used, snapshot = asyncio.run(main(url))
        assert total(url)["refused_429"] == 0
    assert (answered, snapshot.granted, snapshot.granted_tokens) == (40, 40, used)


def test_the_anthropic_sdk_in_threads_is_limited_too(redis_url: str) -> None:
    limits = {"anthropic/m": LimitSettings(rpm=600, tpm=100_000)}
    with running() as url, ThreadedLimiter(redis_url, limits) as limiter, anthropic_sdk(limiter, url) as client:
        message = client.messages.create(model="m", max_tokens=50, messages=QUESTION)
        assert [block.text for block in message.content if block.type == "text"] == ["4"]
        used = message.usage.input_tokens + message.usage.output_tokens
    assert granted_tokens(redis_url, "anthropic/m/default", limits) == used


def granted_tokens(url: str, limit: str, limits: dict[str, LimitSettings]) -> int:
    async def read() -> int:
        async with open_limiter(url, limits) as limiter:
            return (await limiter.snapshot(limit)).granted_tokens

    return asyncio.run(read())


def test_a_429_holds_everybody_and_reaches_the_caller_as_the_sdks_own_error(redis_url: str) -> None:
    async def main(url: str) -> LimitSnapshot:
        async with open_limiter(redis_url, {"openai/m": LimitSettings(rpm=60_000)}) as limiter:
            chat(url, key="k", model="m")  # somebody else uses the key
            async with openai_sdk(limiter, url) as client:
                with pytest.raises(openai.RateLimitError):
                    await client.chat.completions.create(model="m", messages=QUESTION)
            return await limiter.snapshot(LIMIT)

    with running(rpm=1) as url:
        snapshot = asyncio.run(main(url))
    assert snapshot.refused == 1
    assert snapshot.held_until is not None
    assert snapshot.rpm == 1  # the header's, not the configured one


def test_a_turn_that_comes_too_late_sends_nothing(redis_url: str) -> None:
    async def main(url: str) -> None:
        async with open_limiter(redis_url, {"openai/m": LimitSettings(rpm=1)}) as limiter:
            transport: Any = LimitedTransport(limiter, "openai", httpx2.AsyncHTTPTransport(), timeout_s=0.2)
            async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
                for _attempt in range(2):
                    await client.post(
                        "/v1/chat/completions", json={"model": "m", "messages": QUESTION}, headers={"x-api-key": "k"}
                    )

    with running() as url:
        with pytest.raises(DeadlineExceeded):
            asyncio.run(main(url))
        assert total(url)["calls"] == 1


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": QUESTION}, 4 + OUTPUT_TOKENS),
        ({"messages": QUESTION, "max_completion_tokens": 50}, 4 + 50),
        ({"input": "What is 2+2?", "max_output_tokens": 9}, 4 + 9),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x" * 9000}}]}],
          "max_tokens": 1}, 20),
    ],
)  # fmt: skip
def test_a_call_asks_for_its_text_and_its_longest_answer(body: dict[str, Any], tokens: int) -> None:
    limiter = FakeLimiter()

    async def main(url: str) -> None:
        transport: Any = LimitedTransport(limiter, "openai", httpx2.AsyncHTTPTransport())
        async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
            await client.post("/v1/chat/completions", json={"model": "m", **body}, headers={"x-api-key": "k"})

    with running() as url:
        asyncio.run(main(url))
    assert limiter.granted[0].limit == LIMIT
    assert abs(limiter.granted[0].reserved_tokens - tokens) <= 15  # the estimate of a few words
    assert limiter.is_settled_once


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1beta/models/gemini:generateContent", {"json": {"contents": [{"parts": [{"text": "What is 2+2?"}]}]}}),
    ("/v1/audio/transcriptions", {"files": {"file": b"sound"}, "data": {"model": "m"}}),
    ("/v1/chat/completions", {"content": b'{"model": "m", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"}),
    ("/v1/responses", {"content": b"no JSON"}),
]


class Answering:
    """A provider that answers everything, and counts."""

    calls = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        return httpx2.Response(200, json={"usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    async def aclose(self) -> None:
        return None


async def post(limiter: Any, path: str, provider: Any, body: dict[str, Any], **options: Any) -> None:
    transport: Any = LimitedTransport(limiter, "openai", provider, **options)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
        await client.post(path, **body)


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_request_whose_model_cannot_be_read_is_sent_only_when_the_client_names_it(
    path: str, body: dict[str, Any]
) -> None:
    limiter, provider = FakeLimiter(), Answering()
    with pytest.raises(ConfigurationError, match=r"expected a JSON body with a model.*model=\.\.\."):
        asyncio.run(post(limiter, path, provider, body))
    assert provider.calls == 0
    asyncio.run(post(limiter, path, provider, body, model="m"))
    assert provider.calls == 1
    assert [grant.limit for grant in limiter.granted] == [LIMIT]
    assert limiter.is_settled_once


@pytest.mark.parametrize("is_streamed", [False, True])
def test_no_more_usage_is_believed_than_a_request_can_have(is_streamed: bool) -> None:
    absurd = {"prompt_tokens": 10**11, "completion_tokens": 10**11}
    answer = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}], "usage": absurd}
    said = streamed([*OPENAI[:5], {"choices": [], "usage": absurd}, "[DONE]"]) if is_streamed else response(answer)
    limiter = FakeLimiter()

    async def main() -> None:
        transport: Any = LimitedTransport(limiter, "openai", httpx2.AsyncHTTPTransport())
        async with raw_server(said) as server, httpx2.AsyncClient(transport=transport, base_url=server.url) as client:
            await client.post("/v1/chat/completions", json={"model": "m", "messages": QUESTION, "stream": is_streamed})

    asyncio.run(main())
    ((_, used),) = limiter.settled
    assert 10**6 < used < 2_100_000


def test_files_pass_without_a_grant() -> None:
    limiter, provider = FakeLimiter(), Answering()
    asyncio.run(post(limiter, "/v1/files", provider, {"files": {"file": b"lines"}}))
    assert (provider.calls, limiter.granted) == (1, [])


def test_money_is_counted_by_the_price_and_without_one_refused(redis_url: str) -> None:
    body: dict[str, Any] = {"json": {"model": "m", "messages": QUESTION, "max_tokens": 50}}

    async def main() -> None:
        async with open_limiter(redis_url, {"openai/m": LimitSettings(usd_per_day=0.001)}) as limiter:
            with pytest.raises(ConfigurationError, match="expected cost_usd_micros"):
                await post(limiter, "/v1/chat/completions", Answering(), body)
            price: Any = lambda model, usage: 10 * usage.output_tokens if model == "openai/m" else None  # noqa: E731
            for _call in range(2):  # 500 micro-dollars asked for, 20 spent
                await post(limiter, "/v1/chat/completions", Answering(), body, price=price, timeout_s=0.5)
            await limiter.acquire(LIMIT, tokens=1, cost_usd_micros=960, timeout_s=0.5, caller=Caller(kind="another"))
            with pytest.raises(DeadlineExceeded):
                await post(limiter, "/v1/chat/completions", Answering(), body, price=price, timeout_s=0.5)

    asyncio.run(main())


def test_what_asks_no_model_needs_no_grant(redis_url: str) -> None:
    limiter = FakeLimiter()

    async def main(url: str) -> list[str]:
        async with openai_sdk(limiter, url) as client:
            return [model.id async for model in client.models.list()]

    with running() as url:
        assert asyncio.run(main(url))[0] == "simulated-1"
    assert limiter.granted == []
    with connect(redis_url) as client:
        assert client.dbsize() == 0


def test_a_streamed_answer_reaches_the_sdk_as_it_comes() -> None:
    limiter = FakeLimiter()

    class Streaming:
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, content=self._events())

        async def _events(self) -> AsyncIterator[bytes]:
            for text in ("one", "two"):
                yield f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()
            yield b"data: [DONE]\n\n"

        async def aclose(self) -> None:
            return None

    async def main() -> list[str | None]:
        transport: Any = LimitedTransport(limiter, "openai", Streaming())
        async with (
            httpx2.AsyncClient(transport=transport) as http,
            openai.AsyncOpenAI(
                base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0, http_client=http
            ) as client,
        ):
            stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            return [chunk.choices[0].delta.content async for chunk in stream]

    assert asyncio.run(main()) == ["one", "two"]
    assert limiter.is_settled_once
    assert 4 < limiter.settled[0][1] < 30 < limiter.granted[0].reserved_tokens  # nobody told it: what came counts


@pytest.mark.parametrize(
    ("status", "body", "used", "hold_s"),
    [
        (200, {"error": {"code": 429, "message": "Try again in 9s."}}, 0, 9.0),
        (200, {"error": {"code": 429}, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}, 10, DEFAULT_HOLD_S),
        (200, {"choices": [{"error": {"code": 400, "message": "no"}}]}, 0, None),
        (429, {"error": {"message": "Please retry in 12s"}}, 0, 12.0),
        (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, 0, None),
        (403, {"error": {"message": "Rate limit exceeded"}}, 0, DEFAULT_HOLD_S),
        (400, {"error": {"message": "odd"}}, 0, None),
    ],
)
def test_a_refusal_holds_the_fleet_by_what_it_means_wherever_it_says_so(
    status: int, body: dict[str, Any], used: int, hold_s: float | None
) -> None:
    class Refusing:
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(status, json=body)

        async def aclose(self) -> None:
            return None

    limiter = FakeLimiter()
    asyncio.run(post(limiter, "/v1/chat/completions", Refusing(), {"json": {"model": "m", "messages": QUESTION}}))
    assert [tokens for _, tokens in limiter.settled] == [used]
    assert limiter.holds == ([] if hold_s is None else [(LIMIT, hold_s)])


class Pieces:
    """Streams the given events; a client of either kind may read them. The last one may never come."""

    def __init__(self, said: list[Any], *, breaks: bool = False) -> None:
        self._parts = [events([one]) for one in said]
        self._breaks = breaks

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self._all())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self._all_async())

    def _all(self) -> Iterator[bytes]:
        yield from self._parts
        if self._breaks:
            raise httpx2.ReadError("the connection is gone")

    async def _all_async(self) -> AsyncIterator[bytes]:
        for part in self._all():
            yield part

    async def aclose(self) -> None:
        return None

    def close(self) -> None:
        return None


def stream_of_openai(limiter: FakeLimiter, pieces: Pieces, *, at_most: int = 99) -> list[str | None]:
    """Stream one answer through OpenAI's SDK, and leave it after so many pieces."""

    async def main() -> list[str | None]:
        transport: Any = LimitedTransport(limiter, "openai", pieces, price=lambda model, usage: usage.total_tokens)
        came: list[str | None] = []
        async with (
            httpx2.AsyncClient(transport=transport) as http,
            openai.AsyncOpenAI(
                base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0, http_client=http
            ) as client,
            await client.chat.completions.create(model="m", messages=QUESTION, stream=True) as stream,
        ):
            async for chunk in stream:
                came += [choice.delta.content for choice in chunk.choices if choice.delta.content]
                if len(came) >= at_most:
                    break
        return came

    return asyncio.run(main())


def test_a_streamed_answer_is_settled_once_at_its_end_by_its_own_usage() -> None:
    limiter = FakeLimiter()
    assert stream_of_openai(limiter, Pieces(OPENAI)) == ["fo", "ur"]
    assert [used for _, used in limiter.settled] == [15]


def test_a_stream_that_is_left_is_settled_by_what_came() -> None:
    limiter = FakeLimiter()
    assert stream_of_openai(limiter, Pieces(OPENAI), at_most=1) == ["fo"]
    assert limiter.is_settled_once
    assert 4 < limiter.settled[0][1] < 20


def test_a_stream_that_breaks_is_settled_by_what_came() -> None:
    limiter = FakeLimiter()
    with pytest.raises((openai.APIConnectionError, httpx2.ReadError)):
        stream_of_openai(limiter, Pieces(OPENAI[:4], breaks=True))
    assert limiter.is_settled_once
    assert 4 < limiter.settled[0][1] < 20


def test_an_error_within_a_stream_holds_everybody_and_costs_nothing() -> None:
    limiter = FakeLimiter()
    with pytest.raises(openai.APIError):
        stream_of_openai(limiter, Pieces([{"error": {"message": "slow down", "code": 429}}]))
    assert [used for _, used in limiter.settled] == [0]
    assert [limit for limit, _ in limiter.holds] == [LIMIT]


@pytest.mark.parametrize(("said", "used"), [(ANTHROPIC, 15), (ANTHROPIC[:9], 14)])
def test_a_stream_of_the_anthropic_sdk_in_a_thread_is_settled_too(said: list[Any], used: int) -> None:
    limiter = FakeLimiter()

    class Blocking:
        def acquire(self, *args: Any, **call: Any) -> Any:
            return asyncio.run(limiter.acquire(*args, **call))

        settle, penalise, narrow, observe = limiter.settle, limiter.penalise, limiter.narrow, limiter.observe

    blocking: Any = Blocking()
    transport: Any = BlockingLimitedTransport(blocking, "anthropic", Pieces(said))
    with (
        httpx2.Client(transport=transport) as http,
        anthropic.Anthropic(base_url="http://127.0.0.1:1", api_key="k", max_retries=0, http_client=http) as client,
        client.messages.create(model="m", max_tokens=50, messages=QUESTION, stream=True) as stream,
    ):
        for _event in stream:
            pass
    assert limiter.is_settled_once
    assert [tokens for _, tokens in limiter.settled] == [used]


def test_every_kind_of_event_is_counted_as_its_vendor_tells_it() -> None:
    for said, used in (
        ([{"type": "response.output_text.delta", "delta": "four"},
          {"type": "response.completed", "response": {"usage": {"input_tokens": 7, "output_tokens": 2}}}], (9, 2)),
        ([{"candidates": [{"content": {"parts": [{"text": "four"}]}}],
           "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1, "thoughtsTokenCount": 5}}], (13, 6)),
        ([{"type": "response.output_text.delta", "delta": "four"}], (6, 1)),
        (["no JSON"], None),
    ):  # fmt: skip
        watch = StreamWatch()
        watch.feed(events(said))
        found = watch.used(5)
        assert (found and (found.total_tokens, found.output_tokens)) == used
