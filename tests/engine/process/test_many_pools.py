"""A worker of hundreds of pools: what it asks of Redis as it starts does not grow with each of them."""

from __future__ import annotations

import asyncio

from kombu import Connection, Consumer, Exchange, Queue

from fleet import config
from fleet.engine.messages.queues import PRIORITY_STEPS
from fleet.engine.process.breaking import open_mended
from fleet.engine.transport import channel, leases
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.every import every

POOLS = 300
SETTINGS = config.Settings.model_validate({"pools": {f"p{number}": {"bots": 1} for number in range(POOLS)}})
NAMES = [keys.queue(pool) for pool in SETTINGS.pools]


def reads(url: str) -> int:
    """Return how often Redis has read from a connection: about once for each round trip."""
    with connect(url) as client:
        return int(client.info("stats")["total_reads_processed"])


def test_all_queues_of_a_worker_are_bound_in_a_few_round_trips(redis_url: str) -> None:
    leases._HOLDINGS.clear()
    options = {"priority_steps": PRIORITY_STEPS, "visibility_timeout": 1}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        opened = connection.default_channel
        before = reads(redis_url)
        with opened.declaring():
            Consumer(opened, [Queue(name, Exchange(name), routing_key=name) for name in NAMES])
        assert reads(redis_url) - before < POOLS / 5
        with connect(redis_url) as client:
            assert every(client.exists(f"_kombu.binding.{name}") for name in NAMES)
        assert opened.queue_declare(NAMES[0]).message_count == 0
        with connection.Producer() as producer:
            producer.publish("x", exchange="", routing_key=NAMES[0], priority=2)
        assert opened.queue_declare(NAMES[0]).message_count == 1  # it counts again


def test_a_queue_that_expires_is_bound_beside_the_others(redis_url: str) -> None:
    """Given one in a user's `task_queues`: kombu keeps its binding alive by a script of its own."""
    leases._HOLDINGS.clear()
    own = Queue("own", Exchange("own"), routing_key="own", expires=60)
    with Connection(redis_url, transport=channel.Transport) as connection, connect(redis_url) as client:
        opened = connection.default_channel
        with opened.declaring():
            Consumer(opened, [Queue(NAMES[0], Exchange(NAMES[0]), routing_key=NAMES[0]), own])
        assert every(client.exists(f"_kombu.binding.{name}") for name in (NAMES[0], "own"))
        with connection.Producer() as producer:
            producer.publish("x", exchange="own", routing_key="own", priority=2)
        assert opened.queue_declare("own").message_count == 1


def test_the_holds_of_all_pools_are_looked_at_together(redis_url: str) -> None:
    async def work() -> None:
        store = Store(redis_url)
        try:
            await store.command("PING")
            before = reads(redis_url)
            await open_mended(store, SETTINGS, SETTINGS.pools, {f"simulator/{SETTINGS.pools['p0'].model}/default"})
            assert reads(redis_url) - before < POOLS / 5
        finally:
            await store.close()

    asyncio.run(work())
