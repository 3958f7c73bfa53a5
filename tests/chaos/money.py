"""The bill after an attack, beside the simulators' ledgers: what is settled, unknown, and brought to 0.

What was settled never exceeds what was billed. The rest is at most what was reserved for calls of which nobody knows
the cost, and `fleet bill check` brings it to 0.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis
from click.testing import CliRunner

from fleet.cli.main import main
from fleet.economy.bill.reader import read_bill
from fleet.economy.bill.rows import Sums
from fleet.economy.bill.sweep import LONGEST_CALL_S, Sweeper
from fleet.store.client import Store
from tests.waiting import wait_until

#: Seconds until no call is in flight at a simulator whose clients have all ended.
QUIET_S = 60.0


def unpaid(client: redis.Redis, url: str, ledgers: Mapping[str, str], folder: Path) -> tuple[int, list[str]]:
    """Return how many calls were unknown after an attack, and what does not hold, a phrase each.

    Args:
        client: Of the Redis under attack. All workers have ended.
        url: Its address.
        ledgers: Name of a provider -> root of its simulator.
        folder: Where the ledgers may be written.
    """
    asyncio.run(_sweep(url))
    told = {name: _ledger(address) for name, address in ledgers.items()}
    before = _bill(client)
    problems = [problem for name, ledger in told.items() for problem in _compared(name, ledger, before)]
    for name, ledger in told.items():
        path = folder / f"ledger-{name}.json"
        path.write_text(json.dumps(ledger))
        problems += _checked(name, path)
    after = _bill(client)
    if left := sum(sums.unknown_calls for sums in after.values()):
        problems.append(f"`bill check` left {left} unknown calls")
    for name, ledger in told.items():
        if difference := _billed(ledger) - after.get(name, Sums()).usd_picos:
            problems.append(f"the bill of {name} differs by {difference} pico-dollars after `bill check`")
    return sum(sums.unknown_calls for sums in before.values()), problems


def _compared(name: str, ledger: Mapping[str, Any], bill: Mapping[str, Sums]) -> Iterator[str]:
    sums = bill.get(name, Sums())
    rest = _billed(ledger) - sums.usd_picos
    if not 0 <= rest <= sums.unknown_usd_picos:
        unknown = f"{sums.unknown_usd_picos} of {sums.unknown_calls} unknown calls"
        yield f"the bill of {name} lacks {rest} pico-dollars of {_billed(ledger)}: expected 0 to {unknown}"


def _checked(name: str, path: Path) -> Iterator[str]:
    result = CliRunner().invoke(main, ["bill", "check", str(path), "--provider", name, "--json"], prog_name="fleet")
    if result.exit_code:
        yield f"`bill check` ended with code {result.exit_code}: {(result.stderr or str(result.exception))[-300:]}"


def _bill(client: redis.Redis) -> dict[str, Sums]:
    found = read_bill(client, since_s=0, until_s=time.time() + 1, by=["provider"])
    return {line.values[0]: line.sums for line in found.lines}


def _billed(ledger: Mapping[str, Any]) -> int:
    return int(ledger["total"]["billed_usd_picos"] + ledger["total"]["cut_billed_usd_picos"])


def _ledger(address: str) -> dict[str, Any]:
    """Return a ledger in which no call is in flight any more."""

    def read() -> dict[str, Any]:
        with urllib.request.urlopen(f"{address}/ledger", timeout=10) as reply:
            return dict(json.load(reply))

    wait_until(lambda: read()["total"]["in_flight"] == 0, QUIET_S, "no call is in flight at a simulator")
    return read()


async def _sweep(url: str) -> None:
    """Enter what the last deaths have left behind, as a worker would that starts much later."""
    store = Store(url)
    try:
        await Sweeper(store, (), lambda: (), clock=lambda: time.time() + LONGEST_CALL_S).sweep(())
    finally:
        await store.close()
