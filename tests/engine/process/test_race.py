"""Pools that race against their tasks' time, through a real worker: the first answer wins, both are on the bill."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import config
from fleet.cli.run.summary import Summary
from fleet.economy.lanes.times import JobTime, note_time, timed_as
from fleet.economy.prices import PriceList
from fleet.engine.process.lanes import LaneChooser
from fleet.store import lane_keys
from fleet.store.client import Store, connect
from tests.engine.conftest import StartWorker
from tests.engine.process.test_background_lane import CONFIG, LANE, bill, board, results, submit
from tests.every import every
from tests.waiting import wait_until
from tests.workers.simulator.running import running, send, total

WAIT_S = 90
#: Seconds of the simulator's two hours, and those within which its answers are taken to come.
WINDOW_S, KNOWN_S = 36.0, 0.5


@pytest.fixture
def url(fleet_home: Path, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A simulator, and settings of a pool that races, whose background responses are taken to be quick."""
    monkeypatch.setenv("LANE_KEY", "test-key")

    async def learnt() -> None:
        store = Store(redis_url)
        for number in range(20):
            await note_time(store, timed_as("openai/gpt-sim", LANE), JobTime(KNOWN_S, 1, 1), job=f"j{number}")
        await store.close()

    asyncio.run(learnt())
    with running(clock_speed=7200 / WINDOW_S) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url).replace("bots = 10", "bots = 10\nrace = true"))
        config.current.cache_clear()
        yield url
    config.current.cache_clear()


def test_what_would_be_late_is_asked_once_more_while_it_goes_on_and_what_it_costs_is_on_the_bill(
    url: str, redis_url: str, start_worker: StartWorker
) -> None:
    worker = start_worker()
    results(submit(1, by_s=100_000))  # its process reads what is known
    before = total(url)["served"]
    send(url, "/batch-faults?late_response=4", {})
    found = results(submit(4, by_s=8))
    assert every((one.status, one.tier, one.served_by) == ("ok", None, f"race {LANE}") for one in found), worker.log
    assert "batch_raced" in worker.log
    # Nobody waits for the four that never come: they are cancelled, cost nothing, and leave nothing behind.
    wait_until(lambda: not board(redis_url).jobs, WAIT_S, lambda: worker.log)
    assert total(url)["served"] - before == 4
    with connect(redis_url) as client:
        wait_until(lambda: not [*client.scan_iter(lane_keys.batched("*"))], WAIT_S, lambda: worker.log)
    wait_until(lambda: sum(line["calls"] for line in bill().values()) == total(url)["served"], WAIT_S)

    summary = Summary()
    for one in found:
        summary.add(one.model_dump(mode="json"))
    assert summary.as_dict(new=4, wall_s=1)["races"] == {LANE: 4}
    assert f"raced     4 answers of {LANE}" in "\n".join(summary.lines(new=4, wall_s=1))


def test_an_answer_that_comes_after_all_is_billed_in_its_tasks_name(
    url: str, redis_url: str, start_worker: StartWorker
) -> None:
    worker = start_worker()
    results(submit(1, by_s=100_000))
    ids = submit(10, by_s=8)
    found = results(ids)
    assert every(one.status == "ok" for one in found), worker.log
    wait_until(lambda: not board(redis_url).jobs, WAIT_S, lambda: worker.log)
    # Each call once, the late ones as well.
    wait_until(lambda: sum(line["calls"] for line in bill("pool").values()) == total(url)["served"], WAIT_S)
    assert set(bill("pool")) == {"work"}


@pytest.mark.parametrize(("pool", "looks"), [("races", 1), ("waits", 0)])
def test_only_tasks_of_a_pool_that_races_are_looked_for_when_they_end(redis_url: str, pool: str, looks: int) -> None:
    pools = {name: {"bots": 1, "race": name == "races"} for name in ("races", "waits")}
    settings = config.Settings.model_validate({"pools": pools})

    async def ends(task: str) -> None:
        store = Store(redis_url)
        chooser = LaneChooser(settings, PriceList(settings), store, norms_of=lambda pool, kind: None)
        await store.command("HSET", lane_keys.batched(task), "answer", "{}")
        chooser.over(pool, task)
        while await store.command("EXISTS", lane_keys.batched(task)):
            await asyncio.sleep(0)
        await store.close()

    with connect(redis_url) as client:
        client.config_resetstat()
        asyncio.run(ends("a-task"))
        stats: Any = client.info("commandstats")
        assert stats.get("cmdstat_hmget", {"calls": 0})["calls"] == looks


def test_nobody_races_by_default() -> None:
    assert every(not (pool.race) for pool in config.Settings().pools.values())
