"""On a real fleet the cheapest model of a pool is asked that is good enough, once the record knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import fleet
from fleet import config
from fleet.cli.operate.why import read_story
from fleet.engine.local_simulator import stop_simulator
from fleet.models import BotResult
from fleet.store.client import connect
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES, WorkerProcess

TOML = """
[redis]
url = "{url}"

[pools.lab]
bots = 8
model = "dear-1"
persona.models = ["dear-1", "cheap-1", "odd-filtered"]

[prices."simulator/dear-1"]
input_usd_per_mtok = 10
output_usd_per_mtok = 10

[prices."simulator/cheap-1"]
input_usd_per_mtok = 1
output_usd_per_mtok = 1

[prices."simulator/odd-filtered"]
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.1

[kinds.sums]
good_enough = 0.8
learning = 0.2

[simulator]
latency_ms = 5

[worker]
slots = 12
"""


@pytest.fixture
def fleet_of_models(tmp_path: Path, redis_process: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "fleet.toml").write_text(TOML.format(url=redis_process.url))
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    config.current.cache_clear()
    with connect(redis_process.url) as client:
        client.flushall()
    env = {"FLEET_HOME": str(tmp_path / ".fleet"), "FLEET_CONFIG": str(tmp_path / "fleet.toml")}
    worker = WorkerProcess(tmp_path, "-Q", "fleet.lab", env=env, app=QUICK_LEASES)
    try:
        worker.wait_ready()
        yield
    finally:
        worker.kill()
        stop_simulator(tmp_path / ".fleet")


def answered(number: int, kind: str = "sums") -> list[BotResult]:
    asked = [
        fleet.submit_task.delay(f"What is {n} * 7?", pool="lab", kind=kind, right=str(n * 7)) for n in range(number)
    ]
    return [one.get(timeout=60) for one in asked]


def test_the_cheapest_model_that_is_right_is_asked_and_a_share_learns(fleet_of_models: None) -> None:
    before = {one.sent["chosen"]["why"] for one in answered(6) if "chosen" in one.sent}
    assert before == {"none is known to be good enough"}

    def is_known() -> bool:
        return any(one.sent.get("chosen", {}).get("model") for one in answered(15))

    wait_until(is_known, 60, "the record knows")
    results = answered(60)
    told = [one for one in results if "chosen" in one.sent]  # what a second bot said in place of the first has none
    why = Counter(one.sent["chosen"]["why"] for one in told)
    assert set(why) == {"cheapest that is good enough", "kept for learning"} and why["kept for learning"] <= 30
    chosen = [one for one in told if one.sent["chosen"]["model"]]
    assert {one.sent["chosen"]["model"] for one in chosen} == {"simulator/cheap-1"} and len(chosen) >= 30
    assert {one.model for one in chosen} == {"cheap-1"} and chosen[0].sent["chosen"]["right"] >= 0.8
    story = read_story(chosen[0].task_id, config.current())
    assert any(line.startswith("it was asked of simulator/cheap-1, the cheapest that is") for line in story.lines)
    assert every("chosen" not in one.sent for one in answered(3, kind="other"))
