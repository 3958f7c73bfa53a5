"""What the data plane does with a task that must wait, on a real Redis: where it goes, who is free."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from fleet import config
from fleet.engine.admission.gates import read_gates
from fleet.engine.outcomes.completion import Finish
from fleet.engine.outcomes.results import Done
from fleet.engine.process import waiting_room
from fleet.engine.process.assembly import put_together
from fleet.engine.process.waiting_room import GoneBack
from fleet.engine.telemetry.occupancy import DirectCall
from fleet.engine.transport import leases
from fleet.engine.transport.parking.parked import find_parked
from fleet.errors import StoreError, StoreUnavailable
from fleet.outcome import Before, Parking
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from fleet.usage import Usage
from fleet.waits import Wait
from tests.counted import counted
from tests.engine.answers.test_opinions import GOOD, Scripted, waiting
from tests.engine.transport.test_put_back import QUEUE, message, queue_up, take
from tests.waiting import wait_until

LIMIT = "simulator/sim-small/default"
HAD = Before(attempts=2, usage=Usage(input_tokens=7), cost_usd_picos=3_000_000, ran_ms=50, parked=1)


@pytest.fixture
def client(redis_url: str, fleet_env: None) -> Iterator[redis.Redis]:
    leases._HOLDINGS.clear()
    with connect(redis_url) as client:
        yield client


class Worker:
    """A worker process' data plane, whose bots say what a script says."""

    def __init__(self, client: redis.Redis, *outcomes: Any) -> None:
        self.runtime, self.assembly = put_together(config.current(), DirectCall("w"))
        self.assembly.panel._agent = self.agent = Scripted(*outcomes)
        self._client = client

    def deliver(self) -> Done:
        """Work on the next message; raises what its slot would be told."""
        ((tag, text),) = take(self._client)
        headers = json.loads(text)["headers"]
        request = {
            **headers, "args": [], "kwargs": {"prompt": "What is 2+2?", "pool": "research"},
            "properties": {"delivery_tag": tag}, "delivery_info": {"routing_key": QUEUE, "priority": 2},
        }  # fmt: skip
        return self.run(self.assembly.plane.work(headers["id"], request))

    def run(self, work: Any) -> Any:
        return self.runtime.run(work)


@contextmanager
def worker(client: redis.Redis, *outcomes: Any) -> Iterator[Worker]:
    one = Worker(client, *outcomes)
    try:
        yield one
    finally:
        one.run(one.assembly.close())
        one.runtime.stop()


def parking(cause: Any = "outage", *, opens_in_s: float = 0.3, **how: Any) -> Parking:
    return Parking(Wait(cause, time.time() + opens_in_s, LIMIT), HAD, **how)


def held(client: redis.Redis) -> Wait | None:
    return read_gates(client, [QUEUE])[0].hold


def nobody_has_anything(client: redis.Redis) -> bool:
    return not client.exists(
        keys.unacked(), keys.unacked_index(), keys.bot_leases("research"), keys.pool_totals("research"),
        keys.suspects(), keys.dead_letters(), keys.result("a"),
    )  # fmt: skip


def test_behind_a_reason_that_is_known_no_bot_is_checked_out(client: redis.Redis) -> None:
    queue_up(client, message("a"), message("b"))
    with worker(client) as one:
        one.assembly.plane._room.closed = lambda pool: Wait("outage", time.time() + 0.5, LIMIT)
        with pytest.raises(GoneBack, match="the provider fails"):
            one.deliver()
        assert one.agent.bots == []
        hold = held(client)
        assert hold is not None
        assert (hold.cause, hold.about) == ("outage", LIMIT)
        assert nobody_has_anything(client)
        assert take(client) == []  # both wait in their list
        assert client.llen(keys.lists(QUEUE) + "\x06\x162") == 2


