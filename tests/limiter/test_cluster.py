"""The limiter on a real Redis Cluster of three nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from fleet.config import LimitSettings
from fleet.errors import DeadlineExceeded, StoreUnavailable
from fleet.limiter import Limiter, open_limiter
from fleet.store import keys
from fleet.store.client import connect
from tests.every import every
from tests.ports import is_free, lasting_port
from tests.redis_server import RedisServer
from tests.waiting import wait_until

MODELS = [f"provider/model-{number}" for number in range(12)]
SLOTS = 16384


def node_port() -> int:
    """Return a free port whose bus port, 10,000 above it, is free too, and is no port of outgoing connections."""
    return next(port for port in iter(lasting_port, None) if port < 22_700 and is_free(port + 10_000))


class Cluster:
    """Three masters that share the slots."""

    def __init__(self, folder: Path) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
        )
        self.servers = []
        for number in range(3):
            (folder / f"node-{number}").mkdir()
            self.servers.append(RedisServer(folder / f"node-{number}", *options, port=node_port()))
        self.clients = [connect(server.url) for server in self.servers]
        for number, client in enumerate(self.clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            mine = range(number * SLOTS // 3, (number + 1) * SLOTS // 3)
            client.execute_command("CLUSTER", "ADDSLOTS", *mine)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        wait_until(self._is_whole, 10, "the cluster is whole")
        self.url = f"redis+cluster://127.0.0.1:{self.servers[0].port},127.0.0.1:{self.servers[1].port}"

    def info(self, client: redis.Redis) -> dict[str, Any]:
        found: dict[str, Any] = client.execute_command("CLUSTER INFO")
        return found

    def node_of(self, model: str) -> int:
        """Return the number of the node that has a model's limits."""
        return key_slot(keys.limit(f"{model}/k").encode()) * 3 // SLOTS

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        for server in self.servers:
            server.stop()

    def _is_whole(self) -> bool:
        infos = [self.info(client) for client in self.clients]
        return all(info["cluster_state"] == "ok" and int(info["cluster_slots_ok"]) == SLOTS for info in infos) and all(
            int(info["cluster_known_nodes"]) == 3 for info in infos
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path)
    yield running
    running.stop()


def limits(**rates: Any) -> dict[str, LimitSettings]:
    return {model: LimitSettings(**rates) for model in MODELS}


async def call(limiter: Limiter, limit: str | list[str]) -> None:
    limiter.settle(await limiter.acquire(limit, tokens=100, timeout_s=5), used_tokens=60)


def test_limits_of_many_models_hold_on_three_nodes(cluster: Cluster) -> None:
    async def main() -> list[int]:
        async with open_limiter(cluster.url, limits(rpm=10, burst=0.5)) as limiter:
            await asyncio.gather(*[call(limiter, f"{model}/k") for model in MODELS for _ in range(5)])
            for model in MODELS:
                with pytest.raises(DeadlineExceeded):
                    await limiter.acquire(f"{model}/k", tokens=1, timeout_s=1)
            for model in MODELS:  # the best of two keys: one of them is used up
                await call(limiter, [f"{model}/k", f"{model}/other"])
            return [(await limiter.snapshot(f"{model}/k")).granted_tokens for model in MODELS]

    assert asyncio.run(main()) == [300] * len(MODELS)
    assert every(client.dbsize() > 0 for client in cluster.clients)


def test_a_slot_that_moves_to_another_node_is_followed(cluster: Cluster) -> None:
    model = next(model for model in MODELS if cluster.node_of(model) == 2)
    limit = f"{model}/k"

    async def main() -> int:
        async with open_limiter(cluster.url, limits(rpm=6000)) as limiter:
            await call(limiter, limit)
            cluster.clients[2].flushall()
            ids = [client.execute_command("CLUSTER MYID").decode() for client in cluster.clients]
            for client in reversed(cluster.clients):
                client.execute_command("CLUSTER SETSLOT", key_slot(keys.limit(limit).encode()), "NODE", ids[0])
            await call(limiter, limit)
            return (await limiter.snapshot(limit)).granted

    assert asyncio.run(main()) == 1
    assert cluster.clients[0].exists(keys.limit(limit)) == 1


def test_a_node_that_is_gone_stops_its_own_limits_only(cluster: Cluster) -> None:
    lost = next(model for model in MODELS if cluster.node_of(model) == 1)
    kept = next(model for model in MODELS if cluster.node_of(model) == 2)

    async def main() -> None:
        async with open_limiter(cluster.url, limits(rpm=6000), timeout_s=1) as limiter:
            for model in (lost, kept):
                await call(limiter, f"{model}/k")
            cluster.servers[1].kill()
            with pytest.raises(StoreUnavailable):
                await call(limiter, f"{lost}/k")
            await call(limiter, f"{kept}/k")

    asyncio.run(main())
