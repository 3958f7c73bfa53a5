"""Which model of a pool is asked for a kind of tasks: the cheapest that is good enough by the record of grades. Pure.

A share of the tasks is kept for learning: their bots ask their own models, so that each goes on being graded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal
from zlib import crc32

from pydantic import Field

from fleet.frozen import Frozen
from fleet.roster.grading import ModelGrades

Why = Literal["cheapest that is good enough", "kept for learning", "none is known to be good enough"]


class ModelChoice(Frozen):
    """Which model a task was given, and why; `sent.chosen` of its result."""

    why: Why
    model: str = Field("", description="As `provider/model`; empty: its bot's own.")
    right: float | None = Field(None, description="Share of its answers that are right, at least: a 95% bound.")
    grades: int | None = Field(None, description="How many that rests on.")
    cost: float | None = Field(None, description="Micro-dollars of a task, or tokens where there is no price.")


#: Nobody has been graded enough: bots ask their own models.
NONE_KNOWN = ModelChoice(why="none is known to be good enough")


def cheapest(grades: Iterable[ModelGrades], among: Collection[str], *, good_enough: float) -> ModelChoice:
    """Return the cheapest model that is good enough.

    Args:
        grades: The record of a kind.
        among: Models of the pool, as `provider/model`.
        good_enough: Share of right answers that it must have, by the lower bound: chance alone makes none good enough.
    """
    fit = [one for one in grades if one.model in among and one.accuracy.least >= good_enough]
    if not fit:
        return NONE_KNOWN
    best = min(fit, key=lambda one: (one.cost, -one.accuracy.least))
    known = best.accuracy
    return ModelChoice(
        why="cheapest that is good enough", model=best.model, right=round(known.least, 4), grades=round(known.grades),
        cost=round(best.cost, 2),
    )  # fmt: skip


def is_for_learning(task_id: str, share: float) -> bool:
    """True for the share of tasks that are kept for learning: the same ones, however often they are asked."""
    return crc32(f"learn:{task_id}".encode()) < share * 2**32
