"""`fleet forget --tenant` with many tasks waiting, on two servers, killed half way: nothing of the tenant is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from fleet import config
from fleet.store import keys
from tests.engine.operations.erasure.test_forgetting import dump
from tests.keys.canaries import Canary, search
from tests.keys.figures import Figure, Size
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import REPO

#: Tasks of the tenant that wait, and of a neighbour.
TASKS, NEIGHBOURS = {"small": 1_000, "large": 100_000}, {"small": 50, "large": 1_000}
#: Longest that one command may hold Redis up, in milliseconds.
BLOCKS_MOST_MS = 100.0
#: Generous: the machine may be slow.
WAIT_S = 600.0
TENANT, NEIGHBOUR = "canary-acme", "canary-neighbour"
CANARIES = (
    Canary("tenant", TENANT, is_whole=True), Canary("prompt", "canaryPrompt-7Qw of the tenant", is_whole=True),
    Canary("metadata", "canaryMetadata-3Rt", is_whole=True),
)  # fmt: skip


@dataclass(frozen=True)
class Servers:
    """A broker and a state Redis, and the folder of both."""

    folder: Path
    broker: redis.Redis
    state: redis.Redis

    def forget(self, *words: str) -> subprocess.Popen[str]:
        """Begin to forget the tenant."""
        command = [sys.executable, "-m", "fleet.cli.main", "forget", "--tenant", TENANT, "--yes", "--json", *words]
        env = {**os.environ, "PYTHONPATH": str(REPO)}
        return subprocess.Popen(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, text=True)

    def waiting(self) -> int:
        return sum(self.broker.llen(name) for name in self.broker.scan_iter(f"{keys.queue('research')}*", _type="list"))

    def found(self) -> list[str]:
        """Return where something of the tenant lies: keys of both servers, and their logs of slow commands."""
        finds = list[str]()
        for role, client in (("broker", self.broker), ("state", self.state)):
            for name, value in dump(client):
                finds += [f"{role}: {find}" for find in search(CANARIES, name, value)]
            slow = repr(client.slowlog_get(10_000)).encode()
            finds += [f"{role}: {find}" for find in search(CANARIES, "the log of slow commands", slow)]
        return finds

    def slowest_ms(self) -> float:
        """Return how long the slowest command took that was logged."""
        entries = [*self.broker.slowlog_get(10_000), *self.state.slowlog_get(10_000)]
        return max((entry["duration"] / 1000 for entry in entries), default=0.0)


def measure(size: Size) -> list[Figure]:
    """Forget, then fill again, kill it half way, and forget again."""
    with _servers() as servers:
        _fill(servers, size)
        servers.broker.slowlog_reset()
        began = time.monotonic()
        forgetting, slowest = servers.forget(), 0.0
        while forgetting.poll() is None:  # its last step empties these logs
            slowest = max(slowest, servers.slowest_ms())
            time.sleep(0.02)
        took_s = time.monotonic() - began
        told = json.loads(forgetting.communicate()[0])
        found = servers.found()
        neighbours = servers.waiting()
        killed = _killed(servers, size)
        found += servers.found()
    whole = told["waiting"] == TASKS[size] and neighbours == NEIGHBOURS[size] and killed == 2 * NEIGHBOURS[size]
    note = (
        f"{told['waiting']:,} waiting tasks in {took_s:.1f} s; the slowest command held Redis up for {slowest:.0f} ms; "
        f"{neighbours:,} tasks of others left alone; killed half way and run again, {killed:,} left alone"
    )
    return [
        Figure("forgotten_found=", str(len(found)), not found and whole, (*dict.fromkeys(found), note)),
        Figure("forgotten_blocked_ms=", f"{slowest:.0f}", slowest <= BLOCKS_MOST_MS),
    ]


def _killed(servers: Servers, size: Size) -> int:
    """Fill it again, kill the command with half of the tasks gone, run it again; return how many tasks wait then."""
    _fill(servers, size)
    forgetting, before = servers.forget(), servers.waiting()
    wait_until(lambda: servers.waiting() < before - TASKS[size] // 2, WAIT_S, "half of the tasks are gone")
    forgetting.kill()
    forgetting.communicate()
    for tag in servers.broker.zrange(keys.unacked_index(), 0, -1):  # the lease of what it held runs out
        servers.broker.zadd(keys.unacked_index(), {tag: time.time() - 120})
    servers.forget("--wait-s", "60").communicate(timeout=WAIT_S)
    return servers.waiting()


def _fill(servers: Servers, size: Size) -> None:
    """Let tasks wait, be parked and have results; and have slow commands logged that quote their prompts."""
    from fleet.engine.messages.producer import submit_many
    from fleet.engine.outcomes.stored import result_meta
    from fleet.models import BotResult

    mine = {
        "prompt": CANARIES[1].value, "pool": "research", "tenant": TENANT, "metadata": {"about": CANARIES[2].value},
    }  # fmt: skip
    servers.broker.config_set("slowlog-log-slower-than", 0)
    list(submit_many(mine for _ in range(20)))
    servers.broker.config_set("slowlog-log-slower-than", 1000)
    ids = list(submit_many(mine for _ in range(TASKS[size] - 20)))
    list(submit_many({"prompt": "x", "pool": "research", "tenant": NEIGHBOUR} for _ in range(NEIGHBOURS[size])))
    for number in range(20):
        result = BotResult(
            task_id=f"done-{number}", status="ok", pool="research", tenant=TENANT, answer=CANARIES[1].value,
            finished_at=time.time(),
        )  # fmt: skip
        servers.state.set(keys.result(result.task_id), result_meta(result))
    assert ids


@contextmanager
def _servers() -> Iterator[Servers]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fleet-keys-", ignore_cleanup_errors=True)))
        before = dict(os.environ)
        clients = list[redis.Redis]()
        for name in ("URL", "STATE_URL"):
            (own := folder / name).mkdir()
            server = RedisServer(own)
            stack.callback(server.stop)
            os.environ[f"FLEET_REDIS__{name}"] = server.url
            clients.append(stack.enter_context(redis.Redis.from_url(server.url)))
            clients[-1].config_set("slowlog-log-slower-than", 1000)
        os.environ |= {"FLEET_HOME": str(folder / "home"), "FLEET_CONFIG": str(folder / "fleet.toml")}
        (folder / "fleet.toml").write_text('[pools.research]\nbots = 3\nprovider = "simulator"\nmodel = "sim-small"\n')
        config.current.cache_clear()
        try:
            yield Servers(folder, *clients)
        finally:
            os.environ.clear()
            os.environ |= before
            config.current.cache_clear()
