"""What waits until a time, on a real Redis: published, taken from a list, opened, counted, thrown away."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from kombu import Connection, Queue

from fleet.engine.messages.eta import eta_s
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.transport import channel, leases
from fleet.engine.transport.parking import parked
from fleet.engine.transport.revoked import MARK_LIFE_S, is_revoked, mark_revoked
from fleet.store import keys
from fleet.store.client import connect, run_script
from fleet.store.clock import CLOCK
from tests.engine.transport.test_channel import take

#: Bytes of a usual message.
MESSAGE_BYTES = 1000


@pytest.fixture
def broker(redis_url: str) -> Iterator[Connection]:
    leases._HOLDINGS.clear()
    options = {"priority_steps": PRIORITY_STEPS, "visibility_timeout": 1}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        yield connection


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def put(broker: Connection, task_id: str, *, eta: str | None, priority: int = 2, body: str = "x") -> None:
    with broker.Producer() as producer:
        producer.publish(
            body, routing_key="q", exchange="", priority=priority, declare=[Queue("q")],
            headers={"id": task_id, "task": "t", "eta": eta},
        )  # fmt: skip


def ids(messages: list[Any]) -> list[str]:
    return [message.headers["id"] for message in messages]


def ripen(client: redis.Redis, *task_ids: str, queue: str = "q") -> None:
    """Let the time of tasks come, the first one first."""
    for number, task_id in enumerate(task_ids):
        at = time.time() - 1 + number / 1000
        client.zadd(keys.parked_order(queue), {task_id: at})
        client.zadd(keys.openings(), {queue: at}, lt=True)
        entry = client.hget(keys.parked(), task_id) or b""
        client.hset(keys.parked(), task_id, re.sub(rb'"eta": "\d{4}', b'"eta": "2020', entry))


def test_a_message_with_an_eta_waits_in_no_list_and_in_no_worker(broker: Connection, client: redis.Redis) -> None:
    put(broker, "later", eta=in_s(60))
    put(broker, "now", eta=None)
    assert ids(take(broker, 1)) == ["now"]
    assert (client.llen(list_key("q", 2)), client.hlen(keys.unacked()), client.hlen(keys.parked())) == (0, 1, 1)
    (waits,) = parked.read_parked(client, ["q"])
    assert waits.count == 1
    assert waits.next_at == pytest.approx(time.time() + 60, abs=10)


def test_an_eta_that_has_come_is_no_reason_to_wait_and_one_that_is_none_is_left_to_who_refuses_it(
    broker: Connection, client: redis.Redis
) -> None:
    for task_id, eta in (("past", in_s(-5)), ("odd", "yesterday"), ("far", "9999-01-01T00:00:00")):
        put(broker, task_id, eta=eta)
    assert client.hlen(keys.parked()) == 0
    assert ids(take(broker, 3)) == ["past", "odd", "far"]


def test_what_is_due_is_taken_in_the_order_of_its_time_at_its_own_priority(
    broker: Connection, client: redis.Redis
) -> None:
    for task_id, priority in (("c", 2), ("b", 2), ("a", 2), ("urgent", 0)):
        put(broker, task_id, eta=in_s(60), priority=priority)
    put(broker, "queued-before", eta=None)
    ripen(client, "a", "b", "c", "urgent")
    messages = take(broker, 5)
    assert ids(messages) == ["urgent", "queued-before", "a", "b", "c"]
    assert [message.headers["eta"] for message in messages] == [None] * 5  # Celery is not to ask its own clock
    assert client.hlen(keys.parked()) == client.zcard(keys.parked_order("q")) == client.zcard(keys.openings()) == 0


def test_a_sleeping_consumer_starts_a_countdown_on_time(broker: Connection) -> None:
    got: list[Any] = []
    with broker.Consumer([Queue("q")], on_message=got.append):
        with pytest.raises(TimeoutError):
            broker.drain_events(timeout=0.05)  # nothing waits: it sleeps
        put(broker, "soon", eta=in_s(0.4))
        put(broker, "sooner", eta=in_s(0.2))
        began = time.monotonic()
        while len(got) < 2:
            broker.drain_events(timeout=5)
    assert ids(got) == ["sooner", "soon"]
    assert 0.3 < time.monotonic() - began < 10


def test_a_message_that_a_plain_client_put_into_a_list_goes_from_lease_to_set_in_one_step(
    broker: Connection, client: redis.Redis
) -> None:
    put(broker, "foreign", eta=None)
    (raw,) = client.lrange(list_key("q", 2), 0, -1)
    client.delete(list_key("q", 2))
    client.lpush(list_key("q", 2), raw.replace(b'"eta": null', f'"eta": "{in_s(60)}"'.encode()))
    put(broker, "now", eta=None)
    (message,) = take(broker, 1)
    assert message.headers["id"] == "now"
    assert list(message.channel.holdings.held) == [message.delivery_tag]
    assert client.hlen(keys.unacked()) == client.zcard(keys.unacked_index()) == 1
    found = parked.find_parked(client, "foreign")
    assert found is not None
    assert (found.queue, found.priority, found.reason) == ("q", 2, parked.REASON_TIME)
    ripen(client, "foreign")
    assert ids(take(broker, 1)) == ["foreign"]


def test_the_same_message_twice_is_one_and_another_of_the_same_task_is_kept(client: redis.Redis) -> None:
    for message in ("one", "one", "other"):
        call = parked.publish_later_call("q", list_key("q", 2), 2, message, task_id="t", at=time.time() + 60)
        run_script(client, parked.PUBLISH_LATER, *call)
    assert sorted(entry.rpartition(b"\n")[2] for entry in client.hvals(keys.parked())) == [b"one", b"other"]
    assert parked.read_parked(client, ["q"])[0].count == 2


def test_a_hundred_thousand_countdowns_cost_their_bytes_and_no_renewal(broker: Connection, client: redis.Redis) -> None:
    count, before = 100_000, client.info("memory")["used_memory"]  # type: ignore[index]
    loop = "for i = ARGV[4], ARGV[4] + 1999 do park(KEYS, { 'q', 'task-' .. i, ARGV[1], ARGV[2] .. ARGV[3] }) end"
    script = client.register_script(f"local function park(KEYS, ARGV) {parked.PARK.text}\nend {loop}")
    for first in range(0, count, 2000):
        script([keys.parked(), keys.openings(), keys.parked_order("q")], [
            time.time() + 3600, f"q\n{parked.REASON_TIME}\n", "x" * MESSAGE_BYTES, first,
        ])  # fmt: skip
    per_task = (client.info("memory")["used_memory"] - before) / count  # type: ignore[index]
    assert MESSAGE_BYTES < per_task < MESSAGE_BYTES + 500, per_task
    put(broker, "now", eta=None)
    (message,) = take(broker, 1)
    assert len(message.channel.holdings.held) == client.zcard(keys.unacked_index()) == 1
    with broker.channel() as consuming:
        assert consuming.queue_purge("q") == count
    assert client.hlen(keys.parked()) == client.zcard(keys.openings()) == 0


def test_a_take_opens_a_bounded_number_and_the_next_one_goes_on(broker: Connection, client: redis.Redis) -> None:
    for number in range(600):
        at = time.time() + 60
        call = parked.publish_later_call("q", list_key("q", 2), 2, "{}", task_id=f"t{number:03}", at=at)
        run_script(client, parked.PUBLISH_LATER, *call)
    ripen(client, *(f"t{number:03}" for number in range(600)))
    left = []
    for _ in range(3):
        call = leases.take_call("", (), wanted=1, prefix="p", steps=(), served=(), queues=())
        run_script(client, leases.TAKE, *call)
        left.append(client.hlen(keys.parked()))
    assert left == [344, 88, 0]
    assert client.llen(list_key("q", 2)) == 600


def test_due_tasks_of_a_closed_pool_wait_in_its_queue(broker: Connection, client: redis.Redis) -> None:
    client.set(keys.gate("q"), "-1")
    put(broker, "behind", eta=in_s(60))
    ripen(client, "behind")
    with broker.Consumer([Queue("q")], on_message=print), pytest.raises(TimeoutError):
        broker.drain_events(timeout=0.3)
    assert (client.hlen(keys.parked()), client.llen(list_key("q", 2))) == (0, 1)


def test_a_size_counts_what_is_parked_and_a_purge_throws_it_away(broker: Connection, client: redis.Redis) -> None:
    put(broker, "later", eta=in_s(60))
    put(broker, "now", eta=None)
    with broker.channel() as consuming:
        assert consuming.queue_declare("q", passive=False).message_count == 2
        assert consuming.queue_purge("q") == 2
    assert [
        key
        for key in client.keys("*")
        if not key.startswith((b"_kombu", b"fleet:bell", b"fleet:waiting", b"fleet:epochs"))
    ] == []


def test_the_countdown_of_a_worker_whose_clock_is_off_is_as_long_as_it_says(
    broker: Connection, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLOCK, "ahead_s", 3600.0)
    put(broker, "t", eta=in_s(3600 + 60))  # what `countdown=60` becomes there
    assert client.zscore(keys.parked_order("q"), "t") == pytest.approx(time.time() + 60, abs=30)


def test_a_publish_in_a_batch_parks_too(broker: Connection, client: redis.Redis) -> None:
    with broker.channel() as publishing:
        batch = publishing.create_publish_batch(10)
        message = publishing.prepare_message("x", headers={"id": "t", "eta": in_s(60)})
        batch.publish(message, exchange="", routing_key="q")
        batch.flush()
    assert client.hkeys(keys.parked()) == [b"t"]


@pytest.mark.parametrize(
    ("eta", "seconds"),
    [("2030-01-01T00:00:00+00:00", 1893456000.0), ("2030-01-01T02:00:00+02:00", 1893456000.0), (None, None),
     ("2030-01-01T00:00:00", 1893456000.0), ("2030-01-01T00:00:00.5Z", 1893456000.5)],
)  # fmt: skip
def test_an_eta_without_a_zone_is_utc(eta: str | None, seconds: float | None) -> None:
    assert eta_s({"eta": eta}) == seconds


def test_a_revoked_task_is_named_as_it_is_taken_and_its_mark_outlives_every_result(
    broker: Connection, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = set[str]()
    monkeypatch.setattr(channel.revoked.worker_state, "revoked", told)
    for task_id in ("queued", "other"):
        put(broker, task_id, eta=None)
    put(broker, "parked", eta=in_s(60))
    client.set(keys.submitted("queued"), 1)
    assert mark_revoked(client, ["queued", "parked", "unknown"]) == ["parked"]
    assert client.zscore(keys.revoked(), "queued") > time.time() + MARK_LIFE_S - 60
    assert client.ttl(keys.revoked()) == -1
    assert not client.exists(keys.submitted("queued"), keys.parked(), keys.openings())
    assert set(ids(take(broker, 3))) == {"queued", "other", "parked"}
    assert told == {"queued", "parked"}
    assert client.zscore(keys.revoked(), "queued") < time.time() + MARK_LIFE_S / 2  # it was met
    assert is_revoked(client, "queued")


def test_what_a_worker_remembers_does_not_end_a_task_that_was_submitted_again(
    broker: Connection, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = {"again", 'odd"id'}
    monkeypatch.setattr(channel.revoked.worker_state, "revoked", remembered)
    put(broker, "again", eta=None)
    put(broker, 'odd"id', eta=None)
    take(broker, 2)
    assert remembered == {'odd"id'}  # whose text the script cannot read


def test_an_id_that_another_message_only_quotes_is_not_revoked(
    broker: Connection, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = set[str]()
    monkeypatch.setattr(channel.revoked.worker_state, "revoked", told)
    mark_revoked(client, ["quoted"])
    with broker.Producer() as producer:
        headers = {"parent": {"id": "quoted"}, "id": "mine", "task": "t"}
        producer.publish("x", routing_key="q", exchange="", declare=[Queue("q")], headers=headers)
    assert ids(take(broker, 1)) == ["mine"]
    assert json.dumps("quoted") and not told
