"""Marks of idempotency keys: how long they live, when a duplicate takes one over, and who clears the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from kombu import Connection

from fleet import config
from fleet.engine.messages import marks
from fleet.engine.messages.producer import submit_many, task_id_of
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.transport import channel, leases
from fleet.engine.transport.purge import purge
from fleet.models import BotResult, Priority
from fleet.store import keys
from fleet.store.client import Store, connect, run_script

pytestmark = pytest.mark.usefixtures("fleet_env")

QUEUE = keys.queue("research")
LIST = list_key(QUEUE, Priority.NORMAL)
TASK = task_id_of("k")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url, timeout_s=5) as client:
        yield client


def submit(*names: str) -> None:
    """Submit a task for each key."""
    list(submit_many([{"prompt": "x", "pool": "research"}] * len(names), idempotency_keys=names))


def waiting(client: redis.Redis) -> int:
    return client.llen(LIST)


def take(client: redis.Redis, wanted: int = 1) -> list[str]:
    """Take messages as a worker does; return their tags."""
    steps = [str(step) for step in PRIORITY_STEPS]
    call = leases.take_call(
        "ours", [keys.waiting(step) for step in steps], wanted=wanted, prefix=f"w.{client.incr('takes')}:",
        steps=steps, served=[""] * len(steps), queues=[QUEUE],
    )  # fmt: skip
    return [tag.decode() for tag in run_script(client, leases.TAKE, *call)[::3]]


def acknowledge(client: redis.Redis, *tags: str) -> None:
    run_script(client, leases.TAKE, *leases.take_call("ours", [], wanted=0, acks=tags))


def put_back(client: redis.Redis, *tags: str) -> None:
    run_script(client, leases.RESTORE, *leases.restore_call(tags))


def finish(url: str, task_id: str = TASK, fence: str | None = None) -> bool:
    async def run() -> bool:
        store = Store(url)
        result = BotResult(task_id=task_id, status="ok", pool="research", finished_at=1_760_000_000.5)
        try:
            return await Finisher(store, config.current()).finish(Finish(result, fence=fence))
        finally:
            await store.close()

    return asyncio.run(run())


def sweep(client: redis.Redis) -> int:
    """Walk once over all keys."""
    removed = 0
    for _ in range(10):
        client.delete(keys.turn("marks"))
        removed += run_script(client, marks.SWEEP, *marks.sweep_call(config.current()))[0]
        if client.get(keys.turn("marks:walk")) == b"0":
            return removed
    raise AssertionError("the walk has no end")


def test_a_mark_has_no_clock_until_its_task_is_finished_and_then_lives_as_long_as_the_result(
    redis_url: str, client: redis.Redis
) -> None:
    submit("k")
    assert client.ttl(keys.submitted(TASK)) == -1
    (tag,) = take(client)
    assert client.ttl(keys.submitted(TASK)) == -1
    assert finish(redis_url, fence=tag)
    life_s = config.current().results.expires_s
    assert life_s - 5 < client.ttl(keys.submitted(TASK)) == client.ttl(keys.result(TASK)) <= life_s
    acknowledge(client, tag)
    submit("k")
    assert waiting(client) == 0


def test_a_duplicate_is_not_queued_wherever_its_message_is(redis_url: str, client: redis.Redis) -> None:
    submit("before", "k", "behind")
    for _ in range(3):  # it waits, is held, and waits again after its worker died
        submit("k")
        assert waiting(client) == 3
        tags = take(client, 3)
        submit("k")
        assert waiting(client) == 0
        put_back(client, *tags)


def test_a_suspect_is_not_queued_again_wherever_it_is(client: redis.Redis) -> None:
    submit("k")
    for _ in range(2):
        (tag,) = take(client)
        call = leases.restore_call([tag], dead={tag: "process"})
        assert run_script(client, leases.RESTORE, *call) == [1, 1]
        submit("k")
        assert waiting(client) == 1
    assert sweep(client) == 0


@pytest.mark.parametrize("refilled", [False, True])
def test_a_key_is_queued_again_after_its_queue_was_deleted(client: redis.Redis, refilled: bool) -> None:
    submit("k")
    client.delete(LIST)  # what `celery purge` of a plain client does
    if refilled:
        submit("other")
    submit("k", "k")
    assert waiting(client) == 1 + refilled


def test_celery_purge_frees_keys_also_when_others_publish_first(redis_url: str, client: redis.Redis) -> None:
    submit("k")
    options = {"priority_steps": PRIORITY_STEPS}
    with Connection(redis_url, transport=channel.Transport, transport_options=options) as connection:
        assert connection.default_channel.queue_purge(QUEUE) == 1
        assert waiting(client) == 0
        with connection.Producer() as producer:
            producer.publish("without a key", routing_key=QUEUE, exchange="", priority=Priority.NORMAL.value)
    submit("k")
    assert waiting(client) == 2


def test_a_forgotten_result_frees_its_key(redis_url: str, client: redis.Redis) -> None:
    submit("k")
    (tag,) = take(client)
    finish(redis_url, fence=tag)
    acknowledge(client, tag)
    client.delete(keys.result(TASK))  # what `AsyncResult.forget` of a plain client does
    submit("k", "k")
    assert waiting(client) == 1


def test_forgetting_through_fleet_removes_the_mark(redis_url: str, client: redis.Redis) -> None:
    from fleet.engine.tasks import BotAsyncResult

    submit("k")
    (tag,) = take(client)
    finish(redis_url, fence=tag)
    app = Celery(backend=redis_url, set_as_current=False)
    BotAsyncResult(TASK, backend=app.backend, app=app).forget()
    app.close()
    assert not client.exists(keys.submitted(TASK), keys.result(TASK))


def test_a_fenced_result_leaves_the_mark_to_whoever_has_the_task(redis_url: str, client: redis.Redis) -> None:
    submit("k")
    (tag,) = take(client)
    put_back(client, tag)
    (mine,) = take(client)
    assert not finish(redis_url, fence=tag)
    assert client.ttl(keys.submitted(TASK)) == -1
    assert finish(redis_url, fence=mine)
    assert client.ttl(keys.submitted(TASK)) > 0


def test_with_two_redis_the_mark_is_closed_on_the_broker(redis_url: str, client: redis.Redis) -> None:
    submit("k")
    state_url = f"{redis_url.removesuffix('/0')}/1"

    async def run() -> None:
        store, broker = Store(state_url), Store(redis_url)
        result = BotResult(task_id=TASK, status="ok", pool="research", finished_at=1_760_000_000.5)
        await Finisher(store, config.current(), broker=broker).finish(Finish(result))
        await store.close()
        await broker.close()

    asyncio.run(run())
    assert client.ttl(keys.submitted(TASK)) > 0
    assert not client.exists(keys.result(TASK))


def test_the_walk_removes_marks_whose_task_is_nowhere_and_no_others(redis_url: str, client: redis.Redis) -> None:
    submit("held")
    take(client)
    submit("finished")
    (tag,) = take(client)
    finish(redis_url, task_id_of("finished"), fence=tag)
    submit("purged", "purged too")
    client.delete(LIST)
    submit("waits")
    assert sweep(client) == 2
    left = {name for name in ("held", "finished", "waits", "purged") if client.exists(keys.submitted(task_id_of(name)))}
    assert left == {"held", "finished", "waits"}


def test_a_step_of_the_walk_is_made_by_one_worker_at_a_time(client: redis.Redis) -> None:
    call = marks.sweep_call(config.current())
    run_script(client, marks.SWEEP, *call)
    submit("k")
    client.delete(LIST)
    assert run_script(client, marks.SWEEP, *call) == [0]
    assert client.exists(keys.submitted(TASK))


def test_a_mark_of_the_previous_release_holds_until_it_expires(client: redis.Redis) -> None:
    client.set(keys.submitted(TASK), "1", ex=600)
    submit("k")
    assert waiting(client) == 0


def test_a_batch_is_one_command_for_its_messages_and_four_for_its_marks_revokes_and_tenants(
    redis_url: str, client: redis.Redis
) -> None:
    submit("first", "second")
    with client.monitor() as monitor:
        submit("k", "l", "m")
        client.ping()
        said = []
        for told in monitor.listen():
            if told["command"] == "PING":
                break
            if told["client_type"] == "lua":
                said.append(told["command"].split()[0])
    assert sorted(said) == sorted(["EXISTS"] * 3 + ["HGET", *["SET"] * 3, "LPUSH", "ZADD", "XADD"])


# -- a list that has lost its places: workers of a release that knows no flows throw them away


def submit_for_tenant(*names: str) -> None:
    """Submit a task of one tenant for each key."""
    list(submit_many([{"prompt": "x", "pool": "research", "tenant": "a"}] * len(names), idempotency_keys=names))


def lose_places(client: redis.Redis) -> None:
    while client.rpop(LIST):
        pass


def test_a_task_in_a_flow_whose_place_is_lost_is_not_queued_twice(client: redis.Redis) -> None:
    submit_for_tenant("k")
    lose_places(client)
    submit_for_tenant("k")
    assert len(take(client, 5)) == 1


def test_nor_after_an_earlier_release_has_filled_the_list_again(client: redis.Redis) -> None:
    submit_for_tenant("k")
    lose_places(client)
    client.lpush(LIST, b"{}")
    client.hincrby(keys.epochs(), LIST, 1)  # as its script does that queues
    submit_for_tenant("k")
    assert sweep(client) == 0
    assert len(take(client, 5)) == 2


def test_nor_one_that_a_take_has_moved_from_the_list_into_a_flow(client: redis.Redis) -> None:
    submit("n0", "n1")
    submit_for_tenant("k")
    assert len(take(client, 2)) == 2  # one of each tenant: the other one has come into its flow
    lose_places(client)
    submit("n1")
    assert sweep(client) == 0
    assert len(take(client, 5)) == 1


def test_nor_one_that_a_worker_gave_back(client: redis.Redis) -> None:
    submit_for_tenant("k")
    put_back(client, *take(client))
    lose_places(client)
    submit_for_tenant("k")
    assert len(take(client, 5)) == 1


def test_a_purged_task_of_a_tenant_may_be_queued_again_at_once(client: redis.Redis) -> None:
    submit_for_tenant("k")
    purge(client, QUEUE, is_meant=True)
    submit_for_tenant("other")
    submit_for_tenant("k")
    assert len(take(client, 5)) == 2
