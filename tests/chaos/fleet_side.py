"""Fleet under attack: two simulators as providers, and the invariants of a settled fleet, read from outside.

What a task was paid for stands in the simulators' ledgers; what it got, in Celery's result keys and on the channels
that results are published on.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from fleet import config
from fleet.engine.messages.envelope import TASK_NAME
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.models import BotResult
from fleet.roster import LOAD_UNIT
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from tests.chaos.arena import Broker, Tally
from tests.chaos.money import unpaid
from tests.counted import counted
from tests.signal_truth import untruths
from tests.worker_process import REPO, WorkerProcess

#: Slots of a worker process.
SLOTS = 60
#: Pools whose tasks are quick, and those whose tasks last for leases, run a function, or stall their worker.
QUICK, SLOW, OWN, BLOCKING = ("research", "writing"), "slow", "own", "blocking"

_CONFIG = """\
[providers.quick]
kind = "simulator"
base_url = "{quick}"
[providers.slow]
kind = "simulator"
base_url = "{slow}"
[pools.research]
bots = 40
provider = "quick"
kinds = ["default"]
[pools.writing]
bots = 40
provider = "quick"
kinds = ["default"]
[pools.slow]
bots = 20
provider = "slow"
kinds = ["slow"]
[pools.own]
bots = 40
provider = "quick"
kinds = ["own", "deadly"]
function = "chaos_bots:bot"
[pools.blocking]
bots = 4
provider = "quick"
kinds = ["blocking"]
function = "tests.chaos.blocking:stall"
"""
#: Tasks of the pool `own` last for a second, so that many run beside one that kills its process.
_BOTS = """\
import asyncio, os, signal

async def bot(task, bot):
    await asyncio.sleep(1)
    if task.kind == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return await bot.chat(task.prompt)
