"""Who is suspect after a lease ran out, how the mark survives, and what clears it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import redis
from kombu import Connection, Queue

from fleet import config
from fleet.engine.admission.gates import set_gate
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.process.duties.renewer import Renewer
from fleet.engine.transport import channel, leases, suspicion
from fleet.engine.transport.held import Tag
from fleet.roster import Roster
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import Store, connect, run_script
from tests.engine.transport.test_channel import put, take
from tests.waiting import wait_until

LEASE_S = 1
QUEUE = keys.queue("research")
LIST = list_key(QUEUE, 2)


@pytest.fixture
def broker(redis_url: str) -> Iterator[Connection]:
    leases._HOLDINGS.clear()
    options = {"priority_steps": PRIORITY_STEPS, "visibility_timeout": LEASE_S}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        yield connection


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    suspicion.ask(suspicion.Witness(redis_url, config.current().pools))
    return connect(redis_url)


def taken(broker: Connection, *bodies: str) -> list[Any]:
    """Publish and take."""
    put(broker, *bodies, queue=QUEUE)
    return take(broker, len(bodies), queues=(QUEUE,))


def begin(url: str, tag: str) -> None:
    """Check a bot out for the message with this tag."""

    async def check_out() -> None:
        store = Store(url)
        await Roster(store, config.current()).check_out("research", task_id=tag, token=tag)
        await store.close()

    asyncio.run(check_out())


def leave(client: redis.Redis, message: Any, *, process: str = "gone") -> str:
    """Make a taken message one of another process, that has not renewed it for long; return its tag by then."""
    tag = message.delivery_tag
    entry = client.hget(keys.unacked(), tag)
    theirs = tag.replace(leases.process_id(), process)
    message.channel.holdings.held.pop(tag, None)
    with client.pipeline() as pipe:
        pipe.hdel(keys.unacked(), tag).zrem(keys.unacked_index(), tag)
        pipe.hset(keys.unacked(), theirs, entry)
        pipe.zadd(keys.unacked_index(), {theirs: 1}).execute()
    return str(theirs)


def sweep(client: redis.Redis, message: Any) -> None:
    client.set(keys.swept(), f"{client.time()[0]} 0")  # somebody has swept all along
    message.channel.sweep()


def report(client: redis.Redis, process: str) -> None:
    """Let a process be heard of."""
    row = WorkerReport(name="w", pid=1, process=process, cpu_percent=0, rss_mb=1, slots=1, busy=1, at=time.time())
    client.hset(keys.workers(), "w", row.model_dump_json())


def marks(client: redis.Redis) -> int:
    return int(client.hlen(keys.suspects()))


def test_only_what_had_begun_in_a_process_that_is_gone_is_suspect(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    begun, waiting = taken(broker, "begun", "waits for its countdown")
    begin(redis_url, leave(client, begun))
    leave(client, waiting)
    sweep(client, begun)
    assert (client.llen(LIST), marks(client)) == (2, 1)
    assert 0 < client.ttl(keys.suspects()) <= keys.STATE_TTL_S
    suspects = {m.payload for m in take(broker, 2, queues=(QUEUE,)) if leases.is_suspect(m.delivery_tag)}
    assert suspects == {"begun"} and marks(client) == 0  # from here on the tag tells


def test_a_mark_goes_when_a_worker_of_0_2_has_taken_its_message_and_nothing_waits_any_more(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    (message,) = taken(broker, "begun")
    begin(redis_url, leave(client, message))
    sweep(client, message)
    forget = partial(run_script, client, suspicion.ABSOLVE, *suspicion.stale_call())
    assert (forget(), marks(client)) == (0, 1), "it waits"
    assert client.rpop(LIST), "as a worker takes it that knows no suspects"
    client.hset(keys.parked(), "another", "is parked, and may be one")
    assert (forget(), marks(client)) == (0, 1)
    client.delete(keys.parked())
    assert (forget(), marks(client)) == (1, 0)


def test_what_no_bot_ever_worked_on_is_never_suspect_however_often_its_worker_dies(
    broker: Connection, client: redis.Redis
) -> None:
    messages = taken(broker, *"abcde")
    for _ in range(4):
        for message in messages:
            leave(client, message)
        sweep(client, messages[0])
        assert marks(client) == client.llen(keys.poison()) == 0
        messages = take(broker, 5, queues=(QUEUE,))


@pytest.mark.parametrize("who", ["it reports", "it sweeps"])
def test_a_process_that_lives_leaves_no_suspects_however_long_it_stood_still(
    broker: Connection, client: redis.Redis, redis_url: str, who: str
) -> None:
    (message,) = taken(broker, "stalled")
    process = leases.process_id() if who == "it sweeps" else "cut off from the broker"
    begin(redis_url, leave(client, message, process=process))
    report(client, process if who == "it reports" else "")
    sweep(client, message)
    assert (client.llen(LIST), marks(client)) == (1, 0)


def test_a_report_of_another_process_of_the_same_name_host_and_pid_clears_nothing(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    (message,) = taken(broker, "begun")
    begin(redis_url, leave(client, message, process="first"))
    report(client, "second")
    sweep(client, message)
    assert marks(client) == 1


def test_a_task_whose_bots_lease_was_reaped_meanwhile_had_begun_all_the_same(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    (message,) = taken(broker, "begun")
    tag = leave(client, message)
    begin(redis_url, tag)
    for member, _ in client.zscan_iter(keys.bot_leases("research")):
        client.zadd(keys.bot_leases("research"), {member: 1})
    begin(redis_url, "another")  # the next checkout reaps it
    assert client.hget(keys.bot_claims("research"), tag) is None
    sweep(client, message)
    assert marks(client) == 1


def test_only_the_pool_of_a_message_is_asked_whether_its_task_had_begun(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    """Given a thousand pools, and two messages of one of them."""
    pools = [*(f"p{number}" for number in range(1000)), "research"]
    suspicion.ask(suspicion.Witness(redis_url, pools))
    messages = taken(broker, "begun", "waited")
    tags = [leave(client, message) for message in messages]
    begin(redis_url, tags[0])
    client.config_resetstat()
    sweep(client, messages[0])
    assert marks(client) == 1
    assert int(client.info("commandstats")["cmdstat_hexists"]["calls"]) == 2 * len(tags)


def test_a_message_of_another_queue_may_have_begun_in_any_pool(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    put(broker, "begun", queue="of-a-plain-client")
    (message,) = take(broker, 1, queues=("of-a-plain-client",))
    begin(redis_url, leave(client, message))
    sweep(client, message)
    assert marks(client) == 1


def test_with_two_redis_servers_the_state_tells_who_had_begun_and_the_broker_keeps_the_mark(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    state_url = redis_url.replace("/0", "/1")
    suspicion.ask(suspicion.Witness(state_url, config.current().pools))
    (message,) = taken(broker, "begun")
    begin(state_url, leave(client, message))
    sweep(client, message)
    assert marks(client) == 1


def test_while_the_state_redis_does_not_tell_messages_wait_where_they_are(
    broker: Connection, client: redis.Redis
) -> None:
    suspicion.ask(suspicion.Witness("redis://127.0.0.1:1/0", ["research"]))
    (message,) = taken(broker, "begun")
    leave(client, message)
    sweep(client, message)
    assert (client.llen(LIST), client.hlen(keys.unacked())) == (0, 1)


@pytest.mark.parametrize(
    ("task", "eta", "suspects"),
    [
        ("own.task", "null", 1),
        ("own.task", '"2999-01-01T00:00:00+00:00"', 0),  # it waits for its time
        ("own.task", '"2001-01-01T00:00:00+00:00"', 1),
        ("fleet.submit_task", "null", 0),  # of a bot's it is known that it had not begun
    ],
)
def test_a_task_of_the_users_own_has_no_bot_and_is_suspect_unless_its_time_is_still_to_come(
    broker: Connection, client: redis.Redis, task: str, eta: str, suspects: int
) -> None:
    (message,) = taken(broker, "own")
    tag = leave(client, message)
    client.hset(keys.unacked(), tag, f'{LIST}\n{{"headers": {{"task": "{task}", "eta": {eta}}}}}')
    sweep(client, message)
    assert (client.llen(LIST), marks(client)) == (1, suspects)


def test_a_suspect_stays_one_when_it_is_handed_back_and_when_its_next_worker_dies_too(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    (message,) = taken(broker, "begun")
    begin(redis_url, leave(client, message))
    sweep(client, message)
    (again,) = take(broker, 1, queues=(QUEUE,))
    again.channel.restore([again.delivery_tag])
    assert marks(client) == 1
    (again,) = take(broker, 1, queues=(QUEUE,))
    assert leases.is_suspect(again.delivery_tag)
    leave(client, again)  # nobody knows whether it began in the child
    sweep(client, again)
    assert marks(client) == 1


def test_a_suspect_that_answers_leaves_no_mark(broker: Connection, client: redis.Redis, redis_url: str) -> None:
    (message,) = taken(broker, "begun")
    begin(redis_url, leave(client, message))
    sweep(client, message)
    (again,) = take(broker, 1, queues=(QUEUE,))
    again.ack()
    again.channel.flush_acks()
    assert marks(client) == client.hlen(keys.unacked()) == client.llen(LIST) == 0


def test_gates_and_priorities_hold_for_suspects_and_a_purge_takes_the_marks_along(
    broker: Connection, client: redis.Redis, redis_url: str
) -> None:
    (message,) = taken(broker, "begun")
    begin(redis_url, leave(client, message))
    sweep(client, message)
    put(broker, "urgent", queue=QUEUE, priority=0)
    set_gate(client, QUEUE, lowest=0)
    assert [m.payload for m in take(broker, 1, queues=(QUEUE,))] == ["urgent"]
    client.hset(keys.suspects(), "of another queue", f"gone {QUEUE}er")
    assert message.channel._purge(QUEUE) == 1
    assert client.hkeys(keys.suspects()) == [b"of another queue"]


def test_marks_behind_a_prefix_are_forgotten_with_their_own_queue_only(client: redis.Redis) -> None:
    keys.use_prefix("one:")
    try:
        client.hset(keys.suspects(), mapping={"a": f"gone {list_key(QUEUE, 1)}", "b": f"gone {list_key('celery', 1)}"})
        run_script(client, suspicion.ABSOLVE, *suspicion.forget_call(QUEUE))
        assert client.hkeys("one:fleet:suspects") == [b"b"]
    finally:
        keys.use_prefix("")


def test_a_process_that_was_only_cut_off_clears_its_own_tasks_when_it_is_back_and_no_others(
    broker: Connection, client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    client.hset(keys.suspects(), "ours", f"{leases.process_id()} {LIST}")
    client.hset(keys.suspects(), "another's", f"gone {LIST}")
    holdings = leases.holdings_of("the broker")
    holdings.held["lost"] = None

    async def renew() -> None:
        store = Store(redis_url)
        duty = asyncio.create_task(Renewer(store, Roster(store, config.current()), {}).run())
        async with asyncio.timeout(10):
            while await store.command("HLEN", keys.suspects()) > 1:
                await asyncio.sleep(0.005)
        duty.cancel()
        await store.close()

    asyncio.run(renew())
    assert client.hkeys(keys.suspects()) == [b"another's"]


def test_a_lost_reply_to_a_take_is_no_death_and_its_messages_are_back_with_the_next_take(
    broker: Connection, client: redis.Redis
) -> None:
    put(broker, *"abc", queue=QUEUE)
    got: list[Any] = []
    with broker.Consumer([Queue(QUEUE)], on_message=got.append, prefetch_count=10) as consumer:
        mine, cycle = consumer.channel, broker.transport.cycle
        for _ in range(3):
            cycle._register_BRPOP(mine)  # connects, puts back what the last take took, and takes
            wait_until(lambda: client.hlen(keys.unacked()) == 3, 5, "Redis has run the take")
            mine.client.connection.disconnect()
            with pytest.raises(mine.connection_errors):
                mine._brpop_read()
        while len(got) < 3:
            broker.drain_events(timeout=5)
    assert [m.payload for m in got] == ["a", "b", "c"]
    assert client.hlen(keys.unacked()) == 3 and marks(client) == client.llen(keys.poison()) == 0


def test_all_tags_of_a_process_carry_its_one_id() -> None:
    prefixes = [holdings.next_prefix() for holdings in (leases.Holdings(), leases.Holdings())]
    tags = [Tag.parse(f"{prefix}1{leases.SUSPECT}") for prefix in prefixes]
    assert [tag.process for tag in tags if tag] == [leases.process_id()] * 2
    assert len(set(prefixes)) == 2
