"""Is what is new worse than what was there? Sequential tests of success, cost and diversity. Pure.

Looked at as often as anybody likes: each test is an e-process, whose chance ever to come to 1/a is at most a where
nothing is worse (Ville, 1939). Which setting a task gets is drawn by its id, so of failures as many fall on the new
setting as its share says, unless it fails more often, whatever becomes of tasks or providers meanwhile: the test of
counts of Lindon and Malek, "Anytime-Valid Inference For Multinomial Count Data" (2022), here against a handful of
alternatives. That holds in the order in which tasks begin, not in which they end, for who is slow is not worse. So they
are counted by cohorts of when they began, and those under way are taken to end as well for the new setting as they
can. The evidence is the most of any first cohorts, which Ville's bound covers.

Costs and likeness are compared by a normal mixture (Robbins, 1970; Johari et al., "Always Valid Inference", 2022),
which holds for means of many: so it begins late, and takes the larger spread for both. What is long ends late: so it
takes first cohorts alone of which all but a few tasks have ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from statistics import NormalDist
from typing import Literal

#: Chance that a rollout goes back although nothing is worse, at most, however long it runs; each test has a third.
FALSE_BACK = 0.01
#: Evidence (natural logarithm) of one test that is enough.
ENOUGH = math.log(3 / FALSE_BACK)
#: How many times as often the new setting may fail, and what is left of its good answers: alternatives in turn.
FAILS_TIMES = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
GOOD_TIMES = (0.97, 0.92, 0.85, 0.7, 0.5, 0.2, 0.03)
#: How much more alike (0 to 1) answers may be: one persona for all is a little more alike by nature.
MORE_ALIKE = 0.1
#: Numbers of each setting from which means are compared.
FEWEST = 20
#: Spread of costs, by their mean, and of likeness at least: a few numbers that are the same prove little.
LEAST_COST_SPREAD, LEAST_ALIKE_SPREAD = 0.1, 0.05
#: Excess that is looked for: of costs by the old mean, of likeness as it is.
COST_EXCESS, ALIKE_EXCESS = 0.5, 0.2
#: Share of tasks that may be under way where means are compared: the longest hundredth adds a tenth at most to a mean
#: of log-normal costs whose standard deviation is 1.
MOST_UNDER_WAY = 0.01
#: How many times as long after the rollout's beginning each cohort ends as the one before: 27 make a day.
COHORT_GROWTH = 1.5
_NORMAL = NormalDist()

Aspect = Literal["success", "cost", "diversity"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Numbers of which count, sum and sum of squares are known."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    @property
    def variance(self) -> float:
        if self.count < 2:
            return 0.0
        return max(0.0, self.squares - self.total**2 / self.count) / (self.count - 1)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What came of the tasks under one setting.

    Args:
        tasks: That have ended.
        failed: Those without a good answer of the first bot that was asked.
        costs: Of those with an answer, in micro-dollars; in tokens where there is no price.
        likeness: Of answers to the one before of the same kind, 0 to 1.
        begun: Tasks that have begun, whether or not they have ended.
        left: Those of them that were cancelled or stopped: nobody knows how they would have ended.
    """

    tasks: int = 0
    failed: int = 0
    costs: Moments = Moments()
    likeness: Moments = Moments()
    begun: int = 0
    left: int = 0

    @property
    def unknown(self) -> int:
        """Tasks of which it is not known whether they have a good answer: under way, parked, or left."""
        return max(0, self.begun - self.tasks)

    @property
    def is_settled(self) -> bool:
        """True when next to no task is under way."""
        return self.unknown - self.left <= max(1, MOST_UNDER_WAY * self.begun)

    def __add__(self, other: ArmSums) -> ArmSums:
        return ArmSums(
            self.tasks + other.tasks, self.failed + other.failed, self.costs + other.costs,
            self.likeness + other.likeness, self.begun + other.begun, self.left + other.left,
        )  # fmt: skip

    @property
    def good(self) -> float | None:
        """Share of tasks with a good answer."""
        return 1 - self.failed / self.tasks if self.tasks else None


@dataclass(frozen=True, slots=True)
class Cohort:
    """What came of the tasks that began within a time, or of those of several cohorts."""

    new: ArmSums = ArmSums()
    old: ArmSums = ArmSums()

    @property
    def is_settled(self) -> bool:
        return self.new.is_settled and self.old.is_settled

    def __add__(self, other: Cohort) -> Cohort:
        return Cohort(self.new + other.new, self.old + other.old)


def cohort_of(elapsed_s: float) -> int:
    """Return the number of the cohort of a task that begins so long (s) after its rollout, from 0."""
    return 0 if elapsed_s < 1 else 1 + int(math.log(elapsed_s) / math.log(COHORT_GROWTH))


@dataclass(frozen=True, slots=True)
class Compared:
    """One aspect of both.

    Args:
        aspect: Which.
        new: Its mean under the new setting: share of good answers, cost, likeness; None: not known yet.
        old: Under the old one.
        evidence: That the new one is worse; `ENOUGH` sends it back.
    """

    aspect: Aspect
    new: float | None
    old: float | None
    evidence: float

    @property
    def is_worse(self) -> bool:
        return self.evidence >= ENOUGH


def compare(cohorts: Sequence[Cohort], *, share: float, dearer: float) -> tuple[Compared, ...]:
    """Compare both settings.

    Args:
        cohorts: What came of the tasks, in the order in which they began.
        share: Of tasks that got the new one, 0..1.
        dearer: How much more a task may cost: 0.1 is a tenth.
    """
    firsts = list(accumulate(cohorts)) or [Cohort()]
    new, old = firsts[-1].new, firsts[-1].old
    failures = max(evidence_of_failures(one.new, one.old, share) for one in firsts)
    settled = next((one for one in reversed(firsts) if one.is_settled), Cohort())
    return Compared("success", new.good, old.good, max(0.0, failures)), *_means(settled, dearer)


