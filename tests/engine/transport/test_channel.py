"""The transport on a real Redis: take, acknowledge, renew and restore, step by step."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from kombu import Connection, Queue
from kombu.asynchronous import Hub
from redis.exceptions import ConnectionError

from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.transport import channel, leases, waker
from fleet.store import keys
from fleet.store.client import connect

LEASE_S = 1


@pytest.fixture
def broker(redis_url: str) -> Iterator[Connection]:
    leases._HOLDINGS.clear()
    options = {"priority_steps": PRIORITY_STEPS, "visibility_timeout": LEASE_S}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        yield connection


def put(broker: Connection, *bodies: str, queue: str = "q", priority: int = 2) -> None:
    with broker.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key=queue, exchange="", priority=priority, declare=[Queue(queue)])


def take(broker: Connection, count: int, prefetch: int = 100, queues: tuple[str, ...] = ("q",)) -> list[Any]:
    """Return `count` messages as a consumer gets them."""
    got: list[Any] = []
    with broker.Consumer([Queue(q) for q in queues], on_message=got.append, prefetch_count=prefetch):
        while len(got) < count:
            broker.drain_events(timeout=5)
    return got


def test_the_most_urgent_message_is_taken_first_whatever_the_order_of_publishing(broker: Connection) -> None:
    for priority in (4, 1, 3, 0, 2):
        put(broker, f"p{priority}", priority=priority)
    assert [message.payload for message in take(broker, 5)] == ["p0", "p1", "p2", "p3", "p4"]


def test_equal_messages_are_taken_in_the_order_of_publishing(broker: Connection) -> None:
    put(broker, "a", "b", "c")
    assert [message.payload for message in take(broker, 3)] == ["a", "b", "c"]


def test_a_taken_message_is_in_the_unacked_store_until_it_is_acknowledged(broker: Connection, redis_url: str) -> None:
    put(broker, "a")
    (message,) = take(broker, 1)
    redis = connect(redis_url)
    assert redis.hlen("fleet:unacked") == redis.zcard("fleet:unacked_index") == 1
    message.ack()
    message.channel.flush_acks()
    assert redis.hlen("fleet:unacked") == redis.zcard("fleet:unacked_index") == 0


def test_no_more_is_taken_than_the_prefetch_count_allows(broker: Connection, redis_url: str) -> None:
    put(broker, *"abcdefgh")
    assert len(take(broker, 3, prefetch=3)) == 3
    assert connect(redis_url).llen(list_key("q", 2)) == 5


def test_what_was_not_acknowledged_returns_in_its_old_order_when_the_consumer_goes(
    broker: Connection, redis_url: str
) -> None:
    put(broker, *"abcd")
    messages = take(broker, 3, prefetch=3)
    messages[0].channel.qos.restore_unacked()
    waiting = connect(redis_url).lrange(list_key("q", 2), 0, -1)
    assert [message.payload for message in take(broker, 4)] == ["a", "b", "c", "d"], waiting


def test_a_message_whose_lease_ran_out_is_restored_and_a_renewed_one_is_not(broker: Connection, redis_url: str) -> None:
    put(broker, "dead", "alive")
    dead, alive = take(broker, 2)
    channel, redis = alive.channel, connect(redis_url)
    del channel.holdings.held[dead.delivery_tag]  # its worker is gone: nobody renews it
    channel.sweep()  # the first sweep after a silence waits one lease, because nobody could renew
    long_ago = float(redis.time()[0]) - 10 * LEASE_S
    redis.zadd("fleet:unacked_index", {dead.delivery_tag: long_ago, alive.delivery_tag: long_ago})
    channel.renew()
    redis.set("fleet:unacked_swept", f"{redis.time()[0]} 0")
    channel.sweep()
    assert redis.hkeys("fleet:unacked") == [alive.delivery_tag.encode()]
    assert redis.llen(list_key("q", 2)) == 1


def test_nothing_is_restored_right_after_redis_was_away(broker: Connection, redis_url: str) -> None:
    put(broker, "a")
    (message,) = take(broker, 1)
    redis = connect(redis_url)
    redis.zadd("fleet:unacked_index", {message.delivery_tag: 1})
    redis.set("fleet:unacked_swept", f"{redis.time()[0] - 60} 0")  # the last sweep was a minute ago
    message.channel.sweep()
    assert redis.hlen("fleet:unacked") == 1


def test_a_fleet_that_died_as_a_whole_waits_less_than_a_lease_for_its_messages(
    broker: Connection, redis_url: str
) -> None:
    put(broker, "a")
    (message,) = take(broker, 1)
    redis = connect(redis_url)
    redis.delete("fleet:unacked_swept")  # nobody has swept for long
    message.channel.sweep()
    began, quiet_until = map(float, redis.get("fleet:unacked_swept").split())  # type: ignore[union-attr]
    assert 0.5 * LEASE_S <= quiet_until - began < LEASE_S


@pytest.mark.parametrize(
    "garbage", [b"no json", b"[]", b"{}", b'{"properties": {"body_encoding": "base64"}, "body": "abc"}', b"\xff\xfe"]
)
def test_what_is_no_message_is_put_aside_and_the_next_one_is_served(
    broker: Connection, redis_url: str, garbage: bytes
) -> None:
    redis = connect(redis_url)
    redis.lpush(list_key("q", 2), garbage)
    put(broker, "good")
    (message,) = take(broker, 1)
    message.ack()
    message.channel.flush_acks()
    assert message.payload == "good"
    assert redis.lrange("fleet:unreadable", 0, -1) == [garbage]
    assert redis.hlen("fleet:unacked") == 0


def test_an_ack_wakes_the_loop_of_a_worker_that_had_no_room(broker: Connection, redis_url: str) -> None:
    hub = Hub()
    put(broker, "a", "b")
    first, second = take(broker, 2)
    broker.register_with_event_loop(hub)
    first.ack()
    assert waker._of_loop is not None
    assert not select.select([waker._of_loop], [], [], 0)[0]  # there was room: nobody waits for it
    second.channel.basic_qos(0, 1, False)
    assert not second.channel.qos.can_consume()
    threading.Thread(target=second.ack).start()
    assert select.select([waker._of_loop], [], [], 5)[0]
    hub.close()


def test_a_publish_rings_the_bell_that_an_idle_consumer_waits_for(broker: Connection, redis_url: str) -> None:
    put(broker, "a")
    assert connect(redis_url).xlen("fleet:bell") == 1


def test_taking_goes_on_after_the_script_cache_was_flushed(broker: Connection, redis_url: str) -> None:
    connect(redis_url).script_flush()
    put(broker, "a")
    assert take(broker, 1)[0].payload == "a"


def test_a_consumer_that_never_acknowledges_leaves_nothing_unacked(broker: Connection, redis_url: str) -> None:
    put(broker, "reply")
    got: list[Any] = []
    with broker.Consumer([Queue("q")], on_message=got.append, no_ack=True):
        broker.drain_events(timeout=5)
    got[0].channel.flush_acks()
    assert connect(redis_url).hlen("fleet:unacked") == 0


def test_one_message_in_32_is_taken_from_the_least_urgent_class_that_waits(broker: Connection) -> None:
    put(broker, *(f"urgent-{n}" for n in range(100)), priority=0)
    put(broker, "bulk", priority=4)
    got = [message.payload for message in take(broker, 101, prefetch=200)]
    assert 32 <= got.index("bulk") <= 32 + channel.TAKE_AT_MOST


def test_a_closed_gate_keeps_its_queue_waiting_and_a_narrow_one_lets_the_urgent_through(
    broker: Connection, redis_url: str
) -> None:
    redis = connect(redis_url)
    redis.set(keys.gate("closed"), "-1")
    redis.set(keys.gate("narrow"), "1")
    put(broker, "a", queue="closed", priority=0)
    put(broker, "b", queue="narrow", priority=1)
    put(broker, "c", queue="narrow", priority=2)
    put(broker, "d", queue="q", priority=4)
    queues = ("closed", "narrow", "q")
    assert [message.payload for message in take(broker, 2, queues=queues)] == ["b", "d"]
    redis.delete(keys.gate("closed"), keys.gate("narrow"))
    assert [message.payload for message in take(broker, 2, queues=queues)] == ["a", "c"]


def test_a_redis_that_refuses_writes_is_waited_for_and_loses_nothing(broker: Connection, redis_url: str) -> None:
    put(broker, "a")
    (message,) = take(broker, 1)
    message.ack()
    put(broker, "b")
    redis = connect(redis_url)
    redis.config_set("min-replicas-to-write", "1")
    try:
        got: list[Any] = []
        with broker.Consumer([Queue("q")], on_message=got.append, prefetch_count=5):
            with pytest.raises(TimeoutError):
                broker.drain_events(timeout=1)
            redis.config_set("min-replicas-to-write", "0")
            broker.drain_events(timeout=5)
    finally:
        redis.config_set("min-replicas-to-write", "0")
    assert [m.payload for m in got] == ["b"]
    assert redis.hlen(keys.unacked()) == 1


def test_a_publish_is_taken_whole_or_not_at_all_however_full_redis_is(broker: Connection, redis_url: str) -> None:
    redis, queue = connect(redis_url), list_key("q", 2)
    put(broker, "a")
    refused = 0
    try:
        for room in range(
            10_000, 18_000, 80
        ):  # among them some with which memory ends between two commands of a publish
            redis.config_set("maxmemory", 0)
            redis.delete(queue)
            redis.config_set("maxmemory", redis.info("memory")["used_memory"] + room)  # type: ignore[index]
            try:
                put(broker, "x" * 10_000)
                accepted = 1
            except ConnectionError:
                accepted = 0
            refused += not accepted
            assert redis.llen(queue) == accepted
    finally:
        redis.config_set("maxmemory", 0)
    assert 0 < refused < 100


def test_a_gate_that_is_no_number_closes_its_queue_and_no_other(broker: Connection, redis_url: str) -> None:
    connect(redis_url).set(keys.gate("odd"), "high")
    put(broker, "a", queue="odd", priority=0)
    put(broker, "b", queue="q", priority=4)
    assert [message.payload for message in take(broker, 1, queues=("odd", "q"))] == ["b"]


def test_all_leases_are_renewed_by_kombus_timer_where_no_thread_of_the_process_renews_them(
    broker: Connection, redis_url: str
) -> None:
    put(broker, "waits", "runs")
    waits, runs = take(broker, 2)
    channel, redis = waits.channel, connect(redis_url)

    def renewed() -> set[str]:
        redis.zadd(keys.unacked_index(), {waits.delivery_tag: 1, runs.delivery_tag: 1})
        channel.renew()
        return {tag.decode() for tag in redis.zrangebyscore(keys.unacked_index(), 2, "+inf")}  # type: ignore[union-attr]

    channel.holdings.renewed_at_s = monotonic()
    assert renewed() == set()
    channel.holdings.renewed_at_s -= 2 * leases.RENEW_EVERY_S
    assert renewed() == {waits.delivery_tag, runs.delivery_tag}


def test_what_cannot_even_be_refused_is_put_aside(broker: Connection, redis_url: str) -> None:
    put(broker, "a")
    redis = connect(redis_url)
    waiting = redis.lrange(list_key("q", 2), 0, -1)
    (message,) = take(broker, 1)
    message.channel.put_aside(message.delivery_tag, ValueError("odd"))
    message.channel.flush_acks()
    assert redis.lrange(keys.unreadable(), 0, -1) == waiting
    assert redis.hlen(keys.unacked()) == 0
