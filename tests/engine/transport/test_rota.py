"""Whose turn it is, with few queues (named in each take) and with many (known to wait, or found by a look)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.transport import channel, leases
from fleet.engine.transport.rota import (
    BRING_AT_MOST,
    LOOK,
    LOOK_AGAIN_S,
    LOOK_EVERY_S,
    LOOKED_AT_ONCE,
    MORE,
    NAMED_AT_MOST,
    Rota,
)
from fleet.store import keys
from fleet.store.client import connect
from tests.waiting import wait_until

FEW = tuple(f"q{n:02d}" for n in range(4))
MANY = tuple(f"q{n:02d}" for n in range(NAMED_AT_MOST * 3))
both = pytest.mark.parametrize("queues", [FEW, MANY], ids=["few", "many"])


@pytest.fixture
def broker(redis_url: str) -> Iterator[Connection]:
    leases._HOLDINGS.clear()
    options = {"priority_steps": PRIORITY_STEPS}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        yield connection


def put(broker: Connection, queue: str, *bodies: str, priority: int = 2) -> None:
    with broker.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key=queue, exchange="", priority=priority)


def take(broker: Connection, queues: tuple[str, ...], count: int, prefetch: int = 100) -> list[str]:
    """Return `count` messages as a consumer gets them; each is acknowledged, so that `prefetch` bounds each take."""
    got: list[str] = []

    def receive(message: Any) -> None:
        message.ack()
        got.append(message.payload)

    with broker.Consumer([Queue(name) for name in queues], on_message=receive, prefetch_count=prefetch):
        while len(got) < count:
            broker.drain_events(timeout=5)
    return got


@both
def test_urgent_messages_of_all_queues_come_before_any_less_urgent_one(
    broker: Connection, queues: tuple[str, ...]
) -> None:
    for priority in (4, 0, 2, 1, 3):
        for queue in queues[-3:]:
            put(broker, queue, str(priority), priority=priority)
    assert take(broker, queues, 15) == [str(priority) for priority in range(5) for _ in range(3)]


@both
def test_queues_of_one_priority_take_turns_also_when_others_between_them_are_empty(
    broker: Connection, queues: tuple[str, ...]
) -> None:
    busy = queues[0], queues[2], queues[3]
    for queue in busy:
        put(broker, queue, *[queue] * 4)
    got = take(broker, queues, 12, prefetch=1)
    for start in range(0, 12, 3):
        assert sorted(got[start : start + 3]) == sorted(busy), got


@both
def test_each_priority_keeps_its_own_turn(broker: Connection, queues: tuple[str, ...]) -> None:
    for queue in queues[:2]:
        put(broker, queue, *[f"{queue} normal"] * 4)
    got: list[str] = []

    def receive(message: Any) -> None:
        message.ack()
        got.append(message.payload)
        if message.payload != "urgent":  # before each next normal one: its turn must not favour the second queue
            put(broker, queues[0], "urgent", priority=0)

    with broker.Consumer([Queue(name) for name in queues], on_message=receive, prefetch_count=1):
        while got.count("urgent") < 4:
            broker.drain_events(timeout=5)
    assert sorted(body for body in got if body != "urgent") == sorted(f"{queue} normal" for queue in queues[:2] * 2)


@both
def test_a_gate_stops_its_queue_alone(broker: Connection, redis_url: str, queues: tuple[str, ...]) -> None:
    redis = connect(redis_url)
    redis.set(keys.gate(queues[0]), "-1")
    redis.set(keys.gate(queues[1]), "1")
    put(broker, queues[0], "closed", priority=0)
    put(broker, queues[1], "high", priority=1)
    put(broker, queues[1], "normal", priority=2)
    put(broker, queues[2], "bulk", priority=4)
    assert take(broker, queues, 2) == ["high", "bulk"]
    redis.delete(keys.gate(queues[0]), keys.gate(queues[1]))
    assert take(broker, queues, 2) == ["closed", "normal"]


@both
def test_one_message_in_32_is_the_least_urgent_one_that_waits(broker: Connection, queues: tuple[str, ...]) -> None:
    put(broker, queues[1], *["urgent"] * 100, priority=0)
    put(broker, queues[2], "bulk", priority=4)
    assert 32 <= take(broker, queues, 101, prefetch=8).index("bulk") <= 32 + 8


@both
def test_messages_of_producers_that_do_not_announce_them_are_found(
    broker: Connection, redis_url: str, queues: tuple[str, ...]
) -> None:
    put(broker, queues[0], "ours")
    redis = connect(redis_url)
    (message,) = redis.lrange(list_key(queues[0], 2), 0, -1)
    foreign = json.loads(message) | {"body": base64.b64encode(b"foreign").decode()}
    for place in (list_key(queues[1], 0), list_key(queues[-1], 4)):
        redis.lpush(place, json.dumps(foreign))
    assert sorted(take(broker, queues, 3)) == ["foreign", "foreign", "ours"]


@both
def test_what_plain_clients_queue_under_steps_of_their_own_comes_home_in_its_order(
    broker: Connection, redis_url: str, queues: tuple[str, ...]
) -> None:
    redis = connect(redis_url)
    put(broker, queues[1], "own", priority=4)
    for steps, separator in ((None, None), (list(range(10)), ":")):
        options = {"priority_steps": steps, "sep": separator} if steps else {}
        with Connection(redis_url, transport_options=options) as client, client.Producer() as producer:
            for number in (6, 7, 9):
                producer.publish(f"{separator} {number}", routing_key=queues[1], exchange="", priority=number)
    assert take(broker, queues, 7)[:3] == ["own", "None 6", "None 7"]
    assert not [name for name in redis.keys("*") if name.startswith(queues[1].encode())]  # type: ignore[union-attr]


def test_what_only_looks_like_another_clients_list_stays_where_it_is(broker: Connection, redis_url: str) -> None:
    redis = connect(redis_url)
    redis.set("q00:1", "a string")
    redis.rpush("q00:2", "no message of Celery's")
    with Connection(redis_url) as client:
        put(client, "q00:3", "of a queue of that name", priority=0)
        Queue("q00:3", Exchange("q00:3"), routing_key="q00:3").bind(client.default_channel).declare()
    put(broker, "q00", "ours")
    assert take(broker, FEW, 1) == ["ours"]
    with broker.Consumer([Queue("q00")], on_message=lambda message: message.ack()), pytest.raises(TimeoutError):
        broker.drain_events(timeout=LOOK_EVERY_S * 1.5)
    assert redis.exists("q00:1", "q00:2", "q00:3") == 3
    assert broker.default_channel.queue_purge("q00") == 1  # what nobody can read as a message; never a string, a queue
    assert redis.exists("q00:1", "q00:3") == 2


def test_a_look_moves_so_much_at_a_time_and_goes_on_soon(broker: Connection, redis_url: str) -> None:
    with Connection(redis_url) as client:
        put(client, "q01", *["x"] * (BRING_AT_MOST + 5), priority=9)
    rota, redis = Rota(FEW, PRIORITY_STEPS), connect(redis_url)
    replies = [redis.execute_command("EVAL", LOOK.text, *rota.look())]
    assert (replies, redis.llen(list_key("q01", 4))) == ([MORE], BRING_AT_MOST)
    wait_until(
        lambda: replies.append(redis.execute_command("EVAL", LOOK.text, *rota.look())) or replies[-1], 2, "a look"
    )
    assert (replies[-1], redis.llen(list_key("q01", 4))) == (1, BRING_AT_MOST + 5)


def test_hundreds_of_queues_are_looked_at_in_steps_each_of_them_once_a_round(
    broker: Connection, redis_url: str
) -> None:
    redis, names = connect(redis_url), [f"q{number:04d}" for number in range(LOOKED_AT_ONCE * 2 + 1)]
    for name in (names[0], names[-1]):  # as a plain client does: nobody is told
        redis.lpush(list_key(name, 2), "{}")
    rota, steps = Rota(names, PRIORITY_STEPS), 0
    while steps == 0 or rota.is_looking:
        redis.execute_command("EVAL", LOOK.text, *rota.look())
        steps += 1
    assert steps == 3
    assert {*redis.zrange("fleet:waiting:2", 0, -1)} == {names[0].encode(), names[-1].encode()}
    again = [redis.execute_command("EVAL", LOOK.text, *rota.look()) for _ in range(steps)]
    assert again == [0, 0, 0]  # a round has just been made, by whomever


def test_what_plain_clients_queue_in_many_of_hundreds_of_queues_comes_home_without_a_seconds_pause(
    broker: Connection, redis_url: str
) -> None:
    """Given much under steps of their own in the queues of each of three looks, each round brings some home of all."""
    redis, names = connect(redis_url), [f"q{number:04d}" for number in range(LOOKED_AT_ONCE * 2 + 1)]
    full, rounds = (names[0], names[LOOKED_AT_ONCE], names[-1]), 6
    for name in full:
        with Connection(redis_url) as client:
            put(client, name, "x", priority=9)
        redis.lpush(f"{name}\x06\x169", *redis.lrange(f"{name}\x06\x169", 0, 0) * (rounds * BRING_AT_MOST - 1))
    rota, replies = Rota(names, PRIORITY_STEPS), list[int]()

    deadline = monotonic() + 30
    while redis.exists(*(f"{name}\x06\x169" for name in full)) and (now_s := monotonic()) < deadline:
        if rota.is_due(now_s):  # at once, as a consumer does: no poll is quick enough
            replies.append(redis.execute_command("EVAL", LOOK.text, *rota.look(now_s)))
            rota.note_look(replies[-1], monotonic())
    assert [redis.llen(list_key(name, 4)) for name in full] == [rounds * BRING_AT_MOST] * 3
    assert replies == [MORE] * 3 * rounds
    assert rota.look_at_s <= monotonic() + LOOK_AGAIN_S


def test_a_plain_clients_message_in_the_last_of_hundreds_of_queues_is_taken(broker: Connection, redis_url: str) -> None:
    names = tuple(f"q{number:04d}" for number in range(LOOKED_AT_ONCE * 2 + 1))
    put(broker, names[-1], "a")
    connect(redis_url).delete("fleet:waiting:2")
    assert take(broker, names, 1) == ["a"]


def test_counting_and_purging_a_queue_see_every_list_of_it(broker: Connection, redis_url: str) -> None:
    with Connection(redis_url) as client:
        put(client, "q00", "a", priority=0)
        put(client, "q00", "b", priority=9)
    put(broker, "q00", "c", priority=4)
    assert broker.default_channel._size("q00") == 3
    assert broker.default_channel.queue_purge("q00") == 3
    assert broker.default_channel._size("q00") == 0


def test_a_consumer_takes_only_from_its_own_queues_however_many_others_wait(broker: Connection, redis_url: str) -> None:
    ours, others = MANY[: NAMED_AT_MOST + 1], MANY[NAMED_AT_MOST + 1 :]
    for queue in others:
        put(broker, queue, "theirs", priority=0)
    put(broker, ours[-1], "ours", priority=4)
    assert take(broker, ours, 1) == ["ours"]
    assert sum(connect(redis_url).llen(list_key(queue, 0)) for queue in others) == len(others)


def test_what_is_known_to_wait_may_be_lost_or_wrong_without_losing_a_message(
    broker: Connection, redis_url: str
) -> None:
    redis = connect(redis_url)
    put(broker, MANY[5], "a")
    redis.delete("fleet:waiting:2")
    redis.zadd("fleet:waiting:0", dict.fromkeys(MANY, 0))
    assert take(broker, MANY, 1) == ["a"]
    assert redis.zcard("fleet:waiting:0") == 0
    assert redis.hlen(keys.unacked()) == redis.zcard(keys.unacked_index()) <= 1


@both
def test_what_is_known_to_wait_does_not_grow_with_queues_that_are_empty(
    broker: Connection, redis_url: str, queues: tuple[str, ...]
) -> None:
    for queue in queues:
        put(broker, queue, "a")
    put(broker, "3f6.reply.celery.pidbox", "the answer of a remote control")
    take(broker, queues, len(queues))
    with broker.Consumer([Queue(name) for name in queues], on_message=print), pytest.raises(TimeoutError):
        broker.drain_events(timeout=0.1)  # looks once more, finds nothing
    assert connect(redis_url).zcard("fleet:waiting:2") == 0
