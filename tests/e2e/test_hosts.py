"""Workers on several hosts, one of which is cut off: nothing is lost, nothing has two results, and it comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.local_simulator import stop_simulator
from fleet.engine.messages.producer import submit_many
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import counted
from tests.every import every
from tests.hosts import Hosts, hosts, why_not
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

#: Generous: the machine may be slow, and a lease runs for 10 s.
WAIT_S = 120.0
SLOTS = 4
WORK = """
import asyncio, os, pathlib
async def work(task, bot):
    here = os.environ["HOST"]
    with pathlib.Path("runs").open("a") as runs:
        runs.write(f"{here} {task.prompt}\\n")
    await asyncio.sleep(600 if here == "a" and not pathlib.Path("rejoined").exists() else 0.1)
    return here
"""
SETTINGS = f"""
[worker]
slots = {SLOTS}
[pools.shared]
bots = {2 * SLOTS}
provider = "simulator"
function = "work:work"
"""


@pytest.fixture
def network() -> Iterator[Hosts]:
    if reason := why_not():
        pytest.skip(reason)
    with hosts("ab") as network:
        yield network


@pytest.fixture
def broker(network: Hosts, tmp_path: Path, fleet_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    server = RedisServer(tmp_path, "--bind", "127.0.0.1", network.gateway, "--protected-mode", "no")
    monkeypatch.setenv("FLEET_REDIS__URL", server.url)
    network.redis_url = f"redis://{network.gateway}:{server.port}/0"
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "fleet.toml").write_text(SETTINGS)
    config.current.cache_clear()
    with connect(server.url) as client:
        yield client
    server.kill()


def submit(name: str, count: int) -> list[str]:
    return list(submit_many({"prompt": f"{name}{n}", "pool": "shared"} for n in range(count)))


def results_of(client: redis.Redis, task_ids: list[str]) -> int:
    return int(client.exists(*map(keys.result, task_ids)))  # type: ignore[arg-type]


def test_tasks_of_a_host_that_is_cut_off_go_to_another_and_it_takes_part_again(
    network: Hosts, broker: redis.Redis, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"

    def runs_of(host: str) -> int:
        return sum(line.startswith(host) for line in runs.read_text().splitlines()) if runs.exists() else 0

    def worker_on(host: str) -> WorkerProcess:
        # each host has a home, and so a simulator, of its own
        env = {"HOST": host, "FLEET_REDIS__URL": network.redis_url, "FLEET_HOME": str(tmp_path / f"home-{host}")}
        return WorkerProcess(tmp_path, env=env, inside=network.inside(host))

    workers = {host: worker_on(host) for host in "ab"}
    try:
        for worker in workers.values():
            worker.wait_ready()
        first = submit("t", 200)
        wait_until(lambda: runs_of("a") >= SLOTS and broker.hlen(keys.unacked()) >= SLOTS, WAIT_S, "a holds all it can")
        network.cut_off("a")
        wait_until(lambda: results_of(broker, first) == len(first), WAIT_S, "b has done what a held")
        assert every(b'"a"' not in (broker.get(keys.result(task_id)) or b"") for task_id in first)
        (tmp_path / "rejoined").touch()
        network.rejoin("a")
        before = runs_of("a")
        more: list[str] = []

        def takes_part() -> bool:
            more.extend(submit("m", 10))
            return runs_of("a") > before

        wait_until(takes_part, WAIT_S, "a takes tasks again")
        everything = [*first, *more]
        wait_until(lambda: results_of(broker, everything) == len(everything), WAIT_S, "all are done")
        wait_until(lambda: broker.hlen(keys.unacked()) == 0, WAIT_S, "nobody holds anything")
        assert counted(broker, "completions") == len(everything), "one result each: what a had begun counts once, for b"
        assert every(worker.alive for worker in workers.values())
    finally:
        for host, worker in workers.items():
            worker.kill()
            stop_simulator(tmp_path / f"home-{host}")
