"""A throw-away Redis master, its replica and three Sentinels for tests: to be failed over."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.store.client import connect, store_errors
from tests.ports import lasting_port
from tests.redis_server import RedisServer, server_program
from tests.waiting import wait_until

MASTER_NAME = "fleet-test"
#: Sentinels, and how many must agree that the master is down.
SENTINELS, QUORUM = 3, 2
#: Milliseconds of silence after which a Sentinel thinks a server down: as short as a busy machine allows.
DOWN_AFTER_MS = 1500
_CONFIG = """\
port {port}
bind 127.0.0.1
dir "{folder}"
logfile "{folder}/sentinel.log"
sentinel monitor {name} 127.0.0.1 {master} {quorum}
sentinel down-after-milliseconds {name} {down_after_ms}
sentinel failover-timeout {name} 10000
"""


class SentinelStack:
    """Two Redis servers, the second a replica of the first, and Sentinels. Started by the constructor.

    Args:
        folder: Where all of them keep their files.
        options: Further options of both Redis servers.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        first = self._server("one", *options)
        second = self._server("two", *options, "--replicaof", "127.0.0.1", str(first.port))
        self.servers = [first, second]
        self._ports = [lasting_port() for _ in range(SENTINELS)]
        self._sentinels = [self._sentinel(port, first.port) for port in self._ports]
        places = ";".join(f"sentinel://127.0.0.1:{port}/0" for port in self._ports)
        self.url = f"{places}?master_name={MASTER_NAME}"
        try:
            wait_until(self.replicates, 20, "the replica is in step with its master")
            wait_until(self._agree, 30, "the Sentinels know each other and the replica")
        except BaseException:
            self.stop()
            raise

    @property
    def master(self) -> RedisServer:
        """The server that is the master now, as the Sentinels say; waits until it answers."""
        found: list[int] = []

        def ask() -> bool:
            with connect(f"redis://127.0.0.1:{self._ports[-1]}", timeout_s=1) as client:
                found[:] = [int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])]
            return True

        wait_until(ask, 10, "a Sentinel answers")
        return next(server for server in self.servers if server.port == found[0])

    def kill(self) -> None:
        """kill -9 of the master, and wait until the other is master in its place."""
        old = self.master
        old.kill()
        wait_until(lambda: self.master is not old, 60, "the Sentinels promote the replica")

    def start(self) -> None:
        """Start what is dead, and wait until the Sentinels have made it a replica that is in step."""
        for server in self.servers:
            if not server.alive:
                server.start()
        wait_until(self.replicates, 60, "the old master is a replica")

    def freeze(self) -> None:
        """SIGSTOP of the master."""
        self.master.freeze()

    def thaw(self) -> None:
        for server in self.servers:
            if server.alive:
                server.thaw()

    def replicates(self) -> bool:
        """True when a master has a replica that is in step."""
        return any(server.alive and _has_replica(server) for server in self.servers)

    def stop(self) -> None:
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()
        for server in self.servers:
            server.stop()

    def _server(self, name: str, *options: str) -> RedisServer:
        folder = self._folder / name
        folder.mkdir()
        return RedisServer(folder, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", *options)

    def _sentinel(self, port: int, master: int) -> subprocess.Popen[bytes]:
        folder = self._folder / f"sentinel-{port}"
        folder.mkdir()
        path = folder / "sentinel.conf"
        path.write_text(
            _CONFIG.format(
                port=port, folder=folder, name=MASTER_NAME, master=master, quorum=QUORUM, down_after_ms=DOWN_AFTER_MS
            )
        )
        return subprocess.Popen([str(server_program()), str(path), "--sentinel"], stdout=subprocess.DEVNULL)

    def _agree(self) -> bool:
        for port in self._ports:
            try:
                with connect(f"redis://127.0.0.1:{port}", timeout_s=5) as client:
                    facts = client.sentinel_master(MASTER_NAME)
            except FleetError:  # it has just been started
                return False
            if int(facts["num-other-sentinels"]) < SENTINELS - 1 or int(facts["num-slaves"]) < 1:
                return False
        return True


def _has_replica(server: RedisServer) -> bool:
    try:
        with connect(server.url, timeout_s=5) as client, store_errors(server.url):
            facts: dict[str, Any] = client.info("replication")  # type: ignore[assignment]
    except FleetError:  # Sentinels cut the connections of a server whose role they change
        return False
    return facts["role"] == "master" and facts.get("slave0", {}).get("state") == "online"
