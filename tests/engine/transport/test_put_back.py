"""What a worker puts back because it must wait, on a real Redis: where it comes to lie, and what it takes along."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from fleet.engine.messages import weight
from fleet.engine.messages.envelope import BEFORE, envelope, task_headers
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.outcomes.results import before_of
from fleet.engine.transport import leases
from fleet.engine.transport.parking.parked import find_parked
from fleet.engine.transport.parking.waiting import PutBack, put_back, with_before
from fleet.engine.transport.rota import Rota
from fleet.outcome import Before
from fleet.store import keys
from fleet.store.client import Store, connect, run_script
from fleet.usage import Usage
from fleet.waits import Wait
from tests.waiting import wait_until

QUEUE = "fleet.research"
HAD = Before(attempts=2, tries=1, usage=Usage(input_tokens=7), cost_usd_picos=5, parked=1, failed={"RateLimited": 1})
OUTAGE = Wait("outage", 5.0, "openai/gpt/key", "it said\n503")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    leases._HOLDINGS.clear()
    with connect(redis_url) as client:
        yield client


def message(task_id: str, **headers: Any) -> bytes:
    return envelope(
        task_id=task_id, queue=QUEUE, priority=2, headers={**task_headers(task_id), **headers}, body=b'[[],{"a":1},{}]'
    )


def queue_up(client: redis.Redis, *messages: bytes) -> None:
    for one in messages:
        client.lpush(list_key(QUEUE, 2), one)
        client.zadd(keys.waiting(2), {QUEUE: 0})


def take(client: redis.Redis, wanted: int = 1) -> list[tuple[str, bytes]]:
    """Take messages as a worker does, and return tag and text of each."""
    holdings = leases.holdings_of("test")
    call = Rota([QUEUE], PRIORITY_STEPS).take(wanted=wanted, guarded=0, prefix=holdings.next_prefix(), acks=())
    client.script_load(leases.TAKE.text)
    reply: Any = client.evalsha(leases.TAKE.sha, *call)
    found = [] if len(reply) == 2 else [(tag.decode(), text) for tag, text in zip(reply[::3], reply[2::3], strict=True)]
    holdings.held.update(dict.fromkeys(tag for tag, _ in found))
    return found


def give(redis_url: str, *gone: PutBack) -> list[bool]:
    async def run() -> list[bool]:
        store = Store(redis_url)
        try:
            return [await put_back(store, one) for one in gone]
        finally:
            await store.close()

    return asyncio.run(run())


def ids(found: list[tuple[str, bytes]]) -> list[str]:
    return [json.loads(text)["headers"]["id"] for _, text in found]


def test_what_was_not_sent_comes_back_to_its_old_place_and_nobody_holds_it(client: redis.Redis, redis_url: str) -> None:
    queue_up(client, message("a"), message("b"))
    ((tag, text),) = take(client)
    assert give(redis_url, PutBack(tag, "a", OUTAGE)) == [True]
    assert client.hlen(keys.unacked()) == client.zcard(keys.unacked_index()) == 0
    assert tag not in leases.holdings_of("test").held
    assert leases.holdings_of("test").take_acks() == []
    again = take(client, 2)
    assert ids(again) == ["a", "b"]
    assert again[0][1] == text  # nothing to take along


def test_what_has_failed_a_call_comes_back_behind_the_others_and_what_only_waited_before_them(
    client: redis.Redis, redis_url: str
) -> None:
    queue_up(client, message("sent"), message("waited"), message("later"))
    (first, _), (second, _) = take(client, 2)
    soon = time.time() + 0.3
    done = give(redis_url, PutBack(first, "sent", OUTAGE, soon, sent=True), PutBack(second, "waited", OUTAGE, soon))
    assert done == [True, True]
    parked = find_parked(client, "sent")
    assert parked is not None
    assert Wait.from_json(parked.reason) == Wait("outage", 5.0, "openai/gpt/key", "it said\n503")
    wait_until(lambda: time.time() > soon, 10, "the time has come")
    assert ids(take(client, 3)) == ["waited", "later", "sent"]


def test_any_number_of_messages_is_acknowledged_in_one_step(client: redis.Redis) -> None:
    tags = [f"h.1.p:0:{number}" for number in range(2500)]
    client.hset(keys.unacked(), mapping=dict.fromkeys([*tags, "held"], f"{QUEUE}\n{{}}"))
    client.zadd(keys.unacked_index(), dict.fromkeys([*tags, "held"], 1))
    run_script(client, leases.TAKE, *leases.take_call("", (), wanted=0, acks=tags))
    assert client.hkeys(keys.unacked()) == client.zrange(keys.unacked_index(), 0, -1) == [b"held"]


def test_workers_are_woken_only_where_the_message_may_be_taken(client: redis.Redis, redis_url: str) -> None:
    def rings() -> bool:
        ((tag, _),) = take(client)
        for key, value in stops.items():
            client.set(key, value)
        before = client.xrevrange(keys.bell(), count=1)
        assert give(redis_url, PutBack(tag, "a", OUTAGE)) == [True]
        client.delete(keys.hold(QUEUE), keys.gate(QUEUE))
        return client.xrevrange(keys.bell(), count=1) != before

    queue_up(client, message("a"))
    for stops, is_woken in (
        ({}, True),
        ({keys.hold(QUEUE): OUTAGE.to_json()}, False),
        ({keys.hold(QUEUE): Wait("limit", lowest=2).to_json()}, True),  # not this priority
        ({keys.hold(QUEUE): "not a wait"}, False),
        ({keys.gate(QUEUE): "1"}, False),
        ({keys.gate(QUEUE): "2"}, True),
    ):
        assert rings() == is_woken, stops


def test_a_call_that_is_repeated_or_comes_too_late_changes_nothing(client: redis.Redis, redis_url: str) -> None:
    queue_up(client, message("a"))
    ((tag, _),) = take(client)
    gone = PutBack(tag, "a", OUTAGE, before=HAD)
    assert give(redis_url, gone, gone) == [True, False]
    ((other, _),) = take(client)
    assert other != tag
    assert give(redis_url, gone) == [False]
    assert client.llen(list_key(QUEUE, 2)) == 0
    assert client.hlen(keys.unacked()) == 1


def test_what_a_task_has_had_travels_in_its_message(client: redis.Redis, redis_url: str) -> None:
    queue_up(client, message("a"))
    ((tag, text),) = take(client)
    give(redis_url, PutBack(tag, "a", OUTAGE, before=HAD))
    ((_, back),) = take(client)
    content, was = json.loads(back), json.loads(text)
    assert before_of(content["headers"]) == HAD
    del content["headers"][BEFORE]
    assert content == was


def test_a_message_with_a_mark_is_told_where_it_lies_and_keeps_it_in_front(client: redis.Redis, redis_url: str) -> None:
    queue_up(client, b'{"mark":"m1",' + message("a")[1:])
    client.set(keys.submitted("m1"), "x")
    ((tag, _),) = take(client)
    give(redis_url, PutBack(tag, "a", OUTAGE, before=HAD))
    assert client.get(keys.submitted("m1")).startswith(b"q|")
    ((tag, _),) = take(client)
    assert client.get(keys.submitted("m1")) == f"t|{tag}".encode()
    give(redis_url, PutBack(tag, "a", OUTAGE, time.time() + 60, before=HAD))
    assert client.get(keys.submitted("m1")) == b"p|a"


def test_a_suspect_goes_back_as_one_and_another_task_never_becomes_one(client: redis.Redis, redis_url: str) -> None:
    queue_up(client, message("a"), message("b"))
    (tag, _), (other, _) = take(client, 2)
    client.hset(keys.unacked(), tag + leases.SUSPECT, client.hget(keys.unacked(), tag))
    client.hdel(keys.unacked(), tag)
    give(redis_url, PutBack(tag + leases.SUSPECT, "a", OUTAGE, before=HAD), PutBack(other, "b", OUTAGE, before=HAD))
    found = {json.loads(text)["headers"]["id"]: tag for tag, text in take(client, 2)}
    assert {task_id: leases.is_suspect(tag) for task_id, tag in found.items()} == {"a": True, "b": False}


@pytest.mark.parametrize(
    "odd",
    [
        b"not json", b"[1]", b'{"headers": 3}', b'{"no": "headers"}',
        message("big", filler="x" * (weight.MAX_MESSAGE_BYTES - 700)),
    ],
    ids=["no json", "no object", "no headers in it", "none at all", "as long as any may be"],
)  # fmt: skip
def test_a_message_that_takes_nothing_along_goes_back_as_it_came(odd: bytes) -> None:
    had = Before(failed={f"Error{n}": n for n in range(60)})
    assert with_before(odd, had) == odd


def test_what_a_plain_client_has_written_stays_as_it_was() -> None:
    theirs = '{"body": "W1tdXQ==", "headers": {"id": "a", "x": "\\ud83d half \\ud800", "big": 12345678901234567890123}}'
    changed = json.loads(with_before(theirs.encode(), HAD))
    assert changed["headers"].pop(BEFORE)["tries"] == 1
    assert changed == json.loads(theirs)
