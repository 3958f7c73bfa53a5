"""How one answer is made of many votes: by majority, or weighted by who errs together. Pure, stdlib only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fleet.answers.kinship import Kinship, Vote


class Rule(Protocol):
    """Gives each answer a score; the highest is the outcome, of equal ones the answer that came first."""

    def scores(self, votes: Sequence[Vote]) -> dict[str, float]:
        """Return answer -> score, in the order in which answers came."""
        ...


class Majority:
    """Each vote counts one."""

    def scores(self, votes: Sequence[Vote]) -> dict[str, float]:
        """As the Protocol says."""
        return {key: float(len(sources)) for key, sources in by_answer(votes).items()}


@dataclass(frozen=True)
class Weighted:
    """Votes count for what they add to those they go with: scores are logarithms of odds that the answer is right."""

    kinship: Kinship = field(default_factory=Kinship)

    def scores(self, votes: Sequence[Vote]) -> dict[str, float]:
        """As the Protocol says."""
        given = {key: sorted(sources) for key, sources in by_answer(votes).items()}  # who came first is no argument
        best = {key: self.kinship.best(sources) for key, sources in given.items()}
        return {
            key: self.kinship.support(sources)
            + math.fsum(self.kinship.objection(best[key], one) for other, one in best.items() if other != key)
            for key, sources in given.items()
        }

    def chances(self, votes: Sequence[Vote]) -> dict[str, float]:
        """Return answer -> chance that it is right; what is left to one is the chance that none is."""
        return chances_of(self.scores(votes))


def by_answer(votes: Sequence[Vote]) -> dict[str, list[str]]:
    """Return answer -> sources of its votes, in the order in which answers came."""
    given: dict[str, list[str]] = {}
    for vote in votes:
        given.setdefault(vote.key, []).append(vote.source)
    return given


def leader(scores: Mapping[str, float]) -> str | None:
    """Return the answer with the highest score, of equal ones the first; None when there is none."""
    return max(scores, key=lambda key: scores[key], default=None)


def chances_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the chances behind logarithms of odds against none of the answers being right."""
    top = max([0.0, *scores.values()])
    parts = {key: math.exp(score - top) for key, score in scores.items()}
    total = math.exp(-top) + sum(parts.values())
    return {key: part / total for key, part in parts.items()}
