"""A fleet whose pools are spread over two brokers, for tests: real servers, and a fleet.toml that says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import config
from fleet.engine.messages.queues import list_key
from fleet.errors import FleetError
from fleet.models import Priority
from fleet.store import keys
from fleet.store.client import connect
from tests.ports import lasting_port
from tests.redis_server import RedisServer, server_program
from tests.waiting import wait_until

#: Seconds until tasks must be done on a busy machine.
WAIT_S = 60
_TOML = """
[pools.research]
bots = 4
[pools.sales-eu]
bots = 4
[pools.sales-us]
bots = 4
[simulator]
latency_ms = {latency_ms}
[worker]
slots = 8
[redis]
url = "{url}"
"""
_BRANCH = """
[redis.brokers.west]
url = "{url}"
pools = {pools}
"""


class TwoBrokers:
    """The main broker, which has the state too, and `west`.

    Args:
        folder: Of the servers' data and of fleet.toml.
        patch: Sets this process' settings.
        latency_ms: Of the simulator.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *, latency_ms: int = 5) -> None:
        self._folder, self._patch, self._latency_ms = folder, patch, latency_ms
        self.main, self.west = (self._server(name) for name in ("main", "west"))
        self.rule("sales-*")

    def url_of(self, server: RedisServer) -> str:
        """Return a server's URL as fleet.toml has it."""
        return server.url

    def rule(self, *pools: str) -> None:
        """Have these pools on `west`, in this process and in those that start from now on."""
        text = _TOML.format(url=self.url_of(self.main), latency_ms=self._latency_ms)
        text += _BRANCH.format(url=self.url_of(self.west), pools=json.dumps(pools)) if pools else ""
        (self._folder / "fleet.toml").write_text(text)
        self._patch.setenv("FLEET_CONFIG", str(self._folder / "fleet.toml"))
        config.current.cache_clear()

    def results(self, task_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the results that there are."""
        with connect(self.main.url) as client:
            rows: Any = client.mget([keys.result(task_id) for task_id in task_ids])
        return [json.loads(row)["result"] for row in rows if row]

    def wait_done(self, task_ids: Sequence[str], what: str = "all tasks have results") -> None:
        """Wait until all of these have ended well."""
        told = lambda: f"{what}: {len(self.results(task_ids))} of {len(task_ids)}"  # noqa: E731
        wait_until(lambda: len(self.results(task_ids)) == len(task_ids), WAIT_S, told)
        assert {one["status"] for one in self.results(task_ids)} == {"ok"}

    def clients(self) -> tuple[redis.Redis, redis.Redis]:
        """Return clients of both."""
        return connect(self.main.url), connect(self.west.url)

    def queued(self, *pools: str) -> int:
        """Return how many tasks of normal priority wait in the lists of some pools at both brokers (count)."""
        lists = [list_key(keys.queue(pool), Priority.NORMAL.value) for pool in pools]
        return sum(int(client.llen(name)) for client in self.clients() for name in lists)

    def held(self) -> int:
        """Return how many messages workers hold at both (count)."""
        return sum(int(client.hlen(keys.unacked())) for client in self.clients())

    def attempts(self, task_ids: Iterable[str]) -> int:
        """Return how many calls these tasks have cost (count)."""
        return sum(int(one["attempts"]) for one in self.results(list(task_ids)))

    def stop(self) -> None:
        self.main.stop()
        self.west.stop()

    def _server(self, name: str) -> RedisServer:
        folder = self._folder / name
        folder.mkdir()
        return RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always")


class WatchedBrokers(TwoBrokers):
    """The same, found through one Sentinel that watches both; arguments as of `TwoBrokers`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *, latency_ms: int = 5) -> None:
        self._sentinel_port = lasting_port()
        super().__init__(folder, patch, latency_ms=latency_ms)
        path = folder / "sentinel.conf"
        lines = [f"port {self._sentinel_port}", "bind 127.0.0.1", f'dir "{folder}"', f'logfile "{folder}/sentinel.log"']
        lines += [
            f"sentinel monitor {name} 127.0.0.1 {one.port} 1" for name, one in (("a", self.main), ("b", self.west))
        ]
        path.write_text("\n".join(lines) + "\n")
        self._sentinel = subprocess.Popen([str(server_program()), str(path), "--sentinel"], stdout=subprocess.DEVNULL)
        wait_until(self._is_known, WAIT_S, "the Sentinel knows both")

    def url_of(self, server: RedisServer) -> str:
        name = "a" if server is self.main else "b"
        return f"sentinel://127.0.0.1:{self._sentinel_port}/0?master_name={name}"

    def stop(self) -> None:
        self._sentinel.kill()
        self._sentinel.wait()
        super().stop()

    def _is_known(self) -> bool:
        try:
            with connect(f"redis://127.0.0.1:{self._sentinel_port}", timeout_s=1) as client:
                return all(client.sentinel_master(name)["is_master"] for name in "ab")
        except FleetError:  # it has just been started
            return False
