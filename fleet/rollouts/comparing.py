"""Is what is new worse than what was there? Sequential tests of success, cost and diversity. Pure.

Looked at as often as anybody likes: each test is an e-process, whose chance ever to come to 1/a is at most a where
nothing is worse (Ville, 1939). Which setting a task gets is drawn by its id, so of failures as many fall on the new
setting as its share says, unless it fails more often, whatever becomes of tasks or providers meanwhile: the test of
counts of Lindon and Malek, "Anytime-Valid Inference For Multinomial Count Data" (2022), here against a handful of
alternatives. Costs and likeness are compared by a normal mixture (Robbins, 1970; Johari et al., "Always Valid
Inference", 2022), which holds for means of many: so it begins late, and takes the larger spread for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What came of the tasks under one setting.

    Args:
        tasks: That have ended.
        failed: Those without a good answer of the first bot that was asked.
        costs: Of those with an answer, in micro-dollars; in tokens where there is no price.
        likeness: Of answers to the one before of the same kind, 0 to 1.
    """

    tasks: int = 0
    failed: int = 0
    costs: Moments = Moments()
    likeness: Moments = Moments()

    @property
    def good(self) -> float | None:
        """Share of tasks with a good answer."""
        return 1 - self.failed / self.tasks if self.tasks else None


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


def compare(new: ArmSums, old: ArmSums, *, share: float, dearer: float) -> tuple[Compared, ...]:
    """Compare both settings.

    Args:
        new: What came of the new one.
        old: Of the old one.
        share: Of tasks that got the new one, 0..1.
        dearer: How much more a task may cost: 0.1 is a tenth.
    """
    cost = old.costs.mean or 0.0
    return (
        Compared("success", new.good, old.good, max(0.0, evidence_of_failures(new, old, share))),
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
    """Return the evidence that the new setting fails more often, or has fewer good answers: both in turn, halves."""
    failed = _mixed(new.failed, old.failed, share, FAILS_TIMES)
    good = _mixed(new.tasks - new.failed, old.tasks - old.failed, share, GOOD_TIMES)
    return _mean_of_logs([failed, good])


def _mixed(new: int, old: int, share: float, times: tuple[float, ...]) -> float:
    """Return the evidence that so many fall on the new setting because they are `times` as frequent there."""
    found = []
    for ratio in times:
        expected = share * ratio / (share * ratio + 1 - share)
        found.append(new * math.log(expected / share) + old * math.log((1 - expected) / (1 - share)))
    return _mean_of_logs(found)


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


#: Fields of `answer_keys.rollout`, behind the name of a setting.
_FIELDS = ("tasks", "failed", "costs", "cost", "cost2", "pairs", "alike", "alike2")


def added(name: str, *, is_good: bool, cost: float | None, likeness: float | None) -> dict[str, float]:
    """Return what a task adds to which fields.

    Args:
        name: `new` or `old`.
        is_good: It has a good answer.
        cost: Of it; None: it has no answer.
        likeness: Of its answer to the one before; None: not known.
    """
    numbers = {"tasks": 1.0, "failed": float(not is_good)}
    if cost is not None:
        numbers |= {"costs": 1.0, "cost": cost, "cost2": cost * cost}
    if likeness is not None:
        numbers |= {"pairs": 1.0, "alike": likeness, "alike2": likeness * likeness}
    return {f"{name}_{field}": number for field, number in numbers.items() if number}


def arm_in(fields: Mapping[bytes, bytes], name: str) -> ArmSums:
    """Return what is known of one setting, `new` or `old`."""
    tasks, failed, *rest = (float(fields.get(f"{name}_{field}".encode(), 0)) for field in _FIELDS)
    return ArmSums(int(tasks), int(failed), Moments(*rest[:3]), Moments(*rest[3:]))
