"""When enough voters have been heard: the outcome can no longer change, or hardly would. Pure, stdlib only.

By majority: the sequential test of Aggarwal et al., "Let's Sample Step by Step: Adaptive-Consistency for Efficient
Reasoning and Coding with LLMs" (EMNLP 2023), with its Beta rule for the two most frequent answers.
Weighted: the expected value of what the rest could say (Raiffa and Schlaifer, "Applied Statistical Decision Theory",
1961), by playing it out. That asks how much the outcome would get better, not how sure it is: weak voters never are.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from fleet.answers.kinship import Kinship, Vote
from fleet.answers.rules import Majority, Rule, Weighted, by_answer, chances_of, leader

#: Ways in which the rest may vote that are looked at one by one (count): about 20 ms. With more, nothing is certain.
MOST_WAYS = 1000
#: Times that the rest is played out (count): the mean is then known to about a third of a point where it matters.
PLAYED = 200
#: Situations of which it is kept what was worked out (count).
MOST_KNOWN = 10_000
#: Growth of the chance (0..1) below which the rest is not worth its calls: one point.
WORTH = 0.01
#: Chance (0..1) from which a majority is taken for sure, as in the paper.
SURE = 0.95
#: What nobody has answered yet, and is right. No canonical form begins so.
UNSEEN = "\0right"


def is_fixed(rule: Rule, votes: Sequence[Vote], rest: Sequence[str]) -> bool:
    """True when the outcome can no longer change, whatever the rest says, and whoever of it fails.

    Args:
        rule: How the outcome is made.
        votes: Those that were given.
        rest: Sources of those who may still vote.
    """
    if isinstance(rule, Weighted):
        return bool(_known(rule, "fixed", votes, rest, lambda: _is_fixed(rule, votes, rest)))
    return _is_fixed(rule, votes, rest)


def _known(
    rule: Weighted, what: str, votes: Sequence[Vote], rest: Sequence[str], worked_out: Callable[[], float]
) -> float:
    """Return what was worked out of a situation before; those that differ by the answers' words alone are one."""
    numbers = dict[str, int]()
    told = tuple((vote.source, numbers.setdefault(vote.key, len(numbers))) for vote in votes)
    known, situation = rule.kinship.worked_out, (what, told, tuple(rest))
    if situation not in known:
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[situation] = worked_out()
    return known[situation]


def _is_fixed(rule: Rule, votes: Sequence[Vote], rest: Sequence[str]) -> bool:
    now = leader(rule.scores(votes))
    if now is None or not rest:
        return not rest
    if isinstance(rule, Majority):
        return _is_majority_fixed(votes, len(rest))
    given = by_answer(votes)
    if math.prod([len(given) + 2 + place for place in range(len(rest))]) > MOST_WAYS:
        return False
    return all(leader(rule.scores([*votes, *more])) == now for more in _ways(list(given), sorted(rest), 0))


def _is_majority_fixed(votes: Sequence[Vote], rest: int) -> bool:
    scores = Majority().scores(votes)
    now = leader(scores)
    assert now is not None
    order = list(scores)
    behind = (scores[now] - rest >= score + (order.index(key) < order.index(now)) for key, score in scores.items()
              if key != now)  # fmt: skip
    return all(behind) and scores[now] >= rest


def _ways(answers: list[str], rest: list[str], new: int) -> Iterator[list[Vote]]:
    """Yield every way in which the rest may vote: for an answer that there is, for a new one, or not at all."""
    if not rest:
        yield []
        return
    first, others = rest[0], rest[1:]
    fresh = f"\0{new}"
    for key in answers:
        yield from ([Vote(first, key), *more] for more in _ways(answers, others, new))
    yield from ([Vote(first, fresh), *more] for more in _ways([*answers, fresh], others, new + 1))
    yield from _ways(answers, others, new)


def majority_chance(votes: Sequence[Vote]) -> float:
    """Return the chance that the most frequent answer would stay so for ever (0..1), by the Beta rule.

    P(p > 1/2) for p ~ Beta(first + 1, second + 1), of the two most frequent answers: a sum of binomials.
    """
    counts = [number for _, number in Counter(vote.key for vote in votes).most_common(2)]
    first, second = [*counts, 0, 0][:2]
    tosses = first + second + 1
    return sum(math.comb(tosses, number) for number in range(first + 1)) / float(2**tosses)


def rest_is_worth(rule: Weighted, votes: Sequence[Vote], rest: Sequence[str], *, seed: int = 0) -> float:
    """Return by how much the chance that the outcome is right would grow if the rest were heard (0..1).

    Args:
        rule: Knows who errs together.
        votes: Those that were given, at least one.
        rest: Sources of those who may still vote.
        seed: For chance: the same seed, the same figure.
    """
    return _known(rule, f"worth {seed}", votes, rest, lambda: _worth(rule, votes, rest, seed))


def _worth(rule: Weighted, votes: Sequence[Vote], rest: Sequence[str], seed: int) -> float:
    scores, draw = rule.scores(votes), random.Random(seed)
    now = leader(scores)
    if now is None:
        return 1.0
    chances, total = chances_of(scores), 0.0
    for _ in range(PLAYED):
        right = _drawn_answer(chances, draw)
        heard = _played(rule.kinship, votes, rest, right, draw)
        later = chances_of(rule.scores(heard))
        best = leader(later)
        if best is not None and best != now:
            total += later[best] - later[now]
    return total / PLAYED


def _drawn_answer(chances: dict[str, float], draw: random.Random) -> str:
    toss = draw.random()
    for key, chance in chances.items():
        toss -= chance
        if toss < 0:
            return key
    return UNSEEN


def _played(
    kinship: Kinship, votes: Sequence[Vote], rest: Sequence[str], right: str, draw: random.Random
) -> list[Vote]:
    """Return the votes and what the rest might say, if `right` is."""
    heard = list(votes)
    for number, voter in enumerate(rest):
        heard.append(Vote(voter, _drawn_vote(kinship, heard, voter, right, draw) or f"\0{number}"))
    return heard


def _drawn_vote(kinship: Kinship, heard: Sequence[Vote], voter: str, right: str, draw: random.Random) -> str | None:
    """Return what a voter might say after others; None: something that nobody has said, and is wrong."""
    held = {key: Counter(sources) for key, sources in by_answer(heard).items()}
    toss = draw.random()
    is_right = kinship.agrees(voter, held[right], right=True) if right in held else _alone(kinship, heard, voter)
    if toss < is_right:
        return right
    wrong = {key: kinship.agrees(voter, those, right=False) for key, those in held.items() if key != right}
    most = 1 - is_right
    scale = min(1.0, most / sum(wrong.values())) if wrong else 0.0
    toss -= is_right
    for key, chance in wrong.items():
        toss -= chance * scale
        if toss < 0:
            return key
    return None


def _alone(kinship: Kinship, heard: Sequence[Vote], voter: str) -> float:
    """Return the chance that a voter is right where all before it are wrong: what its accuracy leaves for that."""
    mine = kinship.accuracy(voter)
    if not heard:
        return mine
    first = kinship.best([vote.source for vote in heard])
    theirs = kinship.accuracy(first)
    both = theirs * kinship.agrees(voter, {first: 1}, right=True)
    most = 1 - kinship.agrees(voter, {first: 1}, right=False)
    return min(most, max(0.0, mine - both) / (1 - theirs))
