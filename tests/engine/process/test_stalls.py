"""A worker that stands still: nobody's task fails for it, and past a bound the process ends, to be replaced."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from fleet import config
from fleet.cli.setup.stalls import recent_stalls
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.overview import open_overview
from fleet.engine.process.duties.stall_watch import EXIT_STALLED, FIRST_FACTOR, LOOK_EVERY_S, PAUSE_S, Stalls
from fleet.engine.transport.leases import LEASE_S
from fleet.models import BotResult
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import counted
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

HANG_S = 20.0
#: Seconds that a task may take, less than any of the stalls below.
DEADLINE_S = 3.0

_BOTS = """\
import ctypes
import time
from fleet.engine.process.wiring import PROCESS

async def stand(task, bot):
    PROCESS.runtime.call_soon(time.sleep, 60)
    return await bot.chat("x")

def spin(task, bot):
    return str(sum(range(10**13)))

async def block(task, bot):
    time.sleep(2)
    return "blocked"

def hold(task, bot):
    ctypes.PyDLL(None).sleep(5)  # with the GIL
    return "held it"
"""

_CONFIG = """\
[pools.plain]
bots = 20
kinds = ["default"]
[pools.stand]
bots = 1
kinds = ["stand"]
function = "stalling_bots:stand"
[pools.spin]
bots = 1
kinds = ["spin"]
function = "stalling_bots:spin"
[pools.block]
bots = 1
kinds = ["block"]
function = "stalling_bots:block"
[pools.hold]
bots = 1
kinds = ["hold"]
function = "stalling_bots:hold"
"""


@pytest.fixture
def stalling(fleet_env: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bots that stall their worker, each in a pool of its own, beside one with a provider that takes a second."""
    (tmp_path / "stalling_bots.py").write_text(_BOTS)
    path = tmp_path / "fleet.toml"
    path.write_text(_CONFIG)
    monkeypatch.setenv("FLEET_CONFIG", str(path))
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "1000")
    config.current.cache_clear()


def looks(beats: Iterable[float | None], *, every_s: float = LOOK_EVERY_S) -> list[tuple[str, float]]:
    stalls = Stalls(HANG_S)
    found = (stalls.look({"loop": beat}, number * every_s) for number, beat in enumerate(beats))
    return [one for one in found if one is not None]


def test_a_part_that_turns_or_is_not_to_be_judged_does_not_stand() -> None:
    assert looks(float(number) for number in range(100)) == []
    assert looks([None] * 100) == []
    assert looks([1.0] * 20 + [2.0] * 20) == []


def test_a_part_that_stands_for_longer_than_the_bound_is_named_with_its_seconds() -> None:
    assert looks([0.0] + [1.0] * 22)[0] == ("loop", HANG_S + LOOK_EVERY_S)


def test_before_its_first_turn_a_part_is_given_three_times_as_long() -> None:
    assert looks([1.0] * 62)[0] == ("loop", FIRST_FACTOR * HANG_S + LOOK_EVERY_S)
    assert looks([1.0] * 61) == []


def test_nothing_is_concluded_from_a_time_in_which_the_whole_process_stood() -> None:
    stalls = Stalls(HANG_S)
    assert stalls.look({"loop": 1.0}, 0.0) is None
    assert stalls.look({"loop": 1.0}, 1000.0) is None
    assert stalls.look({"loop": 1.0}, 1000.0 + PAUSE_S) is None


def test_what_stands_for_a_reason_is_counted_anew() -> None:
    stalls = Stalls(HANG_S)
    assert stalls.look({"main": 0.0}, -1.0) is None
    for second in range(21):
        assert stalls.look({"main": 1.0}, float(second)) is None
    assert stalls.look({"main": 1.0}, 21.0) == ("main", 21.0)
    stalls.forgive("main")
    assert stalls.look({"main": 1.0}, 22.0) is None


def results_of(url: str, ids: list[str]) -> list[BotResult]:
    rows = cast("list[bytes | None]", connect(url).mget([keys.result(task_id) for task_id in ids]))
    return [BotResult.model_validate(json.loads(row)["result"]) for row in rows if row]


