"""Findings about rollouts: what was tried, was worse, and went back by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import Case


def went_back(case: Case) -> Iterator[Diagnosis]:
    """Yield what went back within a day, until something else is tried in its pool."""
    for one in case.view.rollouts:
        if one.word == "back":
            yield diagnosis(
                "rollout_back", "info", f"{one.what} was tried in {one.pool} and went back", now_s=case.now_s,
                about=one.pool, since=one.ended_at, cause=one.why,
                help=Help(advice="its tasks are done as before; mend what was tried, and try it again",
                          command=f"fleet rollout show {one.pool}"),
            )  # fmt: skip
