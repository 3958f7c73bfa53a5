"""Rollouts: a new persona or model for a share of a pool's tasks, compared with what was there.

Who asks bots under it, and sends it back when it is worse: `engine/answers/rollouts.py`.
"""

from fleet.rollouts.book import (
    COUNT,
    FINISH,
    Rollout,
    RolloutState,
    count_call,
    end,
    finish_call,
    read_rollouts,
    read_running,
    start,
    state_of,
    worse,
)
from fleet.rollouts.comparing import ENOUGH, FALSE_BACK, ArmSums, Cohort, Compared, added, cohort_of, compare, counted

__all__ = [
    "COUNT",
    "ENOUGH",
    "FALSE_BACK",
    "FINISH",
    "ArmSums",
    "Cohort",
    "Compared",
    "Rollout",
    "RolloutState",
    "added",
    "cohort_of",
    "compare",
    "count_call",
    "counted",
    "end",
    "finish_call",
    "read_rollouts",
    "read_running",
    "start",
    "state_of",
    "worse",
]