def test_neither_a_stopped_process_nor_a_held_gil_fails_a_task_or_loses_an_answer(
    stalling: None, start_worker: StartWorker, redis_url: str
) -> None:
    """Given tasks with a deadline, when their worker stands longer than that and than a lease, all are answered once.

    Beside a second worker they would pass to it after a lease, and be paid for again: that is what leases are for.
    """
    worker = start_worker()
    redis = connect(redis_url)

    def ask() -> list[str]:
        ids = list(submit_many({"prompt": f"{n}?", "kind": "default", "deadline_s": DEADLINE_S} for n in range(10)))
        wait_until(lambda: redis.hlen(keys.bot_claims("plain")) == 10, 10, "all are at work")
        return ids

    stopped = ask()
    worker.send(signal.SIGSTOP)
    time.sleep(LEASE_S + 1)
    worker.send(signal.SIGCONT)
    wait_until(lambda: len(results_of(redis_url, stopped)) == 10, 30, "the stopped ones have results")

    holder = list(submit_many([{"prompt": "hold", "kind": "hold", "deadline_s": DEADLINE_S}]))
    held = ask()
    wait_until(lambda: len(results_of(redis_url, held + holder)) == 11, 30, "the held ones have results")

    results = results_of(redis_url, stopped + held)
    assert [result.status for result in results] == ["ok"] * 20, [result.error for result in results]
    assert sum(result.attempts for result in results) == 20
    assert counted(redis, catalogue.ATTEMPTS.name) == 20, "no call was made twice"
    assert results_of(redis_url, holder)[0].answer == "held it"

    list(submit_many([{"prompt": "block", "kind": "block"}]))
    wait_until(lambda: recent_stalls(config.current()), 20, "`fleet doctor` knows of the function that blocks")
    fields = recent_stalls(config.current())[0].fields
    assert fields["function"] == "stalling_bots:block" and fields["at"] == "stalling_bots.py:13"
    assert 1.0 <= float(fields["s"]) < 4.0 and "function_blocks function=stalling_bots:block" in worker.log


def test_a_worker_whose_loop_stands_or_whose_gil_is_never_released_ends_with_a_clear_last_word(
    stalling: None, start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_WORKER__HANG_S", "5")
    stands, spins = start_worker("-Q", keys.queue("stand")), start_worker("-Q", keys.queue("spin"))
    list(submit_many([{"prompt": "x", "kind": "stand"}, {"prompt": "x", "kind": "spin"}]))

    assert stands.wait(60) == EXIT_STALLED
    assert stands.log.splitlines()[-1].startswith(f"fleet: worker {stands.name} ends itself: its event loop has stood")
    assert "Thread 0x" in stands.log, "it shows where its threads stand"
    events: Any = connect(redis_url).xrange(keys.events())
    assert [fields for _, fields in events if fields[b"event"] == catalogue.WORKER_STALLED.name.encode()]

    assert spins.wait(60) == -signal.SIGVTALRM
    assert 'stalling_bots.py", line' in spins.log and "in spin" in spins.log


def test_a_worker_that_stands_before_its_first_turn_is_told_within_15_s_and_ends(
    stalling: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfrom celery.signals import worker_ready\n"
        "worker_ready.connect(lambda **_: time.sleep(90), weak=False)\n"
    )
    monkeypatch.setenv("FLEET_WORKER__HANG_S", "10")
    config.current.cache_clear()
    worker = WorkerProcess(tmp_path)
    try:
        with open_overview(config.current()) as overview:

            def hung() -> list[float]:
                view = overview.read()
                return [view.at - (one.since or 0) for one in view.diagnoses if one.kind == "worker_hung"]

            wait_until(hung, 60, lambda: f"it is told; log:\n{worker.log}")
            assert hung()[0] < 15, "since its first turn was due"
        assert worker.wait(60) == EXIT_STALLED
        last = worker.log.splitlines()[-1]
        assert "ends itself: its main thread has stood still for 3" in last, "it was given three times as long"
    finally:
        worker.kill()
