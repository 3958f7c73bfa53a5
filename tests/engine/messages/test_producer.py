"""Producers: what is queued, where, and how often; no worker needed."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import config
from fleet.engine.messages.envelope import (
    HIDDEN,
    canvas_of,
    envelope,
    fresh_envelope,
    task_body,
    task_headers,
    task_id_in,
)
from fleet.engine.messages.inbox import Inbox
from fleet.engine.messages.producer import _KEY_NAMESPACE, fresh_id, submit_many, task_id_of
from fleet.engine.messages.queues import list_key
from fleet.errors import InvalidTask
from fleet.models import BotTask, Priority
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.waits import Wait

pytestmark = pytest.mark.usefixtures("fleet_env")


def waiting(redis_url: str, pool: str, priority: Priority = Priority.NORMAL) -> list[bytes]:
    return connect(redis_url).lrange(list_key(keys.queue(pool), priority), 0, -1)  # type: ignore[return-value]


def test_each_task_goes_to_the_list_of_its_pool_and_priority(redis_url: str) -> None:
    list(submit_many([{"prompt": "a", "pool": "review", "priority": "bulk"}, BotTask(prompt="b", pool="research")]))
    assert len(waiting(redis_url, "review", Priority.BULK)) == len(waiting(redis_url, "research")) == 1


def test_tasks_without_a_pool_are_spread_by_waiting_tasks_per_bot(redis_url: str) -> None:
    list(submit_many([{"prompt": "x", "pool": "writing"}] * 40))  # 40 bots: one task each
    list(submit_many(["y"] * 60))
    assert [len(waiting(redis_url, pool)) for pool in ("research", "writing", "review")] == [30, 40, 30]


@pytest.mark.parametrize("road", ["many", "one", "asyncio", "inbox"])
def test_tasks_without_a_pool_avoid_those_that_cannot_begin_with_them_while_another_can(
    redis_url: str, road: str
) -> None:
    from fleet.engine.tasks import submit_task

    async def asynchronously() -> None:
        await submit_task.adelay("x")

    async def pass_on() -> None:
        store = Store(redis_url)
        await Inbox(store, config.current()).pass_on(fresh_id(), BotTask(prompt="x"), {})
        await store.close()

    def submit() -> None:
        if road == "many":
            list(submit_many(["x", "x"]))
        elif road == "one":
            submit_task.delay("x")
        else:
            asyncio.run(asynchronously() if road == "asyncio" else pass_on())

    def taken() -> set[str]:
        """Submit a few, and return the pools that they went to."""
        before = {pool: len(waiting(redis_url, pool)) for pool in config.current().pools}
        for _ in range(4):
            submit()
        return {pool for pool, count in before.items() if len(waiting(redis_url, pool)) > count}

    client = connect(redis_url)
    list(submit_many([{"prompt": "x", "pool": "research"}] * 100))
    client.set(keys.unserved(), '["review"]')
    client.set(keys.hold("fleet.writing"), Wait("outage", probe_every_s=1.0).to_json())
    assert taken() == {"research"}
    client.set(keys.gate("fleet.research"), Priority.CRITICAL.value)
    list(submit_many([{"prompt": "x", "pool": "writing"}] * 200))
    assert taken() == {"research"}  # both will open by themselves; the third has nobody
    client.delete(keys.hold("fleet.writing"))
    assert taken() == {"writing"}
    client.set(keys.unserved(), '["research", "writing", "review"]')
    assert taken() == {"review"}  # all alike again: the emptiest
    client.close()


def test_a_key_is_queued_once_over_batches_and_calls(redis_url: str) -> None:
    first = list(submit_many(["a", "b", "a"], idempotency_keys=["1", "2", "1"], batch=2))
    again = list(submit_many(["a"], idempotency_keys=["1"]))
    assert first[0] == first[2] == again[0] != first[1]
    assert sum(len(waiting(redis_url, pool)) for pool in config.current().pools) == 2


def test_a_wrong_task_is_named_by_its_position_and_its_batch_is_not_queued(redis_url: str) -> None:
    with pytest.raises(InvalidTask, match=r"^task 3: priority: expected one of"):
        list(submit_many([{"prompt": "x", "pool": "review"}] * 3 + [{"prompt": "x", "priority": "soon"}], batch=2))
    assert len(waiting(redis_url, "review")) == 2


def test_submitting_leaves_one_ring_of_the_bell(redis_url: str) -> None:
    list(submit_many(["a"] * 10, batch=5))
    assert connect(redis_url).xinfo_stream("fleet:bell")["length"] == 1


@given(st.text(max_size=40), st.sampled_from(list(Priority)))
def test_the_template_gives_the_same_envelope_as_building_it(prompt: str, priority: Priority) -> None:
    body = task_body(BotTask(prompt=prompt or "x"), "research")
    task_id = fresh_id()
    quick = fresh_envelope(task_id=task_id, queue="fleet.q%", priority=priority, body=body, queued_at=2.5)
    headers = task_headers(task_id) | {"queued_at": 2.5}
    slow = envelope(task_id=task_id, queue="fleet.q%", priority=priority, headers=headers, body=body)
    assert json.loads(quick) == json.loads(slow)
    assert task_id_in(quick) == task_id
    assert json.loads(quick)["headers"]["kwargsrepr"] == HIDDEN


@given(st.text(max_size=40))
def test_ids_are_what_the_standard_library_makes_of_them(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        return
    assert task_id_of(key) == str(uuid.uuid5(_KEY_NAMESPACE, key))
    assert uuid.UUID(fresh_id()).version == 4


def test_a_body_without_a_canvas_is_seen_to_have_none_and_one_with_it_is_read() -> None:
    task = BotTask(prompt='x"}]', pool="research")
    assert canvas_of(task_body(task, "research")) == {}
    chain = {"callbacks": None, "errbacks": None, "chain": [{"task": "t"}], "chord": None}
    assert canvas_of(task_body(task, "research", chain)) == {"chain": [{"task": "t"}]}
    assert canvas_of(json.dumps([[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])) == {}


def test_a_task_bound_for_a_pool_says_so_in_its_body() -> None:
    body = json.loads(task_body(BotTask(prompt="x", kind="k"), "review"))
    assert body[1] == {"prompt": "x", "kind": "k", "pool": "review"}


def test_a_batch_of_many_script_calls_keeps_its_order_and_one_invalid_task_keeps_it_all_back(redis_url: str) -> None:
    prompts = [{"prompt": f"{n}", "pool": "research"} for n in range(600)]
    task_ids = list(submit_many(prompts, batch=600))
    assert [task_id_in(message) for message in reversed(waiting(redis_url, "research"))] == task_ids
    with pytest.raises(InvalidTask, match="task 599: pool: expected one of"):
        list(submit_many([*prompts[:599], {"prompt": "x", "pool": "nowhere"}], batch=600))
    assert len(waiting(redis_url, "research")) == 600
