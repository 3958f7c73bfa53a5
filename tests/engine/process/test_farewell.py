"""What a worker says, and ends with, when somebody stops it by hand."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.engine.messages.envelope import task_id_in
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import list_key
from fleet.engine.process.farewell import told
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import ensure_redis
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 60.0
RUNS_ON = "fleet: a private Redis and the simulator run on; `fleet down` ends them\n"


@pytest.fixture
def worker(tmp_path: Path, fleet_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    """A worker with ten slots, on an embedded Redis, at work on 15 tasks of which one is done soon."""
    (tmp_path / "fleet.toml").write_text("[worker]\ngrace_s = 3\n[simulator]\nlatency_ms = 400\n")
    config.current.cache_clear()
    process = WorkerProcess(tmp_path, "-c", "10").wait_ready()
    yield process
    process.kill()


def busy(home: Path) -> int:
    with connect(ensure_redis(home, config.load().redis.server)) as client:
        return int(client.hlen("fleet:unacked"))  # type: ignore[arg-type]


def waiting(home: Path) -> int:
    with connect(ensure_redis(home, config.load().redis.server)) as client:
        return int(client.llen(list_key(keys.queue("research"), 2)))  # type: ignore[arg-type]


def finished(home: Path, ids: list[str]) -> int:
    with connect(ensure_redis(home, config.load().redis.server)) as client:
        return sum(row is not None for row in client.mget([keys.result(task_id) for task_id in ids]))  # type: ignore[union-attr]


def test_ctrl_c_tells_what_finished_what_went_back_and_what_runs_on_and_ends_with_0(
    worker: WorkerProcess, fleet_home: Path
) -> None:
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(100)))
    wait_until(lambda: finished(fleet_home, ids) >= 10 and busy(fleet_home) == 10, WAIT_S, "it is at work")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    back = waiting(fleet_home)
    assert "fleet: stopped; " in worker.log and worker.log.endswith(RUNS_ON)
    assert worker.log.count("run on; ") == 1
    assert finished(fleet_home, ids) + back == 100
    assert busy(fleet_home) == 0


def test_what_outlives_the_grace_is_counted_as_gone_back(
    worker: WorkerProcess, fleet_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.toml").write_text("[worker]\ngrace_s = 1\n[simulator]\nlatency_ms = 30000\n")
    config.current.cache_clear()
    slow = WorkerProcess(tmp_path, "-c", "10").wait_ready()  # the simulator is as slow for both from now on
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert "fleet: stopped; no task was under way\n" in worker.log
    assert "run on" not in worker.log  # nobody pressed Ctrl-C: a supervisor knows what it has
    list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(15)))
    wait_until(lambda: busy(fleet_home) == 10, WAIT_S, "all slots are busy")
    slow.send(signal.SIGINT)
    assert slow.wait() == 0
    assert "fleet: stopped; 0 tasks finished, 10 went back to their queues\n" in slow.log
    assert waiting(fleet_home) == 15


def test_a_second_ctrl_c_hands_everything_back_at_once_says_so_and_ends_with_1(
    worker: WorkerProcess, fleet_home: Path, tmp_path: Path
) -> None:
    worker.kill()
    (tmp_path / "fleet.toml").write_text("[worker]\ngrace_s = 60\n[simulator]\nlatency_ms = 30000\n")
    config.current.cache_clear()
    slow = WorkerProcess(tmp_path, "-c", "10").wait_ready()
    list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(15)))
    wait_until(lambda: busy(fleet_home) == 10, WAIT_S, "all slots are busy")
    slow.send(signal.SIGINT)
    wait_until(lambda: "Warm shutdown" in slow.log, WAIT_S, "it has heard")
    slow.send(signal.SIGINT)
    assert slow.wait(20) == 1, slow.log
    assert "fleet: stopped; 0 tasks finished, 10 went back to their queues\n" in slow.log
    assert slow.log.endswith(RUNS_ON)
    assert waiting(fleet_home) == 15


HOLDS_THE_LOG = """
import asyncio, logging, time
from celery import signals
from fleet import app
from fleet.engine.process.wiring import PROCESS