def test_a_task_that_parks_is_free_of_slot_and_bot_and_its_result_tells_all_it_has_had(client: redis.Redis) -> None:
    queue_up(client, message("a"))
    with worker(client, waiting(parking(sent=True)), GOOD) as one:
        with pytest.raises(GoneBack):
            one.deliver()
        assert nobody_has_anything(client)
        found = find_parked(client, "a")
        assert found is not None
        assert Wait.from_json(found.reason).cause == "outage"
        assert held(client) is not None
        time.sleep(0.6)  # its time, by the clock of Redis
        done = one.deliver()
    assert done.result is not None
    assert (done.result.status, done.result.parked) == ("ok", 1)
    assert one.agent.may_park == [True, True]
    assert done.result.ran_ms >= HAD.ran_ms
    assert counted(client, catalogue.PARKED.name) == 1
    assert counted(client, catalogue.COMPLETIONS.name) == 1


def test_what_only_one_task_waits_for_holds_nobody_else(client: redis.Redis) -> None:
    queue_up(client, message("a"), message("b"))
    with worker(client, waiting(parking("money", opens_in_s=60, is_alone=True)), GOOD) as one:
        with pytest.raises(GoneBack):
            one.deliver()
        assert held(client) is None
        assert find_parked(client, "a") is not None
        assert one.deliver().result is not None


def test_what_this_process_alone_cannot_do_is_left_to_others_and_it_takes_less(client: redis.Redis) -> None:
    queue_up(client, message("a"), message("b"))
    take(client)  # one more is held here
    with worker(client, waiting(parking("machine", opens_in_s=60, is_alone=True))) as one, pytest.raises(GoneBack):
        one.deliver()
    assert held(client) is None
    assert client.llen(keys.lists(QUEUE) + "\x06\x162") == 1
    assert 0 <= leases.holdings_of("test").room() < 1


def test_where_bots_cannot_be_read_tasks_wait_instead_of_failing(client: redis.Redis) -> None:
    queue_up(client, message("a"))
    with worker(client, GOOD) as one:
        client.delete(keys.bots("research"))
        client.set(keys.bots("research"), "somebody else's")
        with pytest.raises(GoneBack):
            one.deliver()
        hold = held(client)
        assert hold is not None
        assert (hold.cause, nobody_has_anything(client)) == ("configuration", True)


def test_a_bot_of_a_worker_with_more_of_them_does_its_task_here_too(client: redis.Redis) -> None:
    queue_up(client, message("a"))
    with worker(client, GOOD) as one:
        extra = f"research-{config.current().pools['research'].bots + 5:03d}"
        client.delete(keys.bots("research"))
        client.zadd(keys.bots("research"), {extra: 0})  # as a new worker has seeded it, before this one is restarted
        done = one.deliver()
    assert done.result is not None
    assert (done.result.status, one.agent.bots) == ("ok", [extra])


def test_a_task_whose_message_is_not_ours_to_put_back_waits_where_it_is(client: redis.Redis) -> None:
    with worker(client, waiting(parking()), GOOD) as one:
        request = {"args": ["What is 2+2?"], "kwargs": {"pool": "research"}}
        done: Done = one.run(one.assembly.plane.work("a", request))
    assert done.result is not None
    assert (done.result.status, done.result.parked) == ("ok", 1)
    assert len(one.agent.bots) == 2
    assert not client.exists(keys.bot_leases("research"))


def test_the_hold_ends_as_soon_as_a_task_of_the_pool_is_answered(client: redis.Redis) -> None:
    queue_up(client, message("a"), message("b"))
    with worker(client, GOOD) as one:
        one.run(one.assembly.plane._room.hold("research", Wait("outage", time.time() + 60, LIMIT)))
        assert take(client) == []
        client.delete(keys.hold(QUEUE))  # as its probe comes through
        one.run(one.assembly.plane._room.hold("research", Wait("outage", time.time() + 0.3, LIMIT, probe_every_s=60)))
        time.sleep(0.4)
        assert one.deliver().result is not None
        deadline = time.time() + 10
        while held(client) is not None and time.time() < deadline:
            time.sleep(0.02)
    assert held(client) is None


