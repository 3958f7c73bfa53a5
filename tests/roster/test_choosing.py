"""Of a pool's models the cheapest is asked that is good enough by the record of grades."""

from __future__ import annotations

import pytest

from fleet.roster.choosing import NONE_KNOWN, cheapest, is_for_learning
from fleet.roster.grading import ModelGrades

RECORD = [
    ModelGrades("api/small", 60, 40, 10.0),
    ModelGrades("api/middle", 950, 50, 40.0),
    ModelGrades("api/large", 990, 10, 200.0),
    ModelGrades("api/fresh", 5, 0, 1.0),
    ModelGrades("api/elsewhere", 1000, 0, 0.1),
]
POOL = ("api/small", "api/middle", "api/large", "api/fresh")


@pytest.mark.parametrize(
    ("good_enough", "chosen"),
    [(0.5, "api/fresh"), (0.7, "api/middle"), (0.93, "api/middle"), (0.95, "api/large"), (0.999, "")],
)
def test_the_cheapest_that_is_good_enough_beyond_chance_is_chosen(good_enough: float, chosen: str) -> None:
    found = cheapest(RECORD, POOL, good_enough=good_enough)
    assert found.model == chosen
    assert found == NONE_KNOWN or (found.right is not None and found.right >= good_enough)


def test_a_model_without_grades_is_not_chosen() -> None:
    assert cheapest([], POOL, good_enough=0.1) == NONE_KNOWN


def test_a_share_of_the_tasks_is_kept_for_learning_always_the_same() -> None:
    ids = [f"task-{number}" for number in range(10_000)]
    kept = [one for one in ids if is_for_learning(one, 0.05)]
    assert 400 < len(kept) < 600
    assert [one for one in ids if is_for_learning(one, 0.05)] == kept