class Holds(logging.Handler):
    "Holds its lock for long in the main thread, at the first message, as a slow terminal would."
    def emit(self, record):
        if " received" in record.getMessage() and not held:
            held.append(record)
            print("the log is held", flush=True)
            time.sleep(4)

held = []

async def tells():
    while True:
        logging.getLogger("fleet.test").warning("the loop lives")
        await asyncio.sleep(0.05)

@signals.worker_ready.connect(weak=False)
def begin(**_):
    logging.getLogger().addHandler(Holds())
    PROCESS.runtime.spawn(tells())
"""


def test_a_second_ctrl_c_while_the_log_is_being_written_does_not_wait_for_who_writes_it(
    worker: WorkerProcess, fleet_home: Path, tmp_path: Path
) -> None:
    worker.kill()
    (tmp_path / "holds_the_log.py").write_text(HOLDS_THE_LOG)
    slow = WorkerProcess(tmp_path, "-c", "10", app="holds_the_log").wait_ready()
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(15)))
    wait_until(lambda: "the log is held" in slow.log, WAIT_S, "the main thread writes its log")
    slow.send(signal.SIGINT)
    wait_until(lambda: "Warm shutdown" in slow.log, WAIT_S, "it has heard")
    slow.send(signal.SIGINT)
    assert slow.wait(20) == 1, slow.log
    assert "fleet: stopped; 0 tasks finished" in slow.log
    assert waiting(fleet_home) == 15 and finished(fleet_home, ids) == 0


def test_who_presses_ctrl_c_again_and_again_leaves_no_finished_task_to_be_taken_again(
    worker: WorkerProcess, fleet_home: Path, tmp_path: Path
) -> None:
    worker.kill()
    (tmp_path / "fleet.toml").write_text("[simulator]\nlatency_ms = 30\nrpm = 100000\ntpm = 100000000\n")
    config.current.cache_clear()
    quick = WorkerProcess(tmp_path, "-c", "30").wait_ready()
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(3000)))
    wait_until(lambda: finished(fleet_home, ids) >= 30, WAIT_S, "it is at work")
    for _ in range(6):  # without the last acks 5 of 8 of these leave some
        if quick.alive:
            quick.send(signal.SIGINT)
        time.sleep(0.03)  # between two keystrokes, not for a state
    quick.wait(20)
    with connect(ensure_redis(fleet_home, config.load().redis.server)) as client:
        held = [task_id_in(entry.partition(b"\n")[2]) for entry in client.hvals("fleet:unacked")]  # type: ignore[union-attr]
    assert finished(fleet_home, [task_id for task_id in held if task_id]) == 0


def test_one_task_is_told_in_the_singular() -> None:
    assert told(1, 1, 0) == "stopped; 1 task finished, 1 went back to its queue"
    assert told(0, 0, 0) == "stopped; no task was under way"
    assert told(1200, 2, 0) == "stopped; 1,200 tasks finished, 2 went back to their queues"
    assert told(0, 0, 24).endswith("24 could not go back, for Redis is away: any worker has them soon after its return")


#: A worker whose connections take a while to close, the last one longest.
SLOW = """
import time
from fleet import app
from fleet.engine.process.assembly import Telemetry

def close(self):
    time.sleep(4)

Telemetry.close = close
"""


def test_an_idle_worker_that_is_stopped_asks_no_closed_store_and_leaves_for_good(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    (tmp_path / "slow.py").write_text(SLOW)
    worker = WorkerProcess(tmp_path, app="slow").wait_ready()
    try:
        with connect(redis_url) as client:
            wait_until(lambda: client.hlen(keys.workers()) == 1, WAIT_S, "it has reported")
            worker.send(signal.SIGINT)
            assert worker.wait() == 0
            assert client.hlen(keys.workers()) == 0, "it has reported once more after it left"
        assert "closed" not in worker.log and "duty failed" not in worker.log, worker.log
    finally:
        worker.kill()
