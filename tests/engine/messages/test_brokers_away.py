"""What a producer sees of several brokers while one is away, with real servers, one of them killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import redis

from fleet import asubmit_many, config
from fleet.engine.messages import marks
from fleet.engine.messages.broker import broker, enqueue_each, home_of, lapse
from fleet.engine.messages.envelope import TASK_NAME
from fleet.engine.messages.producer import message_of, submit_many, task_id_of
from fleet.engine.messages.queues import list_key
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.engine.transport.following import following, put_once
from fleet.errors import StoreUnavailable
from fleet.models import BotTask, Priority
from fleet.store import keys
from fleet.store.client import Store, run_script, store_errors
from fleet.store.private.branches import broker_stores
from fleet.store.running.brokers import Brokers, each
from tests.engine.outcomes.test_dead_letters import die
from tests.two_brokers import WAIT_S, TwoBrokers


@pytest.fixture
def brokers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoBrokers]:
    both = TwoBrokers(tmp_path, monkeypatch)
    yield both
    both.stop()


def test_an_error_names_the_broker_that_is_away_whatever_it_was_asked(brokers: TwoBrokers) -> None:
    where, west = broker().client, brokers.west.url.partition("@")[2] or brokers.west.url
    client = where.of_name("west")
    client.ping()  # the first connection dies with the server, the next is refused
    brokers.west.kill()
    pipe = client.pipeline(transaction=False)
    pipe.exists("one")
    for command in (client.ping, client.ping, pipe.execute):
        with pytest.raises(StoreUnavailable) as caught, store_errors(broker().url):
            command()
        assert west in str(caught.value) and "redis.brokers.west" in str(caught.value)
    brokers.main.kill()
    with pytest.raises(StoreUnavailable) as caught, store_errors(broker().url):
        where.main.ping()
    assert "west" not in str(caught.value)


def place(pool: str) -> str:
    return list_key(keys.queue(pool), Priority.NORMAL.value)


def ask(pool: str) -> dict[str, str]:
    return {"prompt": "What is 1+1?", "pool": pool}


def test_who_waits_for_one_broker_repeats_nothing_at_the_others(brokers: TwoBrokers) -> None:
    main, west = brokers.clients()
    brokers.west.kill()

    async def submit() -> None:
        waits = asyncio.create_task(asubmit_many([ask("sales-us"), ask("research"), ask("sales-eu")]))
        until = asyncio.get_running_loop().time() + WAIT_S
        while (await asyncio.to_thread(main.llen, place("research"))) != 1:
            assert asyncio.get_running_loop().time() < until, "the living broker has its task at once"
            await asyncio.sleep(0.02)
        await asyncio.sleep(3)  # several tries at the other one
        assert not waits.done()
        await asyncio.to_thread(brokers.west.start)
        await waits

    asyncio.run(submit())
    assert main.llen(place("research")) == 1 and west.llen(place("sales-us")) == west.llen(place("sales-eu")) == 1


def test_nothing_of_a_batch_is_queued_if_one_of_its_brokers_is_away(brokers: TwoBrokers) -> None:
    main, _ = brokers.clients()
    brokers.west.kill()
    for pools in (("research", "sales-us"), ("sales-us", "research")):
        with pytest.raises(StoreUnavailable, match=r"redis\.brokers\.west"):
            list(submit_many(map(ask, pools)))
    assert not main.llen(place("research"))


def test_with_keys_and_in_canvases_a_broker_that_is_away_stops_only_its_own(brokers: TwoBrokers) -> None:
    main, _ = brokers.clients()
    list(submit_many([ask("sales-us")], idempotency_keys=["there"]))
    brokers.west.kill()
    for _ in range(2):
        list(submit_many([ask("research"), ask("research")], idempotency_keys=["k", "k2"]))
        asyncio.run(asubmit_many([ask("research")], idempotency_keys=["k"]))
        with following():
            message = {"headers": {"task": TASK_NAME, "id": "f"}, "body": ""}
            assert put_once(main, place("research"), message, where=broker().client)
    assert main.llen(place("research")) == 3
    for pool in ("sales-us", "research"):  # who knows whether it is queued there is away
        with pytest.raises(StoreUnavailable, match=r"redis\.brokers\.west"):
            list(submit_many([ask(pool)], idempotency_keys=["there"]))
    brokers.west.start()
    list(submit_many([ask("research")], idempotency_keys=["there"]))
    assert main.llen(place("research")) == 3


def test_one_key_is_queued_once_whichever_pools_it_is_submitted_to_at_once(brokers: TwoBrokers) -> None:
    rounds, both = 40, Barrier(4)

    def submit(pool: str) -> None:
        for n in range(rounds):
            both.wait(WAIT_S)
            list(submit_many([ask(pool)], idempotency_keys=[f"k{n}"]))

    pools = ("research", "sales-us")
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(submit, pool) for pool in pools * 2]:
            done.result()
    assert brokers.queued(*pools) == rounds


def test_who_dies_between_noting_the_broker_and_queueing_leaves_the_key_free(brokers: TwoBrokers) -> None:
    main, west = brokers.clients()
    task_id = task_id_of("k")
    noted = home_of(broker().client, keys.submitted(task_id), "west", broker().settings, life_s=None)
    assert (noted, main.get(keys.submitted(task_id))) == ("west", b"b|west")
    list(submit_many([ask("research")], idempotency_keys=["k"]))  # to the broker that was noted: nobody else has it
    assert (main.llen(place("research")), west.llen(place("research"))) == (0, 1)


def test_a_note_of_a_task_that_is_nowhere_ends_unless_the_key_is_submitted_again(brokers: TwoBrokers) -> None:
    main, west = brokers.clients()
    list(submit_many([ask("sales-us")] * 2, idempotency_keys=["lost", "there"]))
    lost, there = (keys.submitted(task_id_of(key)) for key in ("lost", "there"))
    west.delete(lost)
    _walk(main)
    assert 0 < main.ttl(lost) <= marks.NOTE_LIFE_S and main.ttl(there) == -1
    list(submit_many([ask("sales-us")], idempotency_keys=["lost"]))
    assert main.ttl(lost) == -1 and west.llen(place("sales-us")) == 3
    brokers.west.kill()
    _walk(main)
    assert main.ttl(there) == -1, "who is away is not judged"
    brokers.rule()
    _walk(main)
    assert main.ttl(there) > 0, "its broker is gone from fleet.toml"


def _walk(main: redis.Redis) -> None:
    """Do a round of the janitor's over the main broker's marks."""
    call = marks.sweep_call(broker().settings)
    main.delete(keys.turn("marks"), keys.turn("marks:walk"))
    _, *notes = run_script(main, marks.SWEEP, *call)

    async def judge() -> None:
        where = broker_stores(broker().settings, Store(broker().url, timeout_s=1.0))
        await lapse(where, notes)
        for store in each(where):
            await store.close()

    asyncio.run(judge())


def test_a_key_of_a_broker_that_is_gone_from_the_settings_may_be_submitted_again(brokers: TwoBrokers) -> None:
    main, _ = brokers.clients()
    main.set(keys.submitted(task_id_of("k")), "b|east")
    for _ in range(2):
        list(submit_many([ask("research")], idempotency_keys=["k"]))
    assert main.llen(place("research")) == 1


@pytest.mark.parametrize("task_id", ["t", task_id_of("k")])
def test_a_replay_needs_its_own_broker_alone_and_is_queued_once_whatever_the_rule(
    brokers: TwoBrokers, task_id: str
) -> None:
    main, west = brokers.clients()

    def replay() -> str:
        return DeadLetterOffice(main, broker().client, broker().settings).replay(task_id)

    die(main, task_id, pool="sales-us", settings=broker().settings)
    letter = main.dump(keys.dead_letters()), main.dump(keys.dead_letter_bodies())
    assert replay() == "queued"
    brokers.rule("research")  # its pool is on the main broker now
    for name, held in zip((keys.dead_letters(), keys.dead_letter_bodies()), letter, strict=True):
        main.restore(name, 0, held, replace=True)  # who replayed it died before the last step
    assert replay() == "queued before"
    assert (west.llen(low("sales-us")), main.llen(low("sales-us"))) == (1, 0)
    brokers.west.kill()
    die(main, "other", pool="sales-us", settings=broker().settings)
    assert DeadLetterOffice(main, broker().client, broker().settings).replay("other") == "queued"


def low(pool: str) -> str:
    return list_key(keys.queue(pool), Priority.LOW.value)


def test_too_few_replicas_of_any_broker_are_an_error_and_not_waited_for(
    brokers: TwoBrokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__REPLICAS", "1")
    monkeypatch.setenv("FLEET_REDIS__SOCKET_TIMEOUT_S", "1")
    config.current.cache_clear()

    async def submit() -> None:
        async with asyncio.timeout(WAIT_S):
            await asubmit_many([ask("sales-us")], idempotency_keys=["k"])

    with pytest.raises(StoreUnavailable, match=r"redis\.replicas"):
        asyncio.run(submit())
    with pytest.raises(StoreUnavailable, match=r"redis\.replicas"):
        list(submit_many([ask("sales-us")], idempotency_keys=["k"]))


def test_a_worker_that_has_not_found_a_broker_queues_nothing_of_it_elsewhere(brokers: TwoBrokers) -> None:
    main, _ = brokers.clients()

    async def follow() -> None:
        store = Store(broker().url, timeout_s=1.0)
        where = Brokers({"main": store}, {keys.queue("sales-us"): "west"}, away={"west": "no answer"})
        _, parts = message_of(BotTask.model_validate(ask("sales-us")), "sales-us", "k", 0.0)
        try:
            await enqueue_each(where, parts, broker().settings)
        finally:
            await store.close()

    with pytest.raises(StoreUnavailable, match=r"redis\.brokers\.west"):
        asyncio.run(follow())
    assert not main.llen(place("sales-us"))
