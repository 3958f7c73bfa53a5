"""The running fleets of `benchmarks.bill`: a simulator whose ledger is the truth, and real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from benchmarks.bench import private_home, until, worker

ROOT = Path(__file__).parents[1]
#: Prices of every model: each class costs something else, per million tokens.
PRICES = {
    "input_usd_per_mtok": 1.25, "output_usd_per_mtok": 10.0, "cached_usd_per_mtok": 0.125,
    "cache_write_usd_per_mtok": 1.5625, "cache_write_1h_usd_per_mtok": 2.5,
}  # fmt: skip
#: What a tier costs against the standard one.
FACTORS = {"flex": 0.5, "priority": 2.0}
#: Seconds in which everything that has been counted must be in the bill.
IN_THE_BILL_S = 30.0


class Provider:
    """A running simulator without limits in reach."""

    def __init__(self, *options: str) -> None:
        prices = [part for name, price in PRICES.items() for part in (f"--{name.replace('_', '-')}", str(price))]
        limits = ["--rpm", "100000000", "--tpm", "100000000000"]
        command = [sys.executable, "-m", "fleet.workers.simulator", *prices, *limits, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()

    def ledger(self) -> dict[str, Any]:
        """Return the ledger."""
        with urllib.request.urlopen(f"{self.url}/ledger", timeout=30) as reply:
            return dict(json.load(reply))

    def reset(self) -> None:
        """Begin a new ledger."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/ledger/reset", method="POST"), timeout=30).close()

    def wait_quiet(self) -> None:
        """Wait until no call is in flight."""
        until(lambda: self.ledger()["total"]["in_flight"] == 0, "calls in flight", every_s=0.05)


class Fleet:
    """A running fleet: its Redis, its home and its simulator."""

    def __init__(self, home: Path, provider: Provider) -> None:
        from fleet import config
        from fleet.store.client import connect
        from fleet.store.private.embedded import state_url

        self.home, self.provider = home, provider
        self.redis: redis.Redis = connect(state_url(config.current()), timeout_s=30)

    def close(self) -> None:
        self.redis.close()

    def submit(self, tasks: Iterable[Mapping[str, Any]]) -> list[str]:
        """Queue tasks and return their ids."""
        from fleet.engine.messages.producer import submit_many
        from fleet.models import BotTask

        return list(submit_many([BotTask(**task) for task in tasks]))

    @property
    def done(self) -> int:
        """Tasks with a result."""
        from fleet.signals.catalogue import COMPLETIONS
        from fleet.signals.counted.sums import read_totals

        return read_totals(self.redis, ()).get(COMPLETIONS.name.encode(), 0)

    def results(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """Return the results that are there."""
        from fleet.store import keys

        rows: Any = self.redis.mget([keys.result(task_id) for task_id in ids])
        return [json.loads(row)["result"] for row in rows if row]

    def bill(self, *by: str) -> dict[tuple[str, ...], Any]:
        """Return the sums of the bill, split."""
        from fleet.economy.bill.reader import read_bill

        found = read_bill(self.redis, since_s=0, until_s=time.time() + 1, by=by)
        return {line.values: line.sums for line in found.lines}

    def settled_bill(self, calls: int, *by: str) -> dict[tuple[str, ...], Any]:
        """Return it when it has so many calls at least; what it has when it does not get them."""
        end = time.monotonic() + IN_THE_BILL_S
        while sum(sums.calls for sums in self.bill().values()) < calls and time.monotonic() < end:
            time.sleep(0.05)
        return self.bill(*by)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `fleet` command."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "fleet.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.home, timeout=300)


def prices_of(*models: str) -> str:
    """Return the tables of [prices] that charge what the simulator does."""
    tables = []
    for model in models:
        tables.append(f'[prices."{model}"]')
        tables += [f"{name} = {price}" for name, price in PRICES.items()]
        for tier, factor in FACTORS.items():
            tables.append(f'[prices."{model}".tiers.{tier}]')
            tables += [f"{name} = {price * factor}" for name, price in PRICES.items()]
    return "\n".join(tables) + "\n"


@contextmanager
def running(settings: str, provider: Provider, *, workers: int = 2) -> Iterator[Fleet]:
    """Run workers until the block ends.

    Args:
        settings: fleet.toml; `{url}` stands for the provider's address.
        provider: Who answers.
        workers: Processes.
    """
    from fleet import config

    with private_home() as home, ExitStack() as stack:
        (home / "fleet.toml").write_text(settings.replace("{url}", provider.url))
        os.environ["FLEET_CONFIG"] = str(home / "fleet.toml")
        config.current.cache_clear()
        fleet = Fleet(home, provider)
        stack.callback(fleet.close)
        for number in range(workers):
            stack.enter_context(worker("fleet", "-n", f"w{number}@bill", log=home / "worker.log"))
        yield fleet
