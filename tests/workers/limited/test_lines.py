"""What the bill has of calls under the vendors' own SDKs, beside the simulator's ledger: to the pico-dollar."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from fleet.config import LimitSettings, PriceSettings, Settings
from fleet.economy.bill.alone import ThreadedBill, open_bill
from fleet.economy.bill.reader import read_bill
from fleet.economy.bill.sweep import Sweeper
from fleet.economy.prices import PriceList
from fleet.limiter import Caller, ThreadedLimiter, open_limiter
from fleet.money import PICOS_PER_MICRO
from fleet.store import bill_keys, keys
from fleet.store.client import Store, connect
from fleet.usage import Usage
from fleet.workers.limited.transport import BlockingLimitedTransport, LimitedTransport
from tests.workers.simulator.running import running, total

PRICES = {"input_usd_per_mtok": 0.15, "output_usd_per_mtok": 0.6}
LIST = PriceList(Settings(prices={f"{api}/m": PriceSettings(**PRICES) for api in ("openai", "anthropic")}))
LIMITS = {"openai/m": LimitSettings(rpm=10**6), "anthropic/m": LimitSettings(rpm=10**6)}
CALLER = Caller(bot="clerk", tenant="acme", kind="letters")
SAID: Any = [{"role": "user", "content": "Write about rivers."}]


def price(model: str, usage: Usage) -> float | None:
    picos = LIST(model, usage, None)
    return None if picos is None else picos / PICOS_PER_MICRO


def sums(redis_url: str, *by: str) -> dict[tuple[str, ...], Any]:
    with connect(redis_url) as client:
        return {line.values: line.sums for line in read_bill(client, since_s=0, until_s=2**33, by=by).lines}


def test_calls_of_an_sdk_are_on_the_bill_as_they_are_in_the_providers_ledger(redis_url: str) -> None:
    """Whole answers and streams, two wires, and what is refused."""

    async def body(url: str) -> None:
        async with open_limiter(redis_url, LIMITS) as limiter, open_bill(redis_url) as bill:
            transport: Any = LimitedTransport(
                limiter, "openai", httpx2.AsyncHTTPTransport(), caller=CALLER, price=price, bill=bill, pool="letters"
            )
            async with (
                httpx2.AsyncClient(transport=transport) as http,
                openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, http_client=http) as client,
            ):
                ask: Any = client.chat.completions.create
                await asyncio.gather(*(ask(model="m", messages=SAID) for _ in range(5)))
                stream = await ask(model="m", messages=SAID, stream=True, stream_options={"include_usage": True})
                assert [chunk async for chunk in stream]
                await client.responses.create(model="m", input="Write about stones.")
                with pytest.raises(openai.BadRequestError):
                    await ask(model="m", messages="no list")

    with running(**PRICES) as url:
        asyncio.run(body(url))
        billed, served = total(url)["billed_usd_picos"], total(url)["served"]
        (whole,) = sums(redis_url, "pool", "tenant", "kind", "provider").items()
        assert whole[0] == ("letters", "acme", "letters", "openai")
        assert (whole[1].usd_picos, whole[1].unknown_calls, whole[1].calls) == (billed, 0, served + 1)
        for by in ("bot", "key"):
            assert sum(one.usd_picos for one in sums(redis_url, by).values()) == billed > 0


def test_a_stream_that_is_left_is_unknown_at_what_was_reserved_for_it(redis_url: str) -> None:
    async def body(url: str) -> None:
        async with open_limiter(redis_url, LIMITS) as limiter, open_bill(redis_url) as bill:
            transport: Any = LimitedTransport(limiter, "openai", httpx2.AsyncHTTPTransport(), price=price, bill=bill)
            asked = {"model": "m", "messages": SAID, "stream": True, "max_tokens": 1000}
            async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
                headers = {"Authorization": "Bearer k"}
                async with client.stream("POST", "/v1/chat/completions", json=asked, headers=headers) as answer:
                    await anext(aiter(answer.aiter_lines()))
            broken: Any = LimitedTransport(limiter, "openai", httpx2.AsyncHTTPTransport(), price=price, bill=bill)
            async with httpx2.AsyncClient(transport=broken, base_url="http://127.0.0.1:1") as client:
                with pytest.raises(httpx2.ConnectError):
                    await client.post("/v1/chat/completions", json=asked)

    with running(**PRICES) as url:
        asyncio.run(body(url))
    ((_, one),) = sums(redis_url).items()
    assert (one.calls, one.unknown_calls, one.usd_picos) == (2, 1, 0)  # nobody has got the second: it cost nothing
    assert one.unknown_usd_picos >= 600 * 10**6


def test_calls_of_threads_are_on_the_bill_when_it_is_closed(redis_url: str) -> None:
    with (
        running(**PRICES) as url,
        ThreadedLimiter(redis_url, LIMITS) as limiter,
        ThreadedBill(redis_url) as bill,
    ):
        transport: Any = BlockingLimitedTransport(limiter, "anthropic", httpx2.HTTPTransport(), price=price, bill=bill)
        with (
            httpx2.Client(transport=transport) as http,
            anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, http_client=http) as client,
        ):
            client.messages.create(model="m", max_tokens=50, messages=SAID)
            with client.messages.stream(model="m", max_tokens=50, messages=SAID) as stream:
                assert stream.get_final_text()
        bill.close()
        billed = total(url)["billed_usd_picos"]
    ((_, one),) = sums(redis_url).items()
    assert (one.calls, one.usd_picos, one.unknown_calls) == (2, billed, 0)


def test_a_program_that_dies_in_a_call_leaves_a_note_that_a_fleet_enters_as_unknown(redis_url: str) -> None:
    limit = "openai/m/default"

    class Dies:
        async def handle_async_request(self, request: object) -> None:
            raise Killed

        async def aclose(self) -> None: ...

    class Killed(BaseException):
        """Stands for a process that ends right there."""

    async def body() -> None:
        async with open_limiter(redis_url, LIMITS) as limiter:
            store, sweeping = Store(redis_url), Store(redis_url)
            async with open_bill(redis_url) as bill:
                bill.enter = lambda entry: None  # type: ignore[method-assign]
                transport: Any = LimitedTransport(limiter, "openai", Dies(), price=price, bill=bill)  # type: ignore[arg-type]
                request = httpx2.Request("POST", "http://x/v1/chat/completions", json={"model": "m", "messages": SAID})
                with pytest.raises(Killed):
                    await transport.handle_async_request(request)
            assert await store.command("SMEMBERS", bill_keys.limits()) == [limit.encode()]
            assert await store.command("HLEN", keys.limit_keys(limit).open) == 1
            await Sweeper(sweeping, [], frozenset).sweep(())  # its call may still be answered
            await store.command("PING")
            assert await store.command("HLEN", keys.limit_keys(limit).open) == 1
            await Sweeper(sweeping, [], frozenset, longest_call_s=-1.0).sweep(())
            await store.close()
            await sweeping.close()

    asyncio.run(body())
    ((_, one),) = sums(redis_url).items()
    assert (one.calls, one.unknown_calls) == (1, 1) and one.unknown_usd_picos > 0
