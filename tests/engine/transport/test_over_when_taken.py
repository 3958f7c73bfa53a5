"""Tasks whose end has passed in an open queue, on a real Redis: takes put them aside in bulk, and nobody loses them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis

from fleet.engine.messages.envelope import TASK_NAME, envelope, fresh_envelope, task_headers, task_id_in
from fleet.engine.messages.queues import list_key
from fleet.engine.transport import leases
from fleet.engine.transport.withdrawal.withdrawn import GONE, GONE_MOST, acknowledge, withdraw, withdraw_over
from fleet.store import keys
from fleet.store.client import connect, run_script
from tests.engine.transport.test_holds import Taker, both, hold

#: What a take puts aside at most (count), as take.lua has it.
MOST_OVER = 256


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def put(client: redis.Redis, *messages: bytes, priority: int = 2) -> None:
    client.lpush(list_key("q", priority), *messages)
    client.zadd(keys.waiting(priority), {"q": 0})


def task(task_id: str, ends_in_s: float | None = None) -> bytes:
    end = None if ends_in_s is None else time.time() + ends_in_s
    return fresh_envelope(
        task_id=task_id, queue="q", priority=2, body=b"[]", queued_at=time.time() - 10, expires_at=end
    )


def ids(taken: list[str]) -> list[str | None]:
    return [task_id_in(message.encode()) for message in taken]


@both
def test_a_take_skips_what_is_over_in_bulk_and_hands_out_what_lies_behind_it(
    client: redis.Redis, queues: tuple[str, ...]
) -> None:
    put(client, *(task(f"late {n}", -5) for n in range(2 * MOST_OVER + 10)))
    put(client, task("fresh"), task("ends later", 60))
    put(client, task("less urgent"), priority=4)
    taker = Taker(client, queues)
    takes = [taker.take(wanted=2) for _ in range(3)]
    assert [ids(taken) for taken in takes] == [["less urgent"], [], ["fresh", "ends later"]]
    assert client.llen(keys.over()) == 2 * MOST_OVER + 10
    assert client.hlen(keys.unacked()) == 3
    assert taker.take() == []
    assert taker.sleeps_ms == -1  # nothing is left: it would sleep


def test_what_is_over_uses_no_probe_and_no_room(client: redis.Redis) -> None:
    put(client, *(task(f"late {n}", -5) for n in range(10)), task("a"), task("b"))
    hold(client, opens_in_s=0, probe_every_s=60)
    client.set(keys.room("q"), "0 0 1 1 1 1", px=60_000)
    taker = Taker(client, ("q",))
    assert ids(taker.take(wanted=5)) == ["a"]
    assert taker.take(wanted=5) == []
    assert client.llen(keys.over()) == 10


@pytest.mark.parametrize("zone", ["+00:00", "", "Z", "+05:30", "-08:00"])
@pytest.mark.parametrize("day", [None, "2024-02-29", "2000-03-01", "2100-12-31"])
def test_an_end_of_a_plain_client_is_read_to_the_second(client: redis.Redis, zone: str, day: str | None) -> None:
    def message(ends: datetime) -> bytes:
        text = ends.replace(tzinfo=None).isoformat() + zone
        headers = task_headers("t") | {"expires": text}
        raw = json.loads(envelope(task_id="t", queue="q", priority=2, headers=headers, body=b"[]"))
        return json.dumps(raw).encode()  # as kombu writes it

    ahead = timedelta(hours={"+": 5.5, "-": -8.0}.get(zone[:1], 0.0) if zone != "+00:00" else 0.0)
    if day is None:
        now = datetime.now(UTC) + ahead
        put(client, message(now - timedelta(seconds=1)), message(now + timedelta(seconds=60)))
        assert len(Taker(client, ("q",)).take()) == 1
        assert client.llen(keys.over()) == 1
    else:
        ends = datetime.fromisoformat(f"{day}T12:00:00")
        put(client, message(ends))
        assert len(Taker(client, ("q",)).take()) == (ends.year == 2100)


def test_tasks_of_others_and_ends_inside_a_prompt_are_nobody_s_business(client: redis.Redis) -> None:
    own = task_headers("own") | {"task": "own.task", "fleet_expires": 1.0}
    tricky = task_headers("tricky") | {"note": '"fleet_expires": 1.0'}
    put(client, envelope(task_id="own", queue="q", priority=2, headers=own, body=b"[]"))
    put(client, envelope(task_id="tricky", queue="q", priority=2, headers=tricky, body=b'[["fleet_expires": 1.0]]'))
    assert TASK_NAME in task("x").decode()
    assert ids(Taker(client, ("q",)).take()) == ["own", "tricky"]


def test_who_ends_them_may_die_and_an_idempotency_mark_knows_where_they_are(client: redis.Redis) -> None:
    put(client, b'{"mark":"m1",' + task("late", -5)[1:])
    client.set(keys.submitted("m1"), "x")
    assert Taker(client, ("q",)).take() == []
    epoch = client.hget(keys.epochs(), keys.over())
    assert client.get(keys.submitted("m1")) == b"q|%b|%b" % (epoch, keys.over().encode())
    (stretch,) = withdraw_over(client)
    (held,) = stretch.found
    assert client.get(keys.submitted("m1")) == f"t|{held.tag}".encode()
    assert client.llen(keys.over()) == 0
    run_script(client, leases.RESTORE, *leases.restore_call([held.tag]))  # killed right here: its lease runs out
    assert client.llen(keys.over()) == 1
    (stretch,) = withdraw_over(client)
    acknowledge(client, stretch.found)
    assert client.llen(keys.over()) == client.hlen(keys.unacked()) == client.zcard(keys.unacked_index()) == 0


def test_a_walk_deep_into_a_list_leaves_no_empty_place_and_the_others_in_order(client: redis.Redis) -> None:
    put(client, *(task(f"{n}", -5 if n % 2 else None) for n in range(2 * GONE_MOST + 500)))
    found = [one for stretch in withdraw(client, "q", "over") for one in stretch.found]
    assert [task_id_in(one.message) for one in found] == [f"{n}" for n in range(1, 2 * GONE_MOST + 500, 2)]
    left = client.lrange(list_key("q", 2), 0, -1)
    assert [task_id_in(message) for message in reversed(left)] == [f"{n}" for n in range(0, 2 * GONE_MOST + 500, 2)]


def test_of_a_walk_that_died_no_task_is_lost_and_its_empty_places_are_nobody_s_task(client: redis.Redis) -> None:
    put(client, *(task(f"{n}", -5 if n % 2 else None) for n in range(20)))
    walk = withdraw(client, "q", "over")
    held = next(walk).found  # killed right here
    assert client.lrange(list_key("q", 2), 0, -1).count(GONE) == len(held) == 10
    assert ids(Taker(client, ("q",)).take(wanted=20)) == [f"{n}" for n in range(0, 20, 2)]
    assert client.llen(keys.over()) == client.llen(list_key("q", 2)) == 0
    run_script(client, leases.RESTORE, *leases.restore_call([one.tag for one in held]))  # their leases run out
    assert Taker(client, ("q",)).take(wanted=20) == []
    assert client.llen(keys.over()) == 10
