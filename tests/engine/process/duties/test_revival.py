"""A worker that nobody supervises, while what it needs beside itself is killed under it: no task fails for that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.engine.local_simulator import ensure_simulator, running_simulator, simulator_answers, stop_simulator
from fleet.engine.messages.producer import submit_many
from fleet.engine.process.duties.revival import DYING_S, LocalSimulator
from fleet.errors import ProviderUnavailable
from fleet.models import BotResult
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import ensure_redis, redis_lives, revive_redis, stop_redis
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 120.0


@pytest.fixture
def worker(tmp_path: Path, fleet_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerProcess]:
    """A worker on an embedded Redis, with calls of half a second and one attempt only for each task."""
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "500")
    (tmp_path / "fleet.toml").write_text("[pools.research]\nbots = 30\nmax_attempts = 1\n")
    config.current.cache_clear()
    process = WorkerProcess(tmp_path).wait_ready()
    yield process
    process.kill()


def started(home: Path) -> str:
    return ensure_redis(home, config.load().redis.server)


def revived(home: Path) -> str | None:
    return revive_redis(home, config.load().redis.server)


def results(home: Path, ids: list[str]) -> list[BotResult]:
    with connect(started(home)) as client:
        rows = client.mget([keys.result(task_id) for task_id in ids])
    return [BotResult.model_validate(json.loads(row)["result"]) for row in rows if row]  # type: ignore[union-attr]


def pid_of(home: Path, name: str) -> int:
    return int(json.loads((home / f"{name}.json").read_text())["pid"])


def lives_anew(home: Path, killed: int) -> bool:
    """True once Redis runs under another pid; while it is started none is known."""
    pid = json.loads((home / "redis.json").read_text())["pid"]
    return pid is not None and int(pid) != killed


def test_no_task_fails_when_the_simulator_is_killed_again_and_again(worker: WorkerProcess, fleet_home: Path) -> None:
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(90)))
    killed = set()
    for at_least in (1, 31, 61):
        wait_until(lambda n=at_least: len(results(fleet_home, ids)) >= n, WAIT_S, f"{at_least} results")
        killed.add(pid := pid_of(fleet_home, "simulator"))
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(results(fleet_home, ids)) == len(ids), WAIT_S, lambda: f"all results; log:\n{worker.log}")
    assert [result.error for result in results(fleet_home, ids) if result.status != "ok"] == []
    assert len(killed) == 3 and worker.log.count("fleet: started the simulator") == 4


def test_a_killed_private_redis_is_started_again_and_no_task_is_lost(worker: WorkerProcess, fleet_home: Path) -> None:
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(90)))
    wait_until(lambda: len(results(fleet_home, ids)) >= 20, WAIT_S, "the first results")
    killed = pid_of(fleet_home, "redis")
    os.kill(killed, signal.SIGKILL)
    # Whoever needs it first starts it: the duty that says so in the log, or another look of the worker at its Redis.
    wait_until(lambda: lives_anew(fleet_home, killed), WAIT_S, lambda: f"it is back; log:\n{worker.log}")
    wait_until(lambda: len(results(fleet_home, ids)) == len(ids), WAIT_S, lambda: f"all results; log:\n{worker.log}")
    assert {result.status for result in results(fleet_home, ids)} == {"ok"}


def test_a_redis_that_was_stopped_on_purpose_is_not_started_again(fleet_home: Path) -> None:
    assert revived(fleet_home) is None
    url = started(fleet_home)
    assert revived(fleet_home) is None
    stop_redis(fleet_home)
    assert revived(fleet_home) is None
    assert started(fleet_home) == url
    os.kill(pid_of(fleet_home, "redis"), signal.SIGKILL)
    found: list[str | None] = []
    wait_until(
        lambda: found.append(revived(fleet_home)) or found[-1] is not None,
        5,
        "its death is seen",
    )
    assert found[-1] == url


class Fails:
    """An adapter whose every call fails as if the simulator were not there."""

    def __init__(self, url: str, calls: list[str]) -> None:
        self._url = url
        self._calls = calls

    async def complete(self, call: object, *, api_key: str) -> str:
        self._calls.append(self._url)
        raise ProviderUnavailable("connection refused")

    async def close(self) -> None:
        pass


def test_a_simulator_that_lives_and_fails_is_a_provider_like_any_other(fleet_home: Path) -> None:
    calls: list[str] = []
    simulator = LocalSimulator(
        fleet_home, lambda: ensure_simulator(config.load(), fleet_home), lambda url: Fails(url, calls)
    )
    with pytest.raises(ProviderUnavailable, match="refused"):
        asyncio.run(simulator.complete("call", api_key=""))
    assert len(calls) == 1


def test_a_simulator_that_somebody_started_with_other_settings_is_used_and_not_fought_over(fleet_home: Path) -> None:
    calls: list[str] = []
    simulator = LocalSimulator(
        fleet_home, lambda: ensure_simulator(config.load(), fleet_home), lambda url: Fails(url, calls)
    )
    changed = ensure_simulator(config.load(simulator={"rpm": 77}), fleet_home)
    with pytest.raises(ProviderUnavailable):  # the first failure is the old one's end, the second its own
        asyncio.run(simulator.complete("call", api_key=""))
    assert calls[-1] == changed.url and len(calls) == 2
    assert running_simulator(fleet_home) == changed


class Refused:
    """An adapter that is refused until its simulator answers for its health, as a connection is."""

    def __init__(self, home: Path, refusals: list[str]) -> None:
        self._home = home
        self._refusals = refusals

    async def complete(self, call: object, *, api_key: str) -> str:
        if not simulator_answers(self._home):
            self._refusals.append(str(call))
            raise ProviderUnavailable("connection refused", sent=False) from ConnectionRefusedError()
        return "an answer"

    async def exchange(self, request: object, *, api_key: str) -> str:
        return await self.complete(request, api_key=api_key)

    async def close(self) -> None:
        pass


def test_processes_that_meet_a_simulator_which_only_just_starts_wait_until_it_listens(fleet_home: Path) -> None:
    refusals: list[str] = []

    async def both() -> list[str]:
        simulators = [
            LocalSimulator(
                fleet_home,
                lambda: ensure_simulator(config.load(), fleet_home),
                lambda url: Refused(fleet_home, refusals),
            )
            for _ in range(2)
        ]
        os.kill(pid_of(fleet_home, "simulator"), signal.SIGKILL)
        chats = (simulator.complete("call", api_key="") for simulator in simulators for _ in range(3))
        requests = (simulator.exchange("request", api_key="") for simulator in simulators for _ in range(2))
        return await asyncio.gather(*chats, *requests)

    assert asyncio.run(both()) == ["an answer"] * 10
    assert set(refusals) == {"call", "request"}


def test_a_simulator_that_was_stopped_on_purpose_with_redis_comes_back_with_redis(fleet_home: Path) -> None:
    refusals: list[str] = []

    async def main() -> str:
        simulator = LocalSimulator(
            fleet_home,
            lambda: ensure_simulator(config.load(), fleet_home),
            lambda url: Refused(fleet_home, refusals),
            is_wanted=lambda: redis_lives(fleet_home),
        )
        stop_simulator(fleet_home)
        work = asyncio.ensure_future(simulator.complete("call", api_key=""))
        await asyncio.sleep(3 * DYING_S)
        assert not work.done() and running_simulator(fleet_home) is None
        await asyncio.to_thread(started, fleet_home)  # somebody needs Redis again: then tasks come, and need it
        return await work

    assert asyncio.run(main()) == "an answer"
