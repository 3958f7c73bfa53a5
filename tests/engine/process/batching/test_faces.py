"""What people see of batches: `fleet lanes`, `fleet why`, `fleet stats`, the metric; and what `fleet forget` erases."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from fleet.batches import Arrived
from fleet.cli.main import main
from fleet.cli.setup.wait_checks import read_waits, wait_checks
from fleet.config import Settings, current
from fleet.economy.lanes.jobs import Enrolled, JobStore
from fleet.economy.prices import PriceList
from fleet.engine.process.lanes import LaneChooser, rescue_at
from fleet.engine.transport.parking.waiting import TO_HEAD
from fleet.errors import NotSoon
from fleet.store import keys, lane_keys
from fleet.store.client import Store, connect
from fleet.waits import Wait

LIMIT = "simulator/simulated-1/default"
BODY = b'{"messages":"a very private prompt"}'


def told(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


async def sent(redis_url: str) -> None:
    """Two tasks of two tenants are in a batch, a third one gathers."""
    store = Store(redis_url)
    jobs, now_s = JobStore(store), float((await store.command("TIME"))[0])
    for number, tenant in enumerate(("acme", "other", "acme")):
        by_at = now_s + 30_000
        asked = Enrolled("research", "research-001", tenant, "sum", "", LIMIT, by_at, rescue_at(by_at, now_s), now_s)
        assert await jobs.enrol(f"task-{number}", asked, BODY, life_s=30_000)
        assert not await jobs.enrol(f"task-{number}", asked, BODY, life_s=30_000), "a lost reply enrols nobody twice"
        reason = Wait("batch", by_at, LIMIT, is_everyones=False).to_json()[:-1] + TO_HEAD
        message = json.dumps({"headers": {"id": f"task-{number}", "task": "fleet.submit_task"}, "body": ""})
        place = keys.lists(keys.queue("research"))
        await store.command("HSET", keys.parked(), f"task-{number}", f"{place}\x06\x163\n{reason}\n{message}")
        await store.command("ZADD", keys.parked_order(keys.queue("research")), by_at, f"task-{number}")
    assert await jobs.form("j0b", LIMIT, ["task-0", "task-1"], by_at=now_s + 30_000, rescue_at=now_s + 29_000) == 2
    assert await jobs.form("j0b", LIMIT, ["task-2"], by_at=0, rescue_at=0) == 0, "a repeated step makes nothing anew"
    job = await jobs.job("j0b")
    assert job is not None
    await jobs.put(job, "running", batch="batch_1", done=1)
    await store.close()


@pytest.mark.usefixtures("fleet_env")
def test_every_face_tells_what_is_in_batches_and_forget_erases_its_words(redis_url: str) -> None:
    assert told("lanes") == "nothing is in a batch, or waits for one"
    asyncio.run(sent(redis_url))

    shown = told("lanes")
    assert f"{LIMIT}: 1 task gather since" in shown and "j0b" in shown and "running" in shown
    board = json.loads(told("lanes", "--json"))
    assert [(one["id"], one["count"], one["done"], one["batch"]) for one in board["jobs"]] == [("j0b", 2, 1, "batch_1")]
    assert [(one["limit"], one["tasks"]) for one in board["gathering"]] == [(LIMIT, 1)]
    assert "in a batch of 2 since" in told("why", "task-0") and "it waits for others to go with" in told(
        "why", "task-2"
    )
    assert json.loads(told("why", "task-0", "--json"))["cause"] == "batch"
    later = json.loads(told("stats", "--json"))["bill"]["batches"]
    assert (later["gathering"], later["tasks"], later["batches"]) == (1, 2, 1)
    assert "2 tasks in 1 batch" in told("stats")

    with connect(redis_url) as client:
        assert [one.level for one in wait_checks(read_waits(current())) if "batch" in one.name] == []
        client.hset(lane_keys.lane_shut(), LIMIT, "9999999999 answered 404: no such API")
        client.hset(lane_keys.job("j0b"), mapping={"tries": 2, "why": "429: too many batches"})
        found = {one.name: one.found for one in wait_checks(read_waits(current())) if one.level == "warn"}
        assert "no such API" in found[f"batches of {LIMIT}"] and "takes no batches until" in told("lanes")
        assert found[f"batch j0b of {LIMIT}"] == "2 tasks wait: 429: too many batches"
        client.zadd(lane_keys.jobs(), {"j0b": 1})
        found = {one.name: one.found for one in wait_checks(read_waits(current())) if one.level == "warn"}
        assert found[f"batch j0b of {LIMIT}"] == "2 tasks wait: no worker that runs has its key"
        assert "no worker that runs has its key" in told("lanes")
        assert json.loads(told("lanes", "--json"))["stale"] == ["j0b"]
        told("forget", "--tenant", "acme", "--yes")
        left = [client.exists(lane_keys.batched(f"task-{number}")) for number in range(3)]
        assert left == [0, 1, 0]
        stored = [str(client.hgetall(name)) for name in client.scan_iter(match=lane_keys.batched("*"))]
        assert len(stored) == 1 and "acme" not in stored[0]


def test_a_process_that_stood_still_cannot_take_on_what_another_one_has(redis_url: str) -> None:
    async def run() -> None:
        from fleet.economy.lanes.jobs import Overtaken

        await sent(redis_url)
        store = Store(redis_url)
        jobs = JobStore(store)
        old = await jobs.job("j0b")
        assert old is not None
        await jobs.put(old, "creating", at=old.at + 5)
        with pytest.raises(Overtaken):
            await jobs.put(old, "creating", at=old.at + 9)
        await store.close()

    asyncio.run(run())


def test_a_task_whose_batch_is_gone_without_a_word_goes_on_and_one_that_gathers_leaves_in_time(redis_url: str) -> None:
    async def run() -> None:
        await sent(redis_url)
        store = Store(redis_url)
        settings = Settings()
        lanes, jobs = (
            LaneChooser(settings, PriceList(settings), store, norms_of=lambda pool, kind: None),
            JobStore(store),
        )
        for task in ("task-0", "task-2"):
            with pytest.raises(NotSoon):
                await lanes.came(task)
        await jobs.keep(["task-1"], [b'{"choices":[]}'])
        await jobs.drop("j0b")
        assert await lanes.came("task-0") == Arrived(LIMIT), "nobody waits for a job that Redis has lost"
        assert await lanes.came("task-1") == Arrived(LIMIT, b'{"choices":[]}')
        assert await lanes.bot_of("task-1") == ("research", "research-001")
        assert await lanes.came("never-left") is None
        asked = await jobs.came("task-2")
        assert asked is not None
        late = replace(asked.enrolled, rescue_at=0.0)
        await store.command("HSET", lane_keys.batched("task-2"), "asked", late.to_json())
        assert await lanes.came("task-2") == Arrived(LIMIT) and await lanes.came("task-2") is None
        await store.close()

    asyncio.run(run())


def test_a_task_that_cannot_leave_its_slot_takes_another_lane_and_batches_can_be_switched_off(redis_url: str) -> None:
    def lane(*, lets_leave: bool = True, may_batch: bool = True, **settings: object) -> str:
        made = Settings.model_validate(settings)
        store = Store(redis_url)
        lanes = LaneChooser(made, PriceList(made), store, norms_of=lambda pool, kind: None, lets_leave=lets_leave)
        api = "simulator/simulated-1"
        return lanes.lane("research", api, "sum", input_tokens=1000, output_tokens=9, by_s=90_000, may_batch=may_batch)

    cheapest = {"tiers": {"batch": {"input_usd_per_mtok": 0.1}, "flex": {"input_usd_per_mtok": 0.2}}}
    prices = {"simulator/simulated-1": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1, **cheapest}}
    assert lane(prices=prices) == "batch"
    assert lane(prices=prices, lets_leave=False) == lane(prices=prices, may_batch=False) == "flex"
    assert lane(prices=prices, lanes={"batches": False}) == "flex"
    assert lane(prices=prices, limits={"simulator/simulated-1": {"usd_per_day": 5}}) == "flex"
