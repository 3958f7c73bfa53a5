"""Tasks that are answered in the background, through a real worker: no slot is held, no call paid twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.economy.lanes.board import LaneBoard, read_board
from fleet.economy.lanes.times import JobTime, note_time, timed_as
from fleet.engine.messages.producer import submit_many
from fleet.models import BotResult
from fleet.store.client import Store, connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until
from tests.workers.simulator.running import running, send, total

WAIT_S = 90
LANE = "background-2h"
CONFIG = """
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "LANE_KEY"

[pools.work]
bots = 10
provider = "openai"
model = "gpt-sim"

[limits."openai/gpt-sim"]
rpm = 1000000

[prices."openai/gpt-sim"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.6

[prices."openai/gpt-sim".tiers.background-2h]
input_usd_per_mtok = 0.105
output_usd_per_mtok = 0.42
"""


@pytest.fixture
def url(fleet_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A simulator whose two hours are 0.4 s, and settings that name it."""
    monkeypatch.setenv("LANE_KEY", "test-key")
    with running(clock_speed=20_000.0) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url))
        config.current.cache_clear()
        yield url
    config.current.cache_clear()


def submit(count: int, *, by_s: float = 8000, **more: object) -> list[str]:
    tasks = ({"prompt": f"What is {n} + {n}?", "pool": "work", "by_s": by_s, **more} for n in range(count))
    return list(submit_many(tasks))


def results(ids: list[str]) -> list[BotResult]:
    from fleet.engine.app import app

    return [app.AsyncResult(one).get(timeout=WAIT_S) for one in ids]


def board(redis_url: str) -> LaneBoard:
    with connect(redis_url) as client:
        return read_board(client)


def why(task: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(CliRunner().invoke(main, ["why", task, "--json"]).stdout)
    return told


def bill(by: str = "tier") -> dict[str, dict[str, int]]:
    lines = json.loads(CliRunner().invoke(main, ["bill", "--by", by, "--json"]).stdout)["lines"]
    return {line[by]: line for line in lines}


def test_tasks_with_two_hours_leave_their_slots_and_come_back_billed_once_and_deleted(
    url: str, redis_url: str, start_worker: StartWorker
) -> None:
    send(url, "/batch-faults?late_response=1", {})
    worker = start_worker()
    (late,) = submit(1)
    wait_until(lambda: len(board(redis_url).jobs) == 1, WAIT_S, lambda: worker.log)
    (job,) = board(redis_url).jobs
    assert (job.lane, job.count, job.state) == (LANE, 1, "running") and job.batch.startswith("resp_")
    wait_until(lambda: why(late).get("cause") == "batch", WAIT_S, lambda: str(why(late)))  # noted first, then parked
    assert "answered in the background since" in json.dumps(why(late))
    assert LANE in CliRunner().invoke(main, ["lanes"]).stdout

    found = results(submit(40))
    assert every(one.status == "ok" and one.parked >= 1 for one in found), worker.log
    assert {(one.tier, one.served_by, one.attempts) for one in found} == {(LANE, "batch", 1)}
    assert [one.answer for one in found[:3]] == ["0", "2", "4"]
    assert len({one.bot for one in found}) > 5
    counted = total(url)
    assert counted["served"] == 40
    assert counted["billed_usd_picos"] == sum(one.cost_usd_picos or 0 for one in found)
    assert set(bill()) == {LANE} and bill()[LANE]["calls"] == 40

    assert {one.tier for one in results(submit(1, stop=["x"]))} == {None}, "it cannot be asked so: another lane"
    assert total(url)["served"] == 41

    # Who cancels the last one ends its response, too.
    assert CliRunner().invoke(main, ["cancel", late]).exit_code == 0
    wait_until(lambda: not board(redis_url).jobs, WAIT_S, lambda: worker.log)
    assert send(url, f"/v1/responses/{job.batch}").status == 404, "what was asked and said is deleted"
    assert total(url)["served"] == 41


def test_a_worker_that_dies_meanwhile_loses_nothing_and_pays_for_nothing_twice(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    worker = start_worker()
    ids = submit(30)
    wait_until(lambda: len(board(redis_url).jobs) == 30, WAIT_S, lambda: worker.log)
    worker.kill()
    other = start_worker()
    found = results(ids)
    assert every(one.status == "ok" for one in found), other.log
    assert sum(one.tier == LANE for one in found) >= 20, "those that had begun in it run apart, and don't leave"
    wait_until(lambda: not board(redis_url).jobs, WAIT_S, lambda: other.log)

    def calls() -> tuple[int, int, int]:
        lines = bill().values()
        return total(url)["served"], sum(line["calls"] for line in lines), sum(line["unknown_calls"] for line in lines)

    # Notes of grants that its death has left are taken for what their jobs have entered.
    wait_until(lambda: calls()[0] == calls()[1] and not calls()[2], WAIT_S, lambda: str((calls(), bill())))


def test_a_lost_reply_is_unknown_on_the_bill_and_the_task_goes_once_more(url: str, start_worker: StartWorker) -> None:
    send(url, "/batch-faults?lost_response=1", {})
    worker = start_worker()
    (found,) = results(submit(1))
    assert found.status == "ok", worker.log
    wait_until(lambda: total(url)["served"] == 2, WAIT_S)
    wait_until(lambda: [(one["calls"], one["unknown_calls"]) for one in bill().values()] == [(2, 1)], WAIT_S)


def test_what_would_be_late_is_cancelled_and_goes_on_another_lane(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    async def learnt() -> None:
        store = Store(redis_url)
        for number in range(5):
            await note_time(store, timed_as("openai/gpt-sim", LANE), JobTime(0.5, 1, 1), job=f"j{number}")
        await store.close()

    asyncio.run(learnt())
    worker = start_worker()
    results(submit(1, by_s=100_000))  # its process reads what is known
    send(url, "/batch-faults?late_response=1", {})
    before = total(url)["served"]
    (found,) = results(submit(1, by_s=12))
    assert (found.status, found.tier, found.served_by) == ("ok", None, "call"), worker.log
    assert "batch_cancelled" in worker.log
    assert total(url)["served"] - before == 1
