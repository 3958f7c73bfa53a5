"""Is what is tried worse? Found soon where it is, and next to never where it is not, over seeded rollouts."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import median

import pytest

from fleet.rollouts.comparing import FALSE_BACK, ArmSums, Moments, added, arm_in, compare
from tests.every import every

#: Tasks of a rollout that nobody stops, and between two looks at its sums.
TASKS, LOOK_EVERY = 4000, 10


def played(
    seed: int, *, share: float, fails: tuple[float, float], costs: tuple[float, float], alike: tuple[float, float]
) -> tuple[int, str]:
    """Return after how many tasks a rollout went back, and why; 0: it did not.

    Args:
        seed: Of all that is drawn.
        share: Of tasks under the new setting.
        fails, costs, alike: Failure rate, mean cost and mean likeness: of the new setting, of the old one.
    """
    draw, sums = random.Random(seed), {"new": [0.0] * 8, "old": [0.0] * 8}
    for task in range(1, TASKS + 1):
        name = "new" if draw.random() < share else "old"
        which = 0 if name == "new" else 1
        is_good = draw.random() >= fails[which]
        cost = costs[which] * draw.lognormvariate(-0.5, 1.0) if is_good else None
        likeness = min(1.0, max(0.0, draw.gauss(alike[which], 0.15))) if is_good and task % 2 else None
        for field, number in added(name, is_good=is_good, cost=cost, likeness=likeness).items():
            place = ("tasks", "failed", "costs", "cost", "cost2", "pairs", "alike", "alike2").index(field[4:])
            sums[name][place] += number
        if task % LOOK_EVERY == 0:
            new, old = (
                ArmSums(int(one[0]), int(one[1]), Moments(*one[2:5]), Moments(*one[5:])) for one in sums.values()
            )
            for found in compare(new, old, share=share, dearer=0.1):
                if found.is_worse:
                    return task, found.aspect
    return 0, ""


def test_equal_settings_go_back_no_more_often_than_promised() -> None:
    false = [
        played(seed, share=(0.05, 0.2, 0.5)[seed % 3], fails=(0.1, 0.1), costs=(100, 100), alike=(0.3, 0.3))[1]
        for seed in range(1000)
    ]
    assert sum(map(bool, false)) <= FALSE_BACK * 1000, [one for one in false if one]


@pytest.mark.parametrize(
    ("name", "world", "most_tasks", "aspect"),
    [
        ("it fails always", {"fails": (1.0, 0.02)}, 100, "success"),
        ("it fails five times as often", {"fails": (0.25, 0.05)}, 700, "success"),
        ("half of the answers are wrong, where a fifth is usual", {"fails": (0.5, 0.2)}, 700, "success"),
        ("an answer costs twice as much", {"costs": (200, 100)}, 1500, "cost"),
        ("its answers are all alike", {"alike": (0.9, 0.3)}, 1000, "diversity"),
    ],
)
def test_what_is_worse_goes_back_soon(
    name: str, world: dict[str, tuple[float, float]], most_tasks: int, aspect: str
) -> None:
    usual = {"fails": (0.05, 0.05), "costs": (100.0, 100.0), "alike": (0.3, 0.3), **world}
    ends = [played(seed, share=0.1, **usual) for seed in range(40)]
    assert every(at for at, _ in ends), name
    assert median(at for at, _ in ends) <= most_tasks, (name, sorted(at for at, _ in ends))
    assert sum(why == aspect for _, why in ends) >= 38


def test_a_setting_that_does_better_stays() -> None:
    for seed in range(100):
        assert played(seed, share=0.2, fails=(0.02, 0.2), costs=(50, 100), alike=(0.1, 0.3)) == (0, "")


def test_an_outage_that_both_meet_accuses_nobody() -> None:
    """A third of the way nine tenths of all tasks fail, whichever setting they have."""

    def fails(task: int) -> float:
        return 0.9 if 1000 < task < 2000 else 0.05

    def ends(seed: int, rate: Callable[[int], float]) -> bool:
        draw, new, old = random.Random(seed), [0, 0], [0, 0]
        for task in range(3000):
            side = new if draw.random() < 0.1 else old
            side[0] += 1
            side[1] += draw.random() < rate(task)
            if task % LOOK_EVERY == 0 and compare(ArmSums(*new), ArmSums(*old), share=0.1, dearer=0.1)[0].is_worse:
                return True
        return False

    assert sum(ends(seed, fails) for seed in range(300)) <= FALSE_BACK * 300


def test_what_was_added_is_read_again() -> None:
    fields: dict[bytes, bytes] = {}
    for is_good, cost in ((True, 3.0), (False, None), (True, 5.0)):
        for name, number in added("new", is_good=is_good, cost=cost, likeness=None).items():
            fields[name.encode()] = str(float(fields.get(name.encode(), b"0")) + number).encode()
    found = arm_in(fields, "new")
    assert (found.tasks, found.failed, found.costs.mean, found.costs.variance) == (3, 1, 4.0, 2.0)
    assert arm_in(fields, "old") == ArmSums()
