"""Workers for asks, on the one Redis that this process's Celery app knows, and simulators that replay answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet import config
from fleet.engine.local_simulator import stop_simulator
from fleet.store.client import connect
from tests.redis_server import RedisServer
from tests.worker_process import QUICK_LEASES, REPO, WorkerProcess

#: `quick` answers at once, `few` has three bots, nobody serves `never`, `slow` takes its time, `torn` knows two answers
#: to a question.
TOML = """
[redis]
url = "{url}"

[providers.slow]
kind = "simulator"
base_url = "{slow}"

[providers.torn]
kind = "simulator"
base_url = "{torn}"

[prices."simulator/simulated-1"]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 1.0

[pools.quick]
bots = 40

[pools.few]
bots = 3

[pools.slow]
bots = 20
provider = "slow"

[pools.torn]
bots = 60
provider = "torn"
model = "torn-1"

[pools.never]
bots = 9

[pools.moody]
bots = 6
function = "moody_bots:answer"

[simulator]
latency_ms = 5

[kinds.compared]
shadow_votes = 0.03

[worker]
slots = 20
"""
QUEUES = "celery,fleet.quick,fleet.few,fleet.slow,fleet.torn,fleet.moody"
#: Bots that fail so often as a file says, of all together.
MOODY = """
from pathlib import Path

async def answer(task, context):
    left = int(Path("moods").read_text())
    Path("moods").write_text(str(left - 1))
    if left > 0:
        raise ValueError("not today")
    return "42"
"""
#: Seconds that an answer of `slow` takes.
SLOW_S = 4.0


@dataclass(frozen=True)
class AskStage:
    """Where the workers of asks run."""

    folder: Path
    server: RedisServer
    slow: str
    torn: str

    def worker(self) -> WorkerProcess:
        """Start another worker."""
        env = {"FLEET_HOME": str(self.folder / ".fleet"), "FLEET_CONFIG": str(self.folder / "fleet.toml")}
        return WorkerProcess(self.folder, "-Q", QUEUES, env=env, app=QUICK_LEASES).wait_ready()

    def served(self, url: str) -> int:
        """Return how many calls a simulator has answered."""
        with urllib.request.urlopen(f"{url}/ledger") as reply:
            total: dict[str, Any] = json.load(reply)["total"]
        return int(total["served"])


@contextmanager
def simulator(*options: str) -> Iterator[str]:
    """Run a simulator; yields its address."""
    command = [sys.executable, "-m", "fleet.workers.simulator", "--port", "0", *options]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, redis_process: RedisServer) -> Iterator[AskStage]:
    """An empty Redis, simulators, and a worker that serves all pools but `never`."""
    folder = tmp_path_factory.mktemp("asking")
    with connect(redis_process.url) as client:
        client.flushall()
    answers = folder / "answers.jsonl"
    answers.write_text(json.dumps({"question": "Tea or coffee?", "one": "Tea.", "other": "coffee"}) + "\n")
    (folder / "moody_bots.py").write_text(MOODY)
    (folder / "moods").write_text("0")
    with ExitStack() as stack:
        slow = stack.enter_context(simulator("--latency-ms", str(SLOW_S * 1000)))
        torn = stack.enter_context(simulator("--answers", str(answers), "--answer-field", "one,one,other"))
        place = {"url": redis_process.url, "slow": slow, "torn": torn}
        (folder / "fleet.toml").write_text(TOML.format(**place))
        made = AskStage(folder, redis_process, slow, torn)
        worker = made.worker()
        try:
            yield made
        finally:
            worker.kill()
            stop_simulator(folder / ".fleet")


@pytest.fixture(autouse=True)
def producer(stage: AskStage, monkeypatch: pytest.MonkeyPatch) -> AskStage:
    """Let this process be a producer of that fleet."""
    monkeypatch.setenv("FLEET_CONFIG", str(stage.folder / "fleet.toml"))
    config.current.cache_clear()
    return stage
