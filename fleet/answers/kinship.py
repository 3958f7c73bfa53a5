"""Who errs together: what pairs of voters have done on tasks whose right answer was known. Pure, stdlib only.

A vote counts for what it adds to the votes it goes with. Two answers of one model say little more than one, and neither
do two models that make the same mistakes: accuracy alone cannot tell. Dawid and Skene ("Maximum Likelihood Estimation
of Observer Error-Rates Using the EM Algorithm", 1979) take voters for independent; here each hangs on one that has
voted already, as in a dependence tree (Chow and Liu, "Approximating Discrete Probability Distributions with Dependence
Trees", 1968), and further votes of one source count ever less, by Hoppe's urn ("Pólya-like urns and the Ewens' sampling
formula", 1984). What it lets through: of three that err together, it sees only the pair that does most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

#: What is taken for known of a voter before it has voted: right, wrong (tasks).
ALONE = (0.5, 0.5)
#: Of a pair of different models: the second gives the first's answer or another one where that is right, where wrong.
APART = (0.6, 0.4, 0.2, 0.8)
#: Of two voters of one model.
ALIKE = (0.75, 0.25, 0.6, 0.4)


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer as it is counted.

    Args:
        source: Whose errors it shares: the model that gave it.
        key: The answer in its canonical form.
    """

    source: str
    key: str


@dataclass(frozen=True)
class Counts:
    """What is known of voters, in tasks: the part of the record that weights are made of.

    Args:
        alone: By source: how often it was right, and wrong.
        pairs: By `first|second`: how often the second gave the first's answer and another one, where the first was
            right, and where it was wrong.
    """

    alone: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pairs: Mapping[str, Sequence[float]] = field(default_factory=dict)


def pair_of(first: str, second: str) -> str:
    """Return the name of an ordered pair of sources."""
    return f"{first}|{second}"


def seen(votes: Sequence[Vote], right: str) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int, int, int]]]:
    """Return what one task with a known answer adds to the counts: (alone, pairs).

    Args:
        votes: All that were given.
        right: Canonical form of the right answer; none need have given it.
    """
    alone: dict[str, tuple[int, int]] = {}
    pairs: dict[str, tuple[int, int, int, int]] = {}
    for vote in votes:
        good, bad = alone.get(vote.source, (0, 0))
        alone[vote.source] = (good + (vote.key == right), bad + (vote.key != right))
    for first, second in permutations(votes, 2):
        name = pair_of(first.source, second.source)
        row = list(pairs.get(name, (0, 0, 0, 0)))
        row[2 * (first.key != right) + (first.key != second.key)] += 1
        pairs[name] = (row[0], row[1], row[2], row[3])
    return alone, pairs


def learnt(graded: Iterable[tuple[Sequence[Vote], str]]) -> Counts:
    """Return the counts of many tasks, given as votes and right answer."""
    alone: dict[str, list[float]] = {}
    pairs: dict[str, list[float]] = {}
    for votes, right in graded:
        more_alone, more_pairs = seen(votes, right)
        _add(alone, more_alone)
        _add(pairs, more_pairs)
    return Counts(alone, pairs)


def _add(sums: dict[str, list[float]], more: Mapping[str, Sequence[int]]) -> None:
    for name, row in more.items():
        held = sums.setdefault(name, [0.0] * len(row))
        sums[name] = [one + new for one, new in zip(held, row, strict=True)]


class Kinship:
    """What votes weigh, by the counts. Keeps what it has worked out.

    Args:
        counts: From the record; empty: nothing is known, and all models are taken to be alike.

    Attributes:
        worked_out: What was worked out by situation (`stopping.py`): playing one takes 10 ms and more.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts or Counts()
        self._thetas: dict[tuple[str, str], tuple[float, float]] = {}
        self.worked_out: dict[object, float] = {}

    def accuracy(self, source: str) -> float:
        """Return how often a source is right (0..1)."""
        good, bad = self._counts.alone.get(source, (0.0, 0.0))
        return (good + ALONE[0]) / (good + bad + sum(ALONE))

    def tasks(self, source: str) -> float:
        """Return on how many tasks that rests."""
        return sum(self._counts.alone.get(source, (0.0, 0.0)))

    def odds(self, source: str) -> float:
        """Return the logarithm of the odds that a source is right."""
        return math.log(self.accuracy(source) / (1 - self.accuracy(source)))

    def thetas(self, first: str, second: str) -> tuple[float, float]:
        """Return the urn's numbers of a pair: of its answers where the first is right, and where it is wrong.

        After k votes of the first source for an answer, the second one gives it too with chance k / (k + number).
        """
        found = self._thetas.get((first, second))
        if found is None:
            prior = ALIKE if first == second else APART
            row = self._counts.pairs.get(pair_of(first, second), (0.0, 0.0, 0.0, 0.0))
            same_right, other_right, same_wrong, other_wrong = (a + b for a, b in zip(row, prior, strict=True))
            where_right = other_right / same_right
            found = (where_right, max(where_right, other_wrong / same_wrong))
            self._thetas[first, second] = found
        return found

    def agrees(self, voter: str, with_those: Mapping[str, int], *, right: bool) -> float:
        """Return the chance that a voter gives the answer of others, if that is right or wrong.

        Args:
            voter: Its source.
            with_those: How many of each source have given it. Of them the one that tells least counts.
            right: Whether the answer is.
        """
        first = min(with_those, key=lambda one: self._gain(one, voter, with_those[one]))
        votes, theta = with_those[first], self.thetas(first, voter)[0 if right else 1]
        return votes / (votes + theta)

    def support(self, sources: Sequence[str]) -> float:
        """Return what votes for one answer say for it together, as a logarithm of odds; the best voter goes first."""
        ordered = sorted(sources, key=lambda one: -self.odds(one))
        held = {ordered[0]: 1}
        total = self.odds(ordered[0])
        for voter in ordered[1:]:
            total += min(self._gain(first, voter, votes) for first, votes in held.items())
            held[voter] = held.get(voter, 0) + 1
        return total

    def objection(self, best: str, other: str) -> float:
        """Return what another answer says against one: never more than 0. Each answer objects once, by its best voter.

        Args:
            best: The best voter of the one.
            other: The best voter of the other.
        """
        if_right, if_wrong = self.thetas(best, other)
        return math.log(if_right * (1 + if_wrong) / (if_wrong * (1 + if_right)))

    def best(self, sources: Sequence[str]) -> str:
        """Return the source that is right most often."""
        return max(sources, key=self.odds)

    def _gain(self, first: str, voter: str, votes: int) -> float:
        if_right, if_wrong = self.thetas(first, voter)
        return math.log((votes + if_wrong) / (votes + if_right))
