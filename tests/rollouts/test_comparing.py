"""Is what is tried worse? Found soon where it is, and next to never where it is not, over seeded rollouts."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from statistics import median

import pytest

from fleet.rollouts.comparing import FALSE_BACK, ArmSums, Cohort, added, cohort_of, cohorts_in, compare, counted
from tests.every import every

#: Tasks of a rollout that nobody stops, those that begin in a second, and between two looks at its sums.
TASKS, A_SECOND, LOOK_EVERY = 4000, 20.0, 20


class Sums:
    """What Redis has of a rollout, as workers write it; a task's end is written when it has come."""

    def __init__(self) -> None:
        self.fields: dict[bytes, float] = defaultdict(float)
        self._ends: list[tuple[float, int, dict[str, float]]] = []

    def begin(self, at_s: float, name: str, ends_at_s: float, ended: Callable[[int], dict[str, float]]) -> None:
        """Count a task as it begins, and all that have ended by then."""
        while self._ends and self._ends[0][0] <= at_s:
            self._add(heappop(self._ends)[2])
        self._add(counted(name, cohort_of(at_s), "begun"))
        heappush(self._ends, (ends_at_s, len(self._ends) + round(at_s * 1e6), ended(cohort_of(at_s))))

    def _add(self, numbers: dict[str, float]) -> None:
        for field, number in numbers.items():
            self.fields[field.encode()] += number

    @property
    def cohorts(self) -> tuple[Cohort, ...]:
        return cohorts_in({field: str(number).encode() for field, number in self.fields.items()})


def played(
    seed: int, *, share: float, fails: tuple[float, float] = (0.05, 0.05), costs: tuple[float, float] = (100.0, 100.0),
    alike: tuple[float, float] = (0.3, 0.3), took_s: tuple[float, float] = (0.0, 0.0), tasks: int = TASKS,
) -> tuple[int, str]:  # fmt: skip
    """Return after how many tasks a rollout went back, and why; 0: it did not.

    Args:
        seed: Of all that is drawn.
        share: Of tasks under the new setting.
        fails, costs, alike: Failure rate, mean cost and mean likeness: of the new setting, of the old one.
        took_s: Mean time (s) that a task takes, the longer the dearer: of the new setting, of the old one.
        tasks: Of a rollout that does not go back.
    """
    draw, sums = random.Random(seed), Sums()
    for task in range(1, tasks + 1):
        name = "new" if draw.random() < share else "old"
        which = 0 if name == "new" else 1
        is_good = draw.random() >= fails[which]
        length = draw.lognormvariate(-0.5, 1.0)
        cost = costs[which] * length if is_good else None
        likeness = min(1.0, max(0.0, draw.gauss(alike[which], 0.15))) if is_good and task % 2 else None
        at_s = task / A_SECOND
        sums.begin(
            at_s, name, at_s + took_s[which] * length,
            lambda cohort: added(name, cohort, is_good=is_good, cost=cost, likeness=likeness),  # noqa: B023 - at once
        )  # fmt: skip
        if task % LOOK_EVERY == 0:
            for found in compare(sums.cohorts, share=share, dearer=0.1):
                if found.is_worse:
                    return task, found.aspect
    return 0, ""


#: Mean times (s) under the new setting and the old one.
TIMES = {"both at once": (0.0, 0.0), "the new one is slower": (12.0, 4.0), "the new one is faster": (2.0, 20.0)}


@pytest.mark.parametrize("took_s", TIMES.values(), ids=TIMES.keys())
def test_equal_settings_go_back_no_more_often_than_promised(took_s: tuple[float, float]) -> None:
    """However long either takes: what is slow is not worse, and what is fast fails sooner, not more often."""
    false = [
        played(seed, share=(0.05, 0.1, 0.5)[seed % 3], fails=((0.0, 0.0), (0.1, 0.1), (0.5, 0.5))[seed // 3 % 3],
               took_s=took_s, tasks=600)[1]
        for seed in range(300)
    ]  # fmt: skip
    assert sum(map(bool, false)) <= FALSE_BACK * 300, Counter(false)


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
    ends = [played(seed, share=0.1, **world) for seed in range(16)]
    assert every(at for at, _ in ends), name
    assert median(at for at, _ in ends) <= most_tasks, (name, sorted(at for at, _ in ends))
    assert sum(why == aspect for _, why in ends) >= 15


@pytest.mark.parametrize("took_s", [(12.0, 4.0), (2.0, 20.0)], ids=["slower", "faster"])
@pytest.mark.parametrize(
    ("fails", "most_tasks"), [((1.0, 0.02), 100), ((0.25, 0.05), 700), ((0.5, 0.2), 700)], ids=["ever", "five", "half"]
)
def test_what_fails_more_is_found_as_soon_as_its_tasks_end(
    fails: tuple[float, float], most_tasks: int, took_s: tuple[float, float]
) -> None:
    """After as many tasks as else, half of that for its cohort to be over, and those of thrice the mean time."""
    ends = [played(seed, share=0.1, fails=fails, took_s=took_s) for seed in range(12)]
    assert every(at for at, _ in ends)
    assert median(at for at, _ in ends) <= 1.5 * most_tasks + 3 * max(took_s) * A_SECOND, sorted(at for at, _ in ends)


def test_a_setting_that_does_better_stays() -> None:
    for seed in range(30):
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
            both = Cohort(ArmSums(*new), ArmSums(*old))
            if task % LOOK_EVERY == 0 and compare([both], share=0.1, dearer=0.1)[0].is_worse:
                return True
        return False

    assert sum(ends(seed, fails) for seed in range(300)) <= FALSE_BACK * 300


def test_what_was_added_is_read_again() -> None:
    sums = Sums()
    for at_s, is_good, cost in ((0.5, True, 3.0), (0.6, False, None), (40.0, True, 5.0)):
        sums.begin(
            at_s,
            "new",
            at_s,
            lambda cohort: added("new", cohort, is_good=is_good, cost=cost, likeness=None),  # noqa: B023
        )
    sums.begin(41.0, "old", 60.0, lambda cohort: counted("old", cohort, "left"))
    first, last = sums.cohorts
    assert (first.new.tasks, first.new.failed, last.new.tasks) == (2, 1, 1)
    both = first + last
    assert (both.new.begun, both.new.unknown, both.new.costs.mean, both.new.costs.variance) == (3, 0, 4.0, 2.0)
    assert (both.old.begun, both.old.unknown, both.old.left) == (1, 1, 0)
