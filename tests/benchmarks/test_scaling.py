"""`benchmarks.scaling` in made-up time: its world keeps count, and its rules are those that they are named after."""

from __future__ import annotations

import pytest

from benchmarks.scaling.__main__ import LEAST, on_pods, parked_wants
from benchmarks.scaling.rules import Celery, Fixed, Keda
from benchmarks.scaling.traces import azure
from benchmarks.scaling.world import Seen, Task, World


def seen(now: float, *, waiting: int = 0, running: int = 0, pods: int = 1, arrived: int = 0) -> Seen:
    return Seen(now, waiting, running, pods, [], (0.0, 0), arrived)


def test_a_pod_is_paid_from_its_order_until_its_last_task_has_ended() -> None:
    trace = [Task(0.0, 1800.0), Task(0.0, 3600.0)]
    cell = World(slots=1, lag_s=60.0).run(trace, Fixed(2), begin_with=1)
    assert cell.missed == 0.5  # the second waits a minute for its pod
    assert cell.hours == pytest.approx(2 * 3660 / 3600)


def test_what_is_to_go_ends_what_it_runs_and_takes_no_more() -> None:
    trace = [Task(0.0, 100.0), Task(0.0, 100.0), Task(40.0, 1.0)]
    wanted = iter([2, 1])
    cell = World(slots=1, lag_s=0.0).run(trace, lambda _: next(wanted, 1), begin_with=2)
    assert cell.missed == pytest.approx(1 / 3)  # it came while one pod was left, which was busy


def test_hpa_goes_up_at_once_by_a_bound_and_down_to_the_most_of_five_minutes() -> None:
    rule = Keda(5.0, "waiting")
    assert rule(seen(0, waiting=1000, pods=1)) == 5
    assert rule(seen(15, waiting=40, pods=8)) == 8
    assert rule(seen(30, waiting=0, pods=8)) == 8
    assert rule(seen(400, waiting=0, pods=8)) == 1


def test_celerys_autoscaler_keeps_what_it_has_while_tasks_come() -> None:
    rule = Celery(50)
    assert rule(seen(0, running=20, pods=1, arrived=20)) == 20
    assert rule(seen(100, running=3, pods=20, arrived=21)) == 20
    assert rule(seen(131, running=3, pods=20, arrived=21)) == 3


def test_parked_tasks_want_the_least() -> None:
    assert parked_wants() == LEAST


def test_ours_takes_less_than_keda_over_the_list_and_misses_less_on_conversation(data_dir: object) -> None:
    trace = azure("conv")
    assert trace is not None
    rows = {row.rule.partition(":")[0]: row.cell for row in on_pods("conv", trace[:6000])}
    ours, theirs = rows["ours"], rows["KEDA, waiting"]
    assert ours.hours <= 0.75 * theirs.hours
    assert ours.missed < theirs.missed
