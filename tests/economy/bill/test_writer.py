"""Entries go into the bill once, exactly, whatever dies between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache

import pytest

from fleet.economy.bill.reader import read_bill
from fleet.economy.bill.rows import MOST_ROWS, Sums, arguments_of, spelt, summed
from fleet.economy.bill.scripts import BILL
from fleet.economy.bill.unknown import read_unknown
from fleet.economy.bill.writer import Batch, ScriptCall, Writer
from fleet.economy.exports.checking import resolve
from fleet.errors import InvalidTask, StoreUnavailable
from fleet.money import PICOS
from fleet.store import bill_keys, keys
from fleet.store.client import Store, connect, run_script
from fleet.usage import Usage
from tests.economy.bill.calls import AT_S, LIMIT, entry, in_store, total
from tests.redis_server import RedisServer


@lru_cache
def rows_of(calls: int, picos: int) -> tuple[dict[str, str], list[int | str | bytes]]:
    """Return the rows of equal calls."""
    return arguments_of(summed(entry(usd_picos=picos) for _ in range(calls)))


def batch_call(number: int, calls: int, picos: int) -> ScriptCall:
    """Return a batch of equal calls, as a writer sends it."""
    hashes, rows = rows_of(calls, picos)
    call = BILL.call(
        writer=bill_keys.writer("w"), unknown=bill_keys.unknown(), number=number, ids=",,", lost="", rows=rows, **hashes
    )
    return BILL, *call


def test_a_million_calls_of_21_tokens_sum_to_42_cents(redis_url: str) -> None:
    with connect(redis_url) as client:
        for number in range(1, 101):
            run_script(client, *batch_call(number, 10_000, 420_000))
    found = total(redis_url)
    assert found.usd_picos == PICOS * 42 // 100 and found.calls == 1_000_000
    assert found.usage == Usage(input_tokens=20_000_000, output_tokens=1_000_000)


def test_amounts_are_exact_beyond_what_a_float_of_dollars_holds(redis_url: str) -> None:
    amounts = [1, 999_999, 10**12 * 7_000_000 + 1, 123_456_789_123_456_789]
    with connect(redis_url) as client:
        for number, picos in enumerate(amounts, start=1):
            run_script(client, *batch_call(number, 3, picos))
    assert total(redis_url).usd_picos == 3 * sum(amounts)


def test_a_batch_that_is_sent_twice_counts_once(redis_url: str) -> None:
    with connect(redis_url) as client:
        for number in (1, 1, 2, 1, 2):
            assert run_script(client, *batch_call(number, 5, 420_000)) == []
    assert total(redis_url).calls == 10


def test_a_writer_sums_what_it_is_given_and_takes_the_notes_away(redis_url: str) -> None:
    async def body(store: Store) -> tuple[int, list[bytes]]:
        writer = Writer(store)
        name = keys.limit_keys(LIMIT).open
        for number in range(450):
            await store.command("HSET", name, f"t-{number}", "a note")
            writer.enter(entry(number, bot=f"research-{number % 7:03}", at_s=AT_S + number * 10))
        await store.command("HSET", name, "void", "a note", "of another", "a note")
        writer.void(LIMIT, "void")
        writes = store.writes
        await writer.close()
        return store.writes - writes, await store.command("HKEYS", name)

    writes, noted = in_store(redis_url, body)
    assert noted == [b"of another"] and writes < 20
    with connect(redis_url) as client:
        bill = read_bill(client, since_s=AT_S, until_s=AT_S + 4500, by=["bot"])
    assert (bill.total.calls, bill.total.usd_picos, len(bill.lines)) == (450, 450 * 420_000, 7)


def test_a_writer_sends_a_batch_again_until_redis_answers(redis_url: str) -> None:
    class Deaf(Store):
        """Loses the first two replies to a script that was run."""

        lost = 0

        async def run(self, *call: object) -> object:  # type: ignore[override]
            reply = await super().run(*call)  # type: ignore[arg-type]
            if self.lost < 2:
                self.lost += 1
                raise StoreUnavailable("the reply is lost")
            return reply

    async def body() -> None:
        store, heard = Deaf(redis_url), list[Batch]()

        def book(batch: Batch) -> ScriptCall | None:
            heard.append(batch)
            return None

        writer = Writer(store, books=[book])
        try:
            for number in range(3):
                writer.enter(entry(number))
            await writer.close()
        finally:
            await store.close()
        assert [batch.number for batch in heard] == [1] and len(heard[0].entries) == 3

    asyncio.run(body())
    assert total(redis_url).calls == 3


def test_a_redis_that_stands_for_a_while_loses_and_doubles_nothing(own_redis: RedisServer) -> None:
    async def body() -> None:
        store = Store(own_redis.url, timeout_s=0.2)
        writer = Writer(store)
        try:
            writer.enter(entry(0))
            await wait_for(lambda: store.command("EXISTS", bill_keys.ever()))
            own_redis.freeze()
            for number in range(1, 250):
                writer.enter(entry(number))
                await asyncio.sleep(0.002)  # so that batches go while it stands
            own_redis.thaw()
            await writer.close()
        finally:
            own_redis.thaw()
            await store.close()

    asyncio.run(body())
    assert total(own_redis.url).calls == 250


async def wait_for(is_so: Callable[[], Awaitable[object]]) -> None:
    """Wait until Redis says so."""
    async with asyncio.timeout(20):
        while not await is_so():
            await asyncio.sleep(0.02)


def test_an_unknown_call_is_listed_until_it_is_resolved_once(redis_url: str) -> None:
    async def body(store: Store) -> None:
        writer = Writer(store)
        writer.enter(entry(1, state="unknown", usd_picos=5_000_000, tenant="acme"))
        writer.enter(entry(2, state="unknown", usd_picos=None))
        await writer.close()

    in_store(redis_url, body)
    lost = total(redis_url)
    assert (lost.calls, lost.unknown_calls, lost.unpriced_calls) == (2, 2, 1)
    assert (lost.usd_picos, lost.unknown_usd_picos) == (0, 5_000_000)
    with connect(redis_url) as client:
        first = next(one for one in read_unknown(client) if one.entry.id == "t-1")
        true = first.entry._replace(state="settled", usd_picos=7_000_001, tier="flex", at_s=AT_S + 90_000)
        assert resolve(client, first, true) and not resolve(client, first, true)
        assert [one.entry.id for one in read_unknown(client)] == ["t-2"]
    assert total(redis_url) == replace(
        lost, unknown_calls=1, usd_picos=7_000_001, unknown_usd_picos=0, usage=lost.usage
    )


def test_rows_beyond_the_most_are_summed_in_one(redis_url: str) -> None:
    with connect(redis_url) as client:
        day = bill_keys.day(int(AT_S // 86_400))
        client.hset(day, mapping={str(number): b"" for number in range(MOST_ROWS - 1)})
        for number in range(3):
            hashes, rows = arguments_of(summed([entry(kind=f"kind-{number}"), entry(kind=f"more-{number}")]))
            call = BILL.call(
                writer=bill_keys.writer(str(number)), unknown=bill_keys.unknown(), number=1, ids=",,", lost="",
                rows=rows, **hashes,
            )  # fmt: skip
            run_script(client, BILL, *call)
        assert client.hlen(day) == MOST_ROWS + 1  # and the row of what is beyond
        assert client.hexists(day, "other") and client.hexists(day, spelt("research", "", "kind-0", LIMIT, ""))
        assert client.ttl(day) > 399 * 86_400


@pytest.mark.parametrize("by", [["bot", "tenant"], ["bot", "day", "hour"], ["colour"]])
def test_what_rows_do_not_tell_apart_is_refused_in_words(redis_url: str, by: list[str]) -> None:
    with connect(redis_url) as client, pytest.raises(InvalidTask, match="expected"):
        read_bill(client, since_s=AT_S, until_s=AT_S + 1, by=by)


def test_an_empty_bill_is_empty(redis_url: str) -> None:
    assert total(redis_url) == Sums()
