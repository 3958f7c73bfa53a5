"""Takes are fair over tenants: on a real Redis, against a plain model, and where a process dies in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.engine.messages.broker import enqueue
from fleet.engine.messages.fair.flows import flow_of, flows_of
from fleet.engine.transport import leases
from fleet.engine.transport.purge import purge
from fleet.engine.transport.withdrawal.message_search import find_queued, waiting_queues
from fleet.engine.transport.withdrawal.withdrawn import withdraw
from fleet.store import flow_keys, keys
from fleet.store.client import connect
from tests.engine.messages.fair.line import (
    PLACE,
    QUEUE,
    SETTINGS,
    Model,
    name_in,
    names,
    park,
    parts_of,
    put,
    put_plainly,
    restore,
    take,
    weigh,
)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def left_of_flows(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter(f"{flow_keys.stem()}*"))


def test_who_comes_behind_many_of_another_tenant_has_every_second_turn(client: redis.Redis) -> None:
    put(client, *(f"a{n}" for n in range(1000)), tenant="a")
    put(client, *(f"b{n}" for n in range(10)), tenant="b")
    first = names(take(client, 20))
    assert [name for name in first if name[0] == "b"] == [f"b{n}" for n in range(10)]
    assert [name for name in first if name[0] == "a"] == [f"a{n}" for n in range(10)]  # each in its order


def test_a_weight_is_a_share_of_the_takes(client: redis.Redis) -> None:
    weigh(client, heavy=3.0, light=0.5)
    for tenant in ("heavy", "light", "usual"):
        put(client, *(f"{tenant}{n}" for n in range(200)), tenant=tenant)
    first = names(take(client, 90))
    counts = {tenant: sum(name.startswith(tenant) for name in first) for tenant in ("heavy", "light", "usual")}
    assert counts == {"heavy": 60, "light": 10, "usual": 20}


def test_what_has_no_tenant_has_turns_like_one(client: redis.Redis) -> None:
    put(client, *(f"n{n}" for n in range(100)))
    put(client, *(f"a{n}" for n in range(100)), tenant="a")
    put(client, "late")
    first = names(take(client, 10))
    assert sum(name[0] == "a" for name in first) == 5
    put(client, "b", tenant="b")
    assert "b" in names(take(client, 3))


def test_a_list_is_as_long_as_there_are_messages_and_its_flows_leave_nothing_behind(client: redis.Redis) -> None:
    put(client, "n")
    put(client, "a1", "a2", tenant="a")
    put(client, "b", tenant="b")
    for left in (4, 3, 2, 1, 0):
        assert client.llen(PLACE) == left
        take(client, 1)
    assert take(client, 1) == []
    assert left_of_flows(client) == []


def test_a_fleet_without_tenants_asks_redis_for_nothing_more(client: redis.Redis) -> None:
    put(client, "a", "b")
    take(client, 1)  # loads the script
    with client.monitor() as monitor:
        take(client, 1)
        client.ping()
        said = []
        for told in monitor.listen():
            if told["command"] == "PING":
                break
            if told["client_type"] == "lua":
                said.append(told["command"])
    assert not [line for line in said if "fair" in line and not line.startswith("MGET")]


def test_nobody_gains_by_queueing_one_task_at_a_time(client: redis.Redis) -> None:
    put(client, *(f"a{n}" for n in range(100)), tenant="a")
    taken: list[str] = []
    for n in range(20):
        if not any(name == f"b{n - 1}" for name in taken) and n:
            continue
        put(client, f"b{n}", tenant="b")
        taken += names(take(client, 2))
    assert 0.4 <= sum(name[0] == "b" for name in taken) / len(taken) <= 0.6


def test_what_a_dead_worker_held_comes_back_to_the_head_of_its_flow(client: redis.Redis) -> None:
    put(client, "a0", "a1", "a2", tenant="a")
    put(client, "b0", "b1", tenant="b")
    held = take(client, 3)
    restore(client, [tag for tag, _ in held])
    again = names(take(client, 5))
    assert [name for name in again if name[0] == "a"] == ["a0", "a1", "a2"]
    assert [name for name in again if name[0] == "b"] == ["b0", "b1"]
    assert set(again[:3]) == set(names(held))


def test_a_release_that_knows_no_flows_loses_nothing_and_its_messages_have_turns_too(client: redis.Redis) -> None:
    put(client, "a0", "a1", "a2", tenant="a")
    assert client.rpop(PLACE) == client.rpop(PLACE) == b"withdrawn"  # its workers pass over such a place
    put_plainly(client, "b0", tenant="b")
    put_plainly(client, "n0")
    assert sorted(names(take(client, 6))) == ["a0", "a1", "a2", "b0", "n0"]
    assert left_of_flows(client) == []


def test_purging_a_queue_takes_its_flows(client: redis.Redis) -> None:
    put(client, "a0", "a1", tenant="a")
    put(client, "n")
    assert purge(client, QUEUE, is_meant=False) == 3
    assert purge(client, QUEUE, is_meant=True) == 3
    assert take(client, 1) == []
    assert left_of_flows(client) == []


def test_what_is_cancelled_leaves_its_flow_and_its_place(client: redis.Redis) -> None:
    put(client, *(f"a{n}" for n in range(150)), tenant="a")
    put(client, "b", tenant="b")
    (flow,) = [one for one in flows_of(client, [QUEUE])[QUEUE] if one.name == flow_of("b")]
    assert client.llen(flow.key) == 1
    found = [one for stretch in withdraw(client, QUEUE, "all") for one in stretch.found]
    assert len(found) == 151
    assert client.llen(PLACE) == 0
    restore(client, [one.tag for one in found])  # whoever cancelled them died: they wait where they were
    assert client.llen(PLACE) == 151
    assert "b" in names(take(client, 2))


def test_one_of_many_is_cancelled_and_its_place_goes(client: redis.Redis) -> None:
    put(client, "a0", "a1", "a2", tenant="a")
    key = flow_keys.flow(flow_of("a"), PLACE)
    task_id = json.loads(client.lindex(key, 1) or b"")["headers"]["id"]
    list(withdraw(client, QUEUE, "ids", [task_id]))
    assert client.llen(PLACE) == client.llen(key) == 2
    assert names(take(client, 3)) == ["a0", "a2"]


def test_what_is_cancelled_amid_a_flow_costs_nobody_a_place_or_a_turn(client: redis.Redis) -> None:
    """Given cancelled tasks whose holes are left, as when who cancelled them died, takes pass over those."""
    put(client, *(f"a{n}" for n in range(30)), tenant="a")
    put(client, *(f"b{n}" for n in range(30)), tenant="b")
    key = flow_keys.flow(flow_of("a"), PLACE)
    ids = [json.loads(client.lindex(key, -place) or b"")["headers"]["id"] for place in range(2, 22, 2)]
    walk = withdraw(client, QUEUE, "ids", ids)
    while not next(walk).found:  # it ends here, before it has removed what it left
        pass
    assert client.llen(PLACE) == 50
    taken = names(take(client, 15))
    assert client.llen(PLACE) == 35
    assert sum(name[0] == "a" for name in taken) in (7, 8)
    assert len(names(take(client, 60))) == 35
    assert client.llen(PLACE) == 0


def test_a_queue_of_which_only_flows_are_left_is_one_in_which_tasks_wait(client: redis.Redis) -> None:
    put(client, "a", tenant="a")
    while client.rpop(PLACE):
        pass
    assert waiting_queues(client, SETTINGS, "research") == [QUEUE]


def test_what_opens_from_the_parked_set_takes_turns_too(client: redis.Redis) -> None:
    park(client, *(f"a{n}" for n in range(200)), tenant="a")
    park(client, *(f"b{n}" for n in range(5)), tenant="b")
    assert sum(name[0] == "b" for name in names(take(client, 10))) == 5


def test_what_comes_back_to_a_queue_without_flows_has_its_old_place(client: redis.Redis) -> None:
    put(client, "a0", tenant="a")
    held = take(client, 1)
    assert take(client, 1) == []  # the last of its flows has ended
    restore(client, [tag for tag, _ in held])
    put(client, "a1", "a2", tenant="a")
    assert names(take(client, 3)) == ["a0", "a1", "a2"]


def test_what_waited_before_the_first_tenant_came_goes_before_what_came_later(client: redis.Redis) -> None:
    put(client, *(f"n{n}" for n in range(20)))
    put(client, "a", tenant="a")
    put(client, *(f"n{n}" for n in range(20, 30)))
    held = take(client, 4)
    assert client.exists(flow_keys.old("-", PLACE))
    restore(client, [tag for tag, _ in held])
    taken = names(take(client, 31))
    assert [name for name in taken if name[0] == "n"] == [f"n{n}" for n in range(30)]
    assert "a" in taken[:2]
    assert take(client, 1) == []
    assert left_of_flows(client) == []


def test_what_is_old_in_a_flow_is_found_cancelled_and_purged(client: redis.Redis) -> None:
    put(client, "n0", "n1", "n2", "n3")
    put(client, "a", tenant="a")
    put(client, "n4")
    assert len(take(client, 3)) == 3
    message = client.lindex(flow_keys.flow("-", PLACE), 0) or b""
    found = find_queued(client, json.loads(message)["headers"]["id"], SETTINGS).found
    assert found is not None
    assert (found.place, found.others) == (client.llen(flow_keys.old("-", PLACE)), client.llen(PLACE) - 2)
    assert [name for flow in flows_of(client, [QUEUE])[QUEUE] for name in map(name_in, client.lrange(flow.key, 0, -1))]
    purge(client, QUEUE, is_meant=True)
    assert left_of_flows(client) == []


def test_an_end_that_only_the_message_tells_of_is_known_when_it_comes_into_a_flow(client: redis.Redis) -> None:
    put_plainly(client, "n0")
    message = json.loads(parts_of("n1")[2])
    message["headers"]["expires"] = "2030-01-01T00:00:00+00:00"
    client.lpush(PLACE, json.dumps(message))
    put(client, "a", tenant="a")
    assert len(take(client, 2)) == 2  # the one with an end waits in its flow
    assert client.zscore(keys.ends(), QUEUE) == datetime(2030, 1, 1, tzinfo=UTC).timestamp()


def test_what_is_parked_beside_one_queue_opens_into_no_other(client: redis.Redis) -> None:
    park(client, "x")
    entry = client.hget(keys.parked(), "x") or b""
    client.hset(keys.parked(), "x", entry.replace(PLACE.encode(), b"fleet.other\x06\x162", 1))
    assert names(take(client, 1)) == ["x"]
    assert not client.exists("fleet.other\x06\x162")


TENANTS = ["", *"abcdefgh"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(TENANTS), st.integers(1, 12)),
        st.tuples(st.just("plainly"), st.sampled_from(TENANTS), st.just(1)),
        st.tuples(st.just("take"), st.just(""), st.integers(1, 20)),
        st.tuples(st.just("back"), st.just(""), st.integers(1, 3)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    STEPS,
    st.one_of(st.just({}), st.fixed_dictionaries({name: st.sampled_from([0.5, 1.0, 2.0, 4.0]) for name in "abcdef"})),
)
def test_the_scripts_do_as_a_plain_model_does(
    client: redis.Redis, steps: list[tuple[str, str, int]], weights: dict[str, float]
) -> None:
    client.flushdb()
    if weights:
        weigh(client, **weights)
    model, held, number = Model(weights), list[tuple[str, tuple[str, str]]](), 0
    for what, tenant, count in [*steps, ("take", "", 400)]:
        for _ in range(count if what in ("put", "plainly") else 0):
            number += 1
            (put if what == "put" else put_plainly)(client, f"{number}", tenant=tenant)
            (model.put if what == "put" else model.put_plainly)(f"{number}", tenant)
        if what == "take":
            expected = model.take(count)
            got = take(client, count)
            assert names(got) == [name for _, name in expected]
            held += [(tag, task) for (tag, _), task in zip(got, expected, strict=True)]
        if what == "back" and held:
            some, held = held[-count:], held[:-count]
            restore(client, [tag for tag, _ in some])
            for _, task in reversed(some):  # the first ends at the head
                model.enter(task, is_back=True)
        assert client.llen(PLACE) == model.waiting
    assert client.llen(PLACE) == 0
    assert left_of_flows(client) == [flow_keys.weights().encode()] * bool(weights)


def test_a_reply_that_is_lost_brings_tasks_back_to_their_flows(client: redis.Redis) -> None:
    put(client, "a", tenant="a")
    put(client, "b", tenant="b")
    held = take(client, 2)
    assert client.hlen(keys.unacked()) == 2
    holdings = leases.Holdings()
    holdings.lost_takes.append(held[0][0].rpartition(":")[0] + ":")
    assert holdings.restore_lost(client, most=4) >= 1
    assert name_in(client.lindex(flow_keys.flow(flow_of("a"), PLACE), -1) or b"") == "a" or client.llen(PLACE)


def test_a_task_that_is_twice_in_one_call_is_queued_once(client: redis.Redis) -> None:
    """Given two with one idempotency key and many others in one call, each has its place and each key its mark."""
    for tenant in ("", "a"):
        client.flushdb()
        many = [parts_of(f"{n}", tenant) for n in range(1500)]
        twice = [keys.submitted("k"), *parts_of("twice", tenant)[1:]]
        assert enqueue(client, [part for one in (twice, *many, twice) for part in one], SETTINGS) == 1501
        assert enqueue(client, twice, SETTINGS) == 0
        assert client.llen(PLACE) == 1501
        mark = str(client.get(twice[0]) or b"", "utf-8")
        assert mark == f"q|1|{flow_keys.ring(PLACE) if tenant else PLACE}"
        assert names(take(client, 1501)) == ["twice", *(f"{n}" for n in range(1500))]


def test_of_many_tenants_some_have_their_turn_at_once_and_none_gets_far_ahead(client: redis.Redis) -> None:
    """Given 40 tenants, who takes 16 at once serves four of them, and after all have had theirs each has as many."""
    for n in range(40):
        put(client, *(f"{n}.{k}" for k in range(12)), tenant=f"t{n}")
    tenants = [[name.split(".")[0] for name in names(take(client, 16))] for _ in range(20)]
    assert {len(set(some)) for some in tenants} == {4}
    shares = [sum(some.count(str(n)) for some in tenants) for n in range(40)]
    assert set(shares) == {8}