def test_a_hold_that_comes_and_goes_is_told_once_a_minute_each_way(client: redis.Redis) -> None:
    def told() -> list[str]:
        rows = [fields for _, fields in client.xrange(keys.events()) if b"hold" in fields[b"event"]]
        return [f"{row[b'event'].decode()} {row[b'cause'].decode()}" for row in rows]

    with worker(client, GOOD) as one:
        room = one.assembly.plane._room
        for cause in ("limit", "limit", "limit", "outage"):
            wait = Wait(cause, time.time() + 60, LIMIT)
            one.run(room.hold("research", wait))
            one.run(room._lift("research", wait))
            room._held.clear()
        wait_until(lambda: "hold_lifted outage" in told(), 10, "the last one is told")
    assert told() == ["hold_put limit", "hold_lifted limit", "hold_put outage", "hold_lifted outage"]


def die_before(name: str) -> Callable[..., Any]:
    async def die(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError(name)

    return die


@pytest.mark.parametrize("step", ["hold", "put_back", "give_back"])
def test_wherever_a_process_dies_on_the_way_its_task_is_there_once(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    queue_up(client, message("a"))
    with worker(client, waiting(parking()), GOOD) as one:
        where: Any = waiting_room if step == "put_back" else type(one.assembly.plane._room)
        with monkeypatch.context() as patch, pytest.raises(BaseException, match="|".join(["", step])):
            patch.setattr(where, step, die_before(step))
            one.deliver()
        tags = [tag.decode() for tag in client.hkeys(keys.unacked())]
        assert len(tags) + client.llen(keys.lists(QUEUE) + "\x06\x162") == 1
        if tags:  # nobody renews it: it goes back
            leases.run_script(client, leases.RESTORE, *leases.restore_call(tags))
        client.delete(keys.hold(QUEUE))
        done = one.deliver()
        assert done.result is not None
        assert counted(client, catalogue.COMPLETIONS.name) == 1
        assert take(client) == []


def test_a_redis_that_refuses_to_take_it_back_leaves_it_to_the_slots_own_way(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> bool:
        raise StoreError("WRONGTYPE")

    from celery.exceptions import Reject

    queue_up(client, message("a"))
    with worker(client, waiting(parking())) as one:
        monkeypatch.setattr(waiting_room, "put_back", refuse)
        with pytest.raises(Reject) as told:
            one.deliver()
    assert told.value.requeue
    assert client.hlen(keys.unacked()) == 1


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_task_that_has_its_answer_ends_with_it_though_its_worker_stops_right_there(
    client: redis.Redis, is_stored: bool
) -> None:
    queue_up(client, message("a"))
    with worker(client, GOOD) as one:
        finish, begun = one.assembly.plane._completion.finish, []

        async def stopped(done: Finish) -> bool:
            stands = await finish(done) if is_stored or begun else False
            if not begun:
                begun.append(done)
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                await asyncio.sleep(10)
            return stands

        one.assembly.plane._completion.finish = stopped  # type: ignore[method-assign]
        done = one.deliver()
    assert done.result is not None and done.result.status == "ok" and not done.ended_before
    assert client.exists(keys.result("a")) and not client.exists(keys.bot_leases("research"))
    assert counted(client, catalogue.ATTEMPTS.name) == done.result.attempts


def test_a_task_whose_worker_stops_while_redis_is_away_goes_back_with_its_answer_unstored(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_up(client, message("a"))
    with worker(client, GOOD) as one:

        async def away(done: Finish) -> bool:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await asyncio.sleep(0)
            raise StoreUnavailable("away")

        one.assembly.plane._completion.finish = away  # type: ignore[method-assign]
        with pytest.raises((asyncio.CancelledError, CancelledError)):
            one.deliver()
    assert not client.exists(keys.result("a")) and client.hlen(keys.unacked()) == 1