def _means(settled: Cohort, dearer: float) -> tuple[Compared, Compared]:
    """Compare costs and likeness of tasks of which next to none is under way."""
    new, old = settled.new, settled.old
    cost = old.costs.mean or 0.0
    return (
        Compared(
            "cost", new.costs.mean, old.costs.mean,
            evidence_of_excess(
                new.costs, old.costs, times=1 + dearer, least_spread=LEAST_COST_SPREAD * cost,
                excess=COST_EXCESS * cost, is_relative=True,
            ),
        ),
        Compared(
            "diversity", new.likeness.mean, old.likeness.mean,
            evidence_of_excess(
                new.likeness, old.likeness, more=MORE_ALIKE, least_spread=LEAST_ALIKE_SPREAD, excess=ALIKE_EXCESS,
            ),
        ),
    )  # fmt: skip


def evidence_of_failures(new: ArmSums, old: ArmSums, share: float) -> float:
    """Return the evidence that the new setting fails more often, or has fewer good answers: both in turn, halves.

    What is not known is taken to be good under the new setting; under the old one to have failed for the one test, and
    not to be good for the other. So there is no more evidence than there will be when all have ended.
    """
    failed = _mixed(new.failed, old.failed + old.unknown, share, FAILS_TIMES)
    good = _mixed(new.tasks - new.failed + new.unknown, old.tasks - old.failed, share, GOOD_TIMES)
    return _mean_of_logs([failed, good])


def _mixed(new: int, old: int, share: float, times: tuple[float, ...]) -> float:
    """Return the evidence that so many fall on the new setting because they are `times` as frequent there."""
    return _mean_of_logs([new * of_new + old * of_old for of_new, of_old in _worths(share, times)])


@lru_cache(maxsize=64)
def _worths(share: float, times: tuple[float, ...]) -> list[tuple[float, float]]:
    """Return what one of the new setting, and one of the old, is worth as evidence of each of `times`."""
    expected = [share * ratio / (share * ratio + 1 - share) for ratio in times]
    return [(math.log(one / share), math.log((1 - one) / (1 - share))) for one in expected]


def evidence_of_excess(
    new: Moments, old: Moments, *, least_spread: float, excess: float, times: float = 1.0, more: float = 0.0,
    is_relative: bool = False,
) -> float:  # fmt: skip
    """Return the evidence that the new mean is above `times` the old one and `more`.

    Args:
        new: Numbers of the new setting.
        old: Of the old one.
        least_spread: Standard deviation of either at least.
        excess: That is looked for.
        times, more: What is allowed.
        is_relative: A spread grows with its mean.
    """
    if min(new.count, old.count) < FEWEST or excess <= 0 or new.mean is None or old.mean is None:
        return 0.0
    scale = new.mean / old.mean if is_relative and old.mean > 0 else 1.0
    spread = max(new.variance, old.variance * scale**2, least_spread**2)
    of_old = max(old.variance, new.variance / scale**2 if scale > 0 else 0.0, least_spread**2)
    variance = spread / new.count + times**2 * of_old / old.count
    by = new.mean - times * old.mean - more
    square = excess**2
    up = by * excess / math.sqrt(variance * (variance + square))
    tail = _NORMAL.cdf(up)
    if by <= 0 or tail <= 0:
        return 0.0
    return max(0.0, math.log(2 * tail) + 0.5 * (math.log(variance / (variance + square)) + up**2))


def _mean_of_logs(logs: list[float]) -> float:
    """Return the logarithm of the mean of what these are logarithms of."""
    most = max(logs)
    return most + math.log(sum(math.exp(one - most) for one in logs) / len(logs))


#: Fields of `answer_keys.rollout`, between the name of a setting and the number of a cohort.
_FIELDS = ("tasks", "failed", "begun", "left", "costs", "cost", "cost2", "pairs", "alike", "alike2")


def added(name: str, cohort: int, *, is_good: bool, cost: float | None, likeness: float | None) -> dict[str, float]:
    """Return what a task that has ended adds to which fields.

    Args:
        name: `new` or `old`.
        cohort: In which it began.
        is_good: It has a good answer.
        cost: Of it; None: it has no answer.
        likeness: Of its answer to the one before; None: not known.
    """
    numbers = {"tasks": 1.0, "failed": float(not is_good)}
    if cost is not None:
        numbers |= {"costs": 1.0, "cost": cost, "cost2": cost * cost}
    if likeness is not None:
        numbers |= {"pairs": 1.0, "alike": likeness, "alike2": likeness * likeness}
    return {f"{name}_{field}:{cohort}": number for field, number in numbers.items() if number}


def counted(name: str, cohort: int, what: Literal["begun", "left"]) -> dict[str, float]:
    """Return what a task that begins, or is left, adds to which field."""
    return {f"{name}_{what}:{cohort}": 1.0}


def cohorts_in(fields: Mapping[bytes, bytes]) -> tuple[Cohort, ...]:
    """Return the cohorts that are known, in order."""
    numbers = sorted({int(field.rpartition(b":")[2]) for field in fields if b":" in field})
    return tuple([Cohort(_arm_in(fields, "new", one), _arm_in(fields, "old", one)) for one in numbers])


def _arm_in(fields: Mapping[bytes, bytes], name: str, cohort: int) -> ArmSums:
    tasks, failed, begun, left, *rest = [float(fields.get(f"{name}_{one}:{cohort}".encode(), 0)) for one in _FIELDS]
    return ArmSums(int(tasks), int(failed), Moments(*rest[:3]), Moments(*rest[3:]), int(begun), int(left))
