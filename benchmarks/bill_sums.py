"""A million of the cheapest calls through the bill: what they sum to, and how long that takes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

#: Calls, and what each uses at which price: 21 tokens at $0.02 a million of them.
CALLS, INPUT_TOKENS, OUTPUT_TOKENS = 1_000_000, 20, 1
MODEL, USD_PER_MTOK = "cheap/mini", 0.02
#: Calls that wait for the writer at most.
AHEAD = 10_000
#: Pools, tenants and kinds that they are of: 24 rows.
POOLS, TENANTS, KINDS = ("a", "b", "c"), ("", "one", "two", "three"), ("default", "other")
#: Seconds until what was entered must be in the sums.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Summed:
    """What came of it: calls and 10^-12 dollars that the bill has, and seconds that it took."""

    calls: int
    usd_picos: int
    seconds: float


def sum_up(calls: int = CALLS) -> Summed:
    """Enter calls as a worker does, and read the bill. The Redis must be empty."""
    from fleet import config
    from fleet.store.private.embedded import state_url

    began = time.monotonic()
    asyncio.run(_enter(state_url(config.current()), calls))
    found = _read()
    return Summed(found[0], found[1], time.monotonic() - began)


async def _enter(url: str, calls: int) -> None:
    from fleet.config import PriceSettings, Settings
    from fleet.economy.bill.writer import Writer
    from fleet.economy.prices import PriceList
    from fleet.entries import Entry
    from fleet.store.client import Store
    from fleet.usage import Usage

    same = PriceSettings(input_usd_per_mtok=USD_PER_MTOK, output_usd_per_mtok=USD_PER_MTOK)
    price = PriceList(Settings(prices={MODEL: same}))
    usage = Usage(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS)
    store = Store(url)
    writer = Writer(store, process="benchmark")
    first = Entry("", "t", "", "b", "", "", "", f"{MODEL}/default", "", usage, None, "settled", time.time())
    try:
        for number in range(calls):
            picos = price(MODEL, usage, None)
            pool, tenant, kind = POOLS[number % 3], TENANTS[number % 4], KINDS[number % 2]
            writer.enter(first._replace(id=str(number), pool=pool, tenant=tenant, kind=kind, usd_picos=picos))
            if (number + 1) % AHEAD == 0 or number + 1 == calls:
                await _entered(number + 1)
    finally:
        await writer.close()
        await store.close()


async def _entered(calls: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while _read()[0] < calls:
        if time.monotonic() > end:
            raise TimeoutError(f"expected {calls:,} calls in the bill within {PATIENCE_S:.0f} s, got {_read()[0]:,}")
        await asyncio.sleep(0.02)


def _read() -> tuple[int, int]:
    """Return calls and picos of the bill."""
    from fleet import config
    from fleet.economy.bill.reader import read_bill
    from fleet.store.client import connect
    from fleet.store.private.embedded import state_url

    with connect(state_url(config.current()), timeout_s=30) as client:
        total = read_bill(client, since_s=0, until_s=time.time() + 1).total
    return total.calls, total.all_usd_picos
