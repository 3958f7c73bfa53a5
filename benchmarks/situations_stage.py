"""The stage of `benchmarks.situations`: a fleet that works on simulated answers, and what can be done to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.bench import until
from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.overview import open_overview
from fleet.signals.view import FleetView
from fleet.store.client import connect
from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.server import Simulator
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running
from tests.redis_server import RedisServer
from tests.worker_process import WorkerProcess

#: Tasks that each pool gets a second.
A_SECOND = {"research": 4, "writing": 2, "review": 1}
#: Model and provider of each pool: 100 bots. One model refuses every prompt.
POOLS = {
    "research": (40, "alpha", "m-1"), "writing": (30, "beta", "m-2"), "review": (20, "gamma", "m-3"),
    "drafts": (10, "beta", "odd-moderated"),
}  # fmt: skip
#: Tasks of each pool after which the first situation is played.
USUAL_TASKS = 90
#: Median time of an answer (ms).
LATENCY_MS = 400.0
PROVIDERS = ("alpha", "beta", "gamma")
#: Loaded by each worker at its start: SIGUSR2 blocks its main thread, a variable sets its clock off.
PRANKS = """
import os, signal, time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(45))
ahead, real = float(os.environ.get("CLOCK_AHEAD_S", "0")), time.time
if ahead: time.time = lambda: real() + ahead
"""


class StagedProvider:
    """A simulated provider in a thread, whose options can be changed while it runs."""

    def __init__(self, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.simulator = Simulator(SimulatorOptions(rpm=10**9, tpm=10**12, latency_ms=LATENCY_MS, **options))
        self.url = asyncio.run_coroutine_threadsafe(self.simulator.start(), self._loop).result(10)

    def change(self, **options: Any) -> None:
        self.simulator.options = replace(self.simulator.options, **options)

    @property
    def unanswered(self) -> int:
        """Calls that were not answered well: refused, failed, hung, left."""
        found = self.simulator.ledger.report()
        total = found["total"]
        return int(total["calls"] - total["served"] - total["in_flight"] + found["unauthorized_401"])

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.simulator.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Stage:
    """Redis, providers, workers, Flower, a browser, and somebody who submits tasks all the time.

    Args:
        folder: Where it all works.
        stack: Ends it.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        (folder / "sitecustomize.py").write_text(PRANKS)
        self.redis = RedisServer(folder)
        stack.callback(self.redis.stop)
        self.providers = {name: StagedProvider() for name in PROVIDERS}
        for provider in self.providers.values():
            stack.callback(provider.stop)
        (folder / "fleet.toml").write_text(self._toml())
        os.environ |= {"FLEET_CONFIG": str(folder / "fleet.toml"), "FLEET_HOME": str(folder / ".fleet")}
        os.environ["CI"] = "1"  # no browser is an error, not a test to be skipped
        config.current.cache_clear()
        self.client = connect(self.redis.url)
        stack.callback(self.client.close)
        self.workers: dict[str, WorkerProcess] = {}
        stack.callback(self.end_workers)
        for name in ("w1", "w2"):
            self.start(name)
        flower = stack.enter_context(running(folder, self.redis.url))
        chrome = start_chromium()
        stack.callback(chrome.quit)
        self.page = Browser(chrome)
        self.login = f"fleet:{(folder / '.fleet' / 'flower.password').read_text().strip()}"
        self.page.look()
        self.page.open(flower.url, self.login)
        self._feeding = threading.Event()
        self._over = threading.Event()
        feeder = threading.Thread(target=self._feed, daemon=True)
        feeder.start()
        stack.callback(feeder.join, 10)
        stack.callback(self._over.set)

    def _toml(self) -> str:
        parts = [f'[redis]\nurl = "{self.redis.url}"', "[worker]\nslots = 20"]
        parts += [
            f'[providers.{name}]\nkind = "simulator"\nbase_url = "{one.url}"' for name, one in self.providers.items()
        ]
        parts += [f'[limits."{api}"]\nrpm = 6000\nusd_per_day = 50.0' for api in ("alpha/m-1", "beta/m-2", "gamma/m-3")]
        parts += [
            f'[prices."{api}"]\ninput_usd_per_mtok = 10.0\noutput_usd_per_mtok = 40.0'
            for api in ("alpha/m-1", "beta/m-2")
        ]
        parts += [f'[pools.{pool}]\nbots = {bots}\nprovider = "{provider}"\nmodel = "{model}"'
                  for pool, (bots, provider, model) in POOLS.items()]  # fmt: skip
        return "\n".join(parts)

    def start(self, name: str, *options: str, env: dict[str, str] | None = None) -> None:
        """Start a worker and wait until it is ready, and has said so."""
        worker = WorkerProcess(self.folder, *options, env=env)
        self.workers[name] = worker.wait_ready()
        until(lambda: self._turns(worker.name), f"{name} reports that its main thread turns", every_s=0.2)

    def _turns(self, worker: str) -> bool:
        return any(one.name == worker and one.beat_at is not None for one in self.read().resources.workers)

    def end_workers(self) -> None:
        for worker in self.workers.values():
            worker.kill()

    def kill(self, name: str) -> None:
        self.workers.pop(name).kill()

    def stop(self, name: str) -> None:
        """End a worker as an operator does: it takes leave."""
        worker = self.workers.pop(name)
        worker.send(signal.SIGTERM)
        worker.wait()

    def hang(self, name: str) -> None:
        """Let the main thread of a worker stand still."""
        self.workers[name].send(signal.SIGUSR2)

    def read(self) -> FleetView:
        with open_overview(config.current()) as overview:
            return overview.read()

    def cli(self, *arguments: str) -> None:
        """Run a `fleet` command, as an operator does."""
        subprocess.run(
            [str(Path(sys.executable).with_name("fleet")), *arguments], check=True, capture_output=True, timeout=60
        )

    def queue(self, pool: str, count: int, **fields: Any) -> None:
        list(submit_many([{"prompt": f"What is {n}+2?", "pool": pool, **fields} for n in range(count)]))

    def feed(self, is_on: bool) -> None:
        """Submit tasks all the time, or no more."""
        (self._feeding.set if is_on else self._feeding.clear)()

    def _feed(self) -> None:
        while not self._over.wait(1.0):
            if self._feeding.is_set():
                for pool, count in A_SECOND.items():
                    self.queue(pool, count)

    @property
    def unanswered(self) -> int:
        return sum(provider.unanswered for provider in self.providers.values())

    @property
    def waiting(self) -> int:
        """Tasks that wait, whatever for: what a situation has left is gone before the next one."""
        return sum(pool.waiting + pool.parked for pool in self.read().pools)

    def wait_for_work(self) -> None:
        """Wait until each pool that is fed has worked for a while, so that what is usual is known."""
        until(
            lambda: min(self.read().pools[k].completions for k in range(len(A_SECOND))) >= USUAL_TASKS,
            "all pools work",
            every_s=0.5,
        )
