"""What is kept of a task that left for another lane goes with who ends last: its task, or its job if that was raced."""

from __future__ import annotations

import asyncio

import pytest

from fleet.config import Settings
from fleet.economy.lanes.jobs import Enrolled, JobStore
from fleet.economy.prices import PriceList
from fleet.engine.process.lanes import LaneChooser
from fleet.store import keys, lane_keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK

LIMIT = "one/large/default"
RACING = Settings.model_validate(
    {
        "providers": {"one": {"kind": "openai", "base_url": "http://127.0.0.1:9", "api_key_env": "LANE_KEY"}},
        "pools": {"p": {"bots": 1, "provider": "one", "model": "large", "race": True}},
    }
)


@pytest.mark.parametrize("first", ["task", "job"])
@pytest.mark.parametrize("raced", [0, 1])
def test_nothing_is_left_of_a_task_and_its_job_whichever_ends_first(redis_url: str, raced: int, first: str) -> None:
    async def play() -> tuple[object, object]:
        store = Store(redis_url)
        chooser = LaneChooser(RACING, PriceList(RACING), store, norms_of=lambda pool, kind: None)
        jobs, now_s = JobStore(store), CLOCK.now_s()
        asked = Enrolled("p", "p-001", "", "", "", LIMIT, now_s + 9e4, now_s + 8e4, now_s, race=True)
        await jobs.enrol("t", asked, b"{}", life_s=9e4)
        await jobs.form("j", LIMIT, ["t"], by_at=now_s + 9e4, rescue_at=now_s + 8e4)
        job = await jobs.job("j")
        assert job is not None
        job = await jobs.put(job, "collected", raced=raced)
        kept: object = None
        for what in ("task", "job") if first == "task" else ("job", "task"):
            if what == "job":
                await jobs.over(job)
            else:
                await store.command("SET", keys.result("t"), "{}")
                chooser.over("p", "t")
                await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
            kept = kept or await store.command("EXISTS", lane_keys.batched("t"))
        left = await store.command("EXISTS", lane_keys.batched("t"))
        await store.close()
        return kept, left

    kept, left = asyncio.run(play())
    assert left == 0
    # A raced job that goes on is billed in its task's name: it is known until then.
    assert kept == (1 if raced or first == "job" else 0)
