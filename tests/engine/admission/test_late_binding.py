"""Tasks wait in the priority queue, not in slots, when their limit has enough calls waiting."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fleet import config
from fleet.cli.main import main
from fleet.engine.admission.gates import read_gates
from fleet.engine.admission.late_binding import FEWEST, HORIZON_S, rooms_of, target_of
from fleet.engine.messages.producer import submit_many
from fleet.limiter import Crowd
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

counts = st.tuples(*[st.integers(0, 500)] * 5)


@given(counts, st.integers(FEWEST, 500), st.integers(1, 9))
def test_every_class_finds_room_and_the_more_urgent_finds_no_less_because_of_the_less_urgent(
    waiting: tuple[int, ...], target: int, pools: int
) -> None:
    rooms = rooms_of(Crowd(waiting, 0.1, 0.0), target, pools=pools)
    for priority, room in enumerate(rooms):
        assert room <= target
        assert room > 0 or waiting[priority] >= target * 0.125
        less_urgent = (*waiting[: priority + 1], *[0] * (4 - priority))
        assert room == rooms_of(Crowd(less_urgent, 0.1, 0.0), target, pools=pools)[priority]


@pytest.mark.parametrize(
    ("crowd", "target"),
    [
        (Crowd((0,) * 5, 0.02, 0.0), HORIZON_S / 0.02),
        (Crowd((0,) * 5, 30.0, 5.0), FEWEST),  # slower than the horizon
        (Crowd((0,) * 5, 0.02, 60.0), FEWEST),  # held by a 429
    ],
)
def test_as_many_calls_wait_as_the_limit_answers_within_the_horizon(crowd: Crowd, target: float) -> None:
    assert target_of(crowd) == target


def pools(pool: str) -> dict[str, Any]:
    rows = json.loads(CliRunner().invoke(main, ["pools", "--json"]).stdout)["pools"]
    return {row["pool"]: row for row in rows}[pool]


def test_bulk_tasks_leave_slots_free_under_a_tight_limit_and_a_critical_one_is_answered_next(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SIMULATOR__RPM", "900")  # 15 a second: 30 calls in the horizon
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "90")
    config.current.cache_clear()
    tasks = [BotTask(prompt=f"What is 2+{n}?", pool="writing", priority="bulk") for n in range(1000)]
    ids = list(submit_many(tasks))
    start_worker()
    client = connect(redis_url)

    def in_slots() -> int:
        return client.hlen("fleet:unacked")

    wait_until(lambda: in_slots() >= 60, 20, "the slots are full")
    wait_until(lambda: in_slots() <= 45, 20, "most slots are free again")
    assert read_gates(client, [keys.queue("writing")])[0].room is not None
    assert pools("writing")["gate"] == "waiting on limit"
    wait_until(lambda: read_gates(client, [keys.queue("writing")])[0].waits_for_limit(4), 10, "there is no room")
    told = CliRunner().invoke(main, ["why", ids[-1]]).stdout
    assert "it waits on the limit" in told

    def answered(*task_ids: str) -> int:
        return sum(map(bool, client.mget([keys.result(task_id) for task_id in task_ids])))

    before = answered(*ids)
    urgent = next(iter(submit_many([BotTask(prompt="What is 3+3?", pool="research", priority="critical")])))
    wait_until(lambda: answered(urgent), 20, "the critical task is answered")
    overtaken_by = answered(*ids) - before
    assert overtaken_by <= 15  # of 930 that wait, those of a second
    client.close()
