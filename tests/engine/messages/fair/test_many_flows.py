"""A queue with thousands of tenants: walks and searches take round trips by the hundred flows, not for each."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis

from fleet.engine.messages.broker import enqueue
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.transport.withdrawal import message_search
from fleet.engine.transport.withdrawal.withdrawn import CLAIM_S, claim, renew, withdraw, withdraw_matching
from fleet.store import flow_keys, keys
from fleet.store.client import connect
from tests.engine.messages.fair.line import PLACE, QUEUE, SETTINGS, name_in, parts_of, put, take

#: Tenants, of which each has one task (count).
MANY = 2000


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        parts = [part for n in range(MANY) for part in parts_of(f"t{n}", f"tenant{n}")]
        enqueue(client, parts, SETTINGS)
        yield client


def id_of(client: redis.Redis, tenant: str) -> str:
    """Return the id of a tenant's next task."""
    message = client.lindex(flow_keys.flow(flow_of(tenant), PLACE), -1) or b""
    return str(json.loads(message)["headers"]["id"])


def commands(client: redis.Redis) -> int:
    """Return how often the server has read from its clients: round trips, about."""
    return int(client.info("stats")["total_reads_processed"])


def test_a_walk_and_a_search_cost_few_round_trips(client: redis.Redis) -> None:
    task_id = id_of(client, "tenant1999")
    before = commands(client)
    found = message_search.find_queued(client, task_id, SETTINGS).found
    assert found is not None and found.others == MANY - 1
    assert commands(client) - before < MANY / 4
    before = commands(client)
    assert message_search.find_at_heads(client, task_id, SETTINGS).complete is False
    assert commands(client) - before < 40
    before = commands(client)
    assert [one for step in withdraw(client, QUEUE, "over") for one in step.found] == []
    assert commands(client) - before < MANY / 4


def test_what_is_meant_is_found_in_each_flow(client: redis.Redis) -> None:
    put(client, *(f"long{n}" for n in range(40)), tenant="long")
    task_id = id_of(client, "tenant7")
    (one,) = [one for step in withdraw(client, QUEUE, "ids", [task_id]) for one in step.found]
    assert json.loads(one.message)["headers"]["id"] == task_id
    walk = withdraw_matching(client, QUEUE, lambda message: message[:1] == b"{" and name_in(message)[:4] == "long")
    assert len([one for step in walk for one in step.found]) == 40
    assert client.llen(PLACE) == MANY - 1
    everything = [one for step in withdraw(client, QUEUE, "all") for one in step.found]
    assert len(everything) == MANY - 1
    assert len({one.tag for one in everything}) == MANY - 1
    assert client.llen(PLACE) == 0
    assert take(client, 1) == []


def test_a_claim_is_renewed_while_its_walk_goes_on(client: redis.Redis) -> None:
    client.zadd(keys.ends(), {QUEUE: 1})
    claimed = claim(client)
    assert claimed is not None
    client.zadd(keys.ends(), {QUEUE: float(claimed[1]) - CLAIM_S / 2})
    claimed = (claimed[0], str(float(claimed[1]) - CLAIM_S / 2))
    renewed = renew(client, claimed)
    assert float(renewed[1]) > float(claimed[1]) + CLAIM_S / 4
    assert client.zscore(keys.ends(), QUEUE) == float(renewed[1])
    client.zadd(keys.ends(), {QUEUE: 5})  # a task with a sooner end has come
    assert renew(client, renewed) == renewed
    assert client.zscore(keys.ends(), QUEUE) == 5
