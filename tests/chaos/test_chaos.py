"""Fleet under the small budget of attacks: real processes, a real Redis. The large one: `make chaos`."""

from __future__ import annotations

import pytest

from tests.chaos.attacks import ATTACKS, Attack
from tests.chaos.suite import run_apart

SEED = 1
#: Attacks that tests of their own make with less: tests/engine/process/suspects/test_apart.py and test_stalls.py.
ELSEWHERE = {"deadly tasks among innocents", "functions that block"}
SMALL = [attack for attack in ATTACKS if attack.small and attack.name not in ELSEWHERE]


@pytest.mark.parametrize("attack", SMALL, ids=[attack.name for attack in SMALL])
def test_no_task_is_lost_and_none_has_two_results_under(attack: Attack) -> None:
    verdict = run_apart(attack, "small", seed=SEED, stock=False)  # this process's Celery app may know another Redis
    assert not verdict.broken, verdict.row()
