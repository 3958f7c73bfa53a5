"""Many answers, one outcome: their canonical form, who errs together, rules of counting, and when enough is heard.

Pure decisions, stdlib only.
"""

from __future__ import annotations

from fleet.answers.canonical import canonical
from fleet.answers.hearing import Early, Hearing, Stop, would_have
from fleet.answers.kinship import Counts, Kinship, Vote, learnt
from fleet.answers.rules import Majority, Rule, Weighted, by_answer, leader
from fleet.answers.stopping import is_fixed, majority_chance, rest_is_worth

__all__ = [
    "Counts",
    "Early",
    "Hearing",
    "Kinship",
    "Majority",
    "Rule",
    "Stop",
    "Vote",
    "Weighted",
    "by_answer",
    "canonical",
    "is_fixed",
    "leader",
    "learnt",
    "majority_chance",
    "rest_is_worth",
    "would_have",
]
