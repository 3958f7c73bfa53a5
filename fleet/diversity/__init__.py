"""Diversity: whether bots still answer differently, which ones do not, and what is done about them.

A worker keeps a fingerprint per answer; one of them, the leader, compares. The remedies are `workers/bot/persona.py`'s.
"""

from fleet.diversity.classes import classes_of, read_classes, relearn
from fleet.diversity.fingerprint import Fingerprint, bins_of, prompt_mark
from fleet.diversity.monitor import Monitor, Notice
from fleet.diversity.state import ClassState
from fleet.diversity.window import Duty, Windows

__all__ = [
    "ClassState",
    "Duty",
    "Fingerprint",
    "Monitor",
    "Notice",
    "Windows",
    "bins_of",
    "classes_of",
    "prompt_mark",
    "read_classes",
    "relearn",
]
