"""Places that a list has lost are put back: on a real Redis, as after a worker of a release that knows no flows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
import redis

from fleet.cli.setup.place_checks import place_checks
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.fair.places import fill_places, lost_places
from fleet.engine.transport.withdrawal.withdrawn import withdraw
from fleet.store import flow_keys
from fleet.store.client import Store, connect
from tests.engine.messages.fair.line import PLACE, QUEUE, SETTINGS, names, put, take


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def fill(url: str) -> int:
    async def run() -> int:
        store = Store(url)
        try:
            return await fill_places(store, SETTINGS)
        finally:
            await store.close()

    return asyncio.run(run())


def test_lost_places_are_counted_and_put_back(client: redis.Redis, redis_url: str) -> None:
    put(client, *(f"n{n}" for n in range(5)))
    put(client, *(f"a{n}" for n in range(10)), tenant="a")
    put(client, *(f"b{n}" for n in range(10)), tenant="b")
    assert len(take(client, 4)) == 4
    assert (lost_places(client, SETTINGS), fill(redis_url)) == ({}, 0)
    client.delete(PLACE)
    waiting = 21 - 1  # the fifth of no tenant stood in the list itself
    assert lost_places(client, SETTINGS) == {QUEUE: waiting}
    (check,) = place_checks(lost_places(client, SETTINGS))
    assert (check.name, check.level) == (f"queue {QUEUE}: tenants", "warn")
    assert check.found.startswith("20 tasks of tenants more than LLEN")
    assert fill(redis_url) == client.llen(PLACE) == waiting
    assert (lost_places(client, SETTINGS), fill(redis_url)) == ({}, 0)
    assert len(names(take(client, 30))) == waiting
    assert client.llen(PLACE) == 0


def test_what_was_withdrawn_gets_no_place(client: redis.Redis, redis_url: str) -> None:
    put(client, *(f"a{n}" for n in range(10)), tenant="a")
    task_id = json.loads(client.lindex(flow_keys.flow(flow_of("a"), PLACE), 4) or b"")["headers"]["id"]
    next(step for step in withdraw(client, QUEUE, "ids", [task_id]) if step.found)  # its hole stays
    assert fill(redis_url) == 0
    assert client.llen(PLACE) == 9


def test_a_fleet_without_tenants_is_asked_once(client: redis.Redis, redis_url: str) -> None:
    put(client, "n")
    assert fill(redis_url) == 0
    assert client.llen(PLACE) == 1
