"""The Redis servers of a fleet as a backup sees them: which keys are Fleet's, and that nothing changes meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import translate
from typing import Any, NamedTuple, cast

import redis

from fleet.config import Settings
from fleet.engine.operations.backup.file import Role
from fleet.engine.operations.roles import key_patterns
from fleet.errors import ConfigurationError, StoreError
from fleet.store import keys

#: Keys asked for in one step of a walk (count).
SCAN_COUNT = 1000
#: Milliseconds for which writes are held at a time: should this process die, Redis goes on after that.
HOLD_MS = 5000


class BackedServer(NamedTuple):
    """One server, and what it does; one that does both is the broker."""

    role: Role
    client: redis.Redis

    @property
    def told(self) -> str:
        """Its kind and version."""
        info: Any = self.client.info("server")
        version = info.get("valkey_version")
        return f"Valkey {version}" if version else f"Redis {info['redis_version']}"


def check(servers: list[BackedServer]) -> None:
    """Refuse servers of which one connection does not see all keys.

    Raises:
        ConfigurationError: For a node of a Redis Cluster.
    """
    for server in servers:
        info: Any = server.client.info("cluster")
        if info.get("cluster_enabled"):
            raise ConfigurationError(
                f"{server.role}: expected one Redis server, got a node of a Redis Cluster; back up each node by "
                "its own snapshot (BGSAVE)"
            )


def own_keys(server: BackedServer, settings: Settings) -> Iterator[list[bytes]]:
    """Yield the keys of this fleet on a server, some at a time; one may come twice, as with any walk of Redis."""
    prefix, cursor = keys.lists(""), 0
    is_own = re.compile("|".join(map(translate, key_patterns(settings)))).match
    while True:
        cursor, found = server.client.scan(cursor, match=f"{prefix}*" if prefix else None, count=SCAN_COUNT)
        some = [key for key in cast("list[bytes]", found) if is_own(key.decode("utf-8", "replace"))]
        if some:
            yield some
        if cursor == 0:
            return


@contextmanager
def held(servers: list[BackedServer]) -> Iterator[None]:
    """Let nobody write to the servers within this block; what wants to waits. The broker is held first.

    Raises:
        StoreError: When a server lets nobody do this, or something was written all the same.
    """
    before = {}
    for server in servers:
        hold(server)
    try:
        before = {server.role: _changes(server) for server in servers}
        yield
        changed = [server.role for server in servers if _changes(server) != before[server.role]]
    finally:
        for server in servers:
            server.client.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]
    if changed:
        raise StoreError(
            f"{changed[0]}: expected no writes while they were held, got some; nothing was kept, try again"
        )


def hold(server: BackedServer) -> None:
    """Hold writes for a moment more."""
    try:
        server.client.execute_command("CLIENT", "PAUSE", HOLD_MS, "WRITE")  # type: ignore[no-untyped-call]
    except redis.ResponseError as error:
        raise StoreError(
            f"{server.role}: expected a Redis that holds writes (CLIENT PAUSE), got: {error}; without that a backup "
            "would lose or double tasks that move. Allow the command to this user, or use the server's own snapshots"
        ) from error


def _changes(server: BackedServer) -> tuple[int, int]:
    """Return what tells of writes: changes since the last save, and when that was."""
    info: Any = server.client.info("persistence")
    return int(info["rdb_changes_since_last_save"]), int(info["rdb_last_save_time"])
