"""`benchmarks.scale`: what is met, and that what could not be measured is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cgroups, transport, two_redis
from benchmarks.scale import WANTED, Row, drain_rows, missed, two_redis_row
from benchmarks.two_redis import Drain, judge
from fleet.store.client import connect
from tests.waiting import wait_until


def test_a_figure_is_met_on_its_side_of_what_is_wanted() -> None:
    assert Row("spread", 1.3, "").is_met and not Row("spread", 1.31, "").is_met
    assert Row("drain1", 1.0, "").is_met and not Row("drain1", 0.99, "").is_met
    assert Row("commands", 33.0, "").is_met is None  # told, nothing is wanted of it


def test_what_was_not_measured_is_not_met() -> None:
    rows = [
        Row(name, None if name == "road" else 2.0 if sign == ">=" else 0.1, "") for name, (sign, _) in WANTED.items()
    ]
    assert missed(rows) == ["road"]
    assert missed([]) == [*WANTED]
    assert "yes" not in Row("road", None, "no peer").cells


def test_without_its_peer_a_drain_has_no_figure(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "is_installed", lambda system: False)
    with connect(redis_url) as client:
        rows = list(drain_rows(client, tmp_path, 10, 1))
    assert [(row.name, row.measured, row.is_met) for row in rows] == [("drain1", None, None), ("drain2", None, None)]


def test_where_nobody_can_be_held_two_brokers_have_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "V1_CPU", tmp_path / "no v1")
    monkeypatch.setattr(cgroups, "V2", tmp_path / "no v2")
    row = two_redis_row(10, 1)
    assert row.measured is None and "needs root and cgroups" in row.told
    assert "two_redis" in missed([row])


def test_two_brokers_have_no_figure_if_one_had_enough_of_its_core() -> None:
    two = [Drain(3800.0, (0.9, 0.8))]
    assert judge([Drain(2000.0, (0.9,))], two)[0] == 1.9
    measured, told = judge([Drain(3700.0, (0.1,))], two)
    assert measured is None and "says nothing" in told


def test_queues_are_drained_from_one_broker_and_from_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_redis, "PROCESSES", 1)
    monkeypatch.setattr(two_redis, "PROMPT", 10)
    one, two = two_redis.compare(400, 1, share=None)
    assert [len(drain.stopped) for drain in (*one, *two)] == [1, 2]
    assert min(drain.tasks_per_s for drain in (*one, *two)) > 0


def test_a_held_process_is_stopped_and_its_cgroup_goes_however_the_block_ends() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with pytest.raises(KeyboardInterrupt), cgroups.held("test", 0.15) as where:
            cgroups.put(busy.pid, where)
            wait_until(lambda: where.periods()[1] > 3, 20, "it is stopped")
            raise KeyboardInterrupt
        assert not where.place.exists()
        assert busy.poll() is None
    except cgroups.NotHeld as error:
        pytest.skip(str(error))
    finally:
        busy.kill()
        busy.wait()