"""


#: What workers log about tasks that begin again, and how many.
_AGAIN = (r"swept restored=(\d+)", r"a child process died .* suspects=(\d+)")


class FleetSide:
    """A fleet of two worker processes. Made by `fleet_side`."""

    inbox = list_key("celery", 2)
    task_name = TASK_NAME

    def __init__(self, folder: Path, broker: Broker, simulators: list[str]) -> None:
        self._folder = folder
        self._url = broker.url
        self._redis = connect(broker.url)
        self._simulators = simulators
        self._run = folder.name
        #: Kind of all quick tasks from now on; None: the usual one.
        self.kind: str | None = None
        self._published: dict[bytes, set[bytes]] = defaultdict(set)
        self._listening = True
        threading.Thread(target=self._listen, name="listener", daemon=True).start()

    def close(self) -> None:
        self._listening = False

    def start_worker(self) -> WorkerProcess:
        return WorkerProcess(self._folder)

    def submit(
        self,
        numbers: range,
        *,
        countdown_s: float = 0.0,
        slow: bool = False,
        deadly: bool = False,
        blocking: bool = False,
    ) -> list[str]:
        kind = "deadly" if deadly else "blocking" if blocking else self.kind or ("slow" if slow else "default")
        if countdown_s:
            from fleet.engine.tasks import submit_task

            sent = [submit_task.apply_async((_prompt(n),), {"kind": kind}, countdown=countdown_s) for n in numbers]
            return [task.id for task in sent]
        tasks = ({"prompt": _prompt(n), "kind": kind} for n in numbers)
        return list(submit_many(tasks, idempotency_keys=(f"{self._run}-{n}" for n in numbers)))

    def let_provider_fail(self, share: float) -> None:
        url = f"{self._simulators[0]}/failures?error_rate={share}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()

    def finished(self) -> int:
        return self._total(catalogue.COMPLETIONS)

    def is_quiet(self) -> bool:
        return not self._redis.hlen(keys.unacked()) + self._redis.hlen(keys.parked()) and not any(
            map(self._redis.llen, _lists())
        )

    def tally(self, ids: list[str]) -> Tally:
        metas = {meta["task_id"]: meta for meta in self._metas()}
        results = [BotResult.model_validate(meta["result"]) for meta in metas.values() if meta["status"] == "SUCCESS"]
        untyped = Counter(meta["result"]["exc_type"] for meta in metas.values() if meta["status"] != "SUCCESS")
        ledger = [self._ledger(url) for url in self._simulators]
        calls = sum(account["calls"] - account["refused_429"] for account in ledger)
        reruns = calls - sum(result.attempts for result in results)
        unknown, wrong = unpaid(
            self._redis, self._url, dict(zip(("quick", "slow"), self._simulators, strict=True)), self._folder
        )
        return Tally(
            lost=len(set(ids) - set(metas)),
            doubled=self._doubled(len(results)),
            reruns=reruns,
            failed=sum(result.status == "failed" for result in results),
            buried=sum(result.error is not None and result.error.type == "Poison" for result in results),
            unknown=unknown,
            problems=[
                *(f"{n} results are an untyped {kind}" for kind, n in untyped.items()),
                *self._problems(reruns),
                *wrong,
                *untruths(self._redis, config.current(), results),
            ],
        )

    def _doubled(self, results: int) -> int:
        """Results that were stored beside a first one: as the counter says, and as whoever listened has seen."""
        return max(self._total(catalogue.COMPLETIONS) - results, sum(len(s) - 1 for s in self._published.values()))

    def _problems(self, reruns: int) -> Iterator[str]:
        """What a settled fleet must not leave behind."""
        waiting = {name: length for name in _lists() if (length := self._redis.llen(name))}
        if waiting:
            yield f"messages still wait: {waiting}"
        if held := self._redis.hlen(keys.unacked()) or self._redis.zcard(keys.unacked_index()):
            yield f"{held} messages still held"
        if parked := self._redis.hlen(keys.parked()) + self._redis.zcard(keys.openings()):
            yield f"{parked} messages still parked"
        if poison := self._redis.llen(keys.poison()):
            yield f"{poison} poisoned messages not buried"
        counted = self._total(catalogue.DUPLICATES) + self._total(catalogue.FENCED) + self._redeliveries()
        if reruns > counted:
            yield f"{reruns} re-runs, of which only {counted} were counted"
        if suspects := self._redis.hlen(keys.suspects()):
            yield f"{suspects} marks of suspects are left"
        for pool in (*QUICK, SLOW, OWN, BLOCKING):
            bots: list[Any] = self._redis.zrange(keys.bots(pool), 0, -1, withscores=True)
            load = sum(int(score) // LOAD_UNIT for _, score in bots)
            held = self._redis.zcard(keys.bot_leases(pool))
            if load != held or held != self._redis.hlen(keys.bot_claims(pool)):
                yield f"bots of {pool} carry {load} tasks on {held} leases"

    def _redeliveries(self) -> int:
        """Tasks that were begun again: brought back by a sweep, or tried in another child process."""
        logs = [path.read_text(errors="replace") for path in self._folder.glob("*.log")]
        counts = [count for log in logs for pattern in _AGAIN for count in re.findall(pattern, log)]
        return sum(map(int, counts))

    def _metas(self) -> Iterator[dict[str, Any]]:
        """Yield all that Celery's result backend holds, also for ids that only a hostile producer knows."""
        names: list[bytes] = list(self._redis.scan_iter(keys.result("*"), count=1000))
        for start in range(0, len(names), 500):
            rows: list[Any] = self._redis.mget(names[start : start + 500])
            for name, row in zip(names[start:], rows, strict=False):
                meta = json.loads(row)
                assert name.decode() == keys.result(meta["task_id"]), f"expected the result of {name!r}, got another's"
                yield meta

    def _total(self, counter: catalogue.Counter) -> int:
        return counted(self._redis, counter.name)

    def _ledger(self, url: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{url}/ledger") as reply:
            return dict(json.load(reply)["total"])

    def _listen(self) -> None:
        """Note every result that is published, over outages of Redis."""
        while self._listening:
            with suppress(redis.RedisError, OSError), self._redis.pubsub() as channel:  # type: ignore[no-untyped-call]
                channel.psubscribe(keys.result("*"))
                while self._listening:
                    message = channel.get_message(timeout=1)
                    if message and message["type"] == "pmessage":
                        self._published[message["channel"]].add(message["data"])


@contextmanager
def fleet_side(folder: Path, broker: Broker, *, latency_ms: float, slow_ms: float, seed: int) -> Iterator[FleetSide]:
    """Run simulators, and point this process and its children at them and at `broker`."""
    simulators = [_simulator(latency, seed) for latency in (latency_ms, slow_ms)]
    urls = [process.stdout.readline().decode().strip() for process in simulators if process.stdout]
    (folder / "chaos_bots.py").write_text(_BOTS)
    path = folder / "fleet.toml"
    path.write_text(_CONFIG.format(quick=urls[0], slow=urls[1]))
    before = dict(os.environ)
    os.environ |= {
        "FLEET_CONFIG": str(path), "FLEET_HOME": str(folder / "home"), "FLEET_REDIS__URL": broker.url,
        "FLEET_WORKER__SLOTS": str(SLOTS), "FLEET_REDIS__REPLICAS": str(int("master_name" in broker.url)),
    }  # fmt: skip
    config.current.cache_clear()
    side = FleetSide(folder, broker, urls)
    try:
        yield side
    finally:
        side.close()
        os.environ.clear()
        os.environ |= before
        config.current.cache_clear()
        for process in simulators:
            process.terminate()
            process.communicate()


def _simulator(latency_ms: float, seed: int) -> subprocess.Popen[bytes]:
    limits = ["--rpm", "100000000", "--tpm", "100000000000"]
    command = [
        sys.executable,
        "-m",
        "fleet.workers.simulator",
        "--latency-ms",
        str(latency_ms),
        "--seed",
        str(seed),
        *limits,
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)


def _prompt(number: int) -> str:
    return f"What is {number} + 2?"


def _lists() -> list[str]:
    return [
        list_key(name, step)
        for name in ("celery", *map(keys.queue, (*QUICK, SLOW, OWN, BLOCKING)))
        for step in PRIORITY_STEPS
    ]
