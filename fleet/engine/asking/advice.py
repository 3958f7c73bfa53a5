"""Does asking several bots pay for a kind of tasks? Its record of asks, counted anew in every way to ask. Pure.

Graded asks are cut into two halves, and each is counted with weights learnt on the other: so nobody marks its own work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean

from pydantic import Field

from fleet.answers import Kinship, Majority, Rule, Vote, Weighted, leader, would_have
from fleet.engine.asking.record import PastAsk, counts_of
from fleet.frozen import Frozen
from fleet.money import PICOS_PER_MICRO

#: Graded asks from which it is said what pays (count): a share of 0.5 is then known to 14 points, twice its error.
ENOUGH = 50
#: Growth of the share of right outcomes from which asking several pays: one point.
LEAST_GAIN = 0.01


class Way(Frozen):
    """One way to ask, by the record."""

    name: str
    right: float = Field(description="Share of right outcomes (0..1).")
    calls: float = Field(description="Calls for one outcome, on average.")


class Advice(Frozen):
    """What the record says of a kind."""

    kind: str
    asks: int
    graded: int
    agreement: float | None = Field(None, description="Mean share of the votes that are for the outcome (0..1).")
    cost_usd_micros: float | None = Field(None, description="Mean cost of an ask.")
    took_ms: float | None = None
    adaptive_saves: float | None = Field(
        None, description="Share of the calls that `adaptive` would have saved, where all were heard (0..1)."
    )
    adaptive_same: float | None = Field(None, description="Share of those asks with the same outcome.")
    ways: tuple[Way, ...] = Field((), description="Of graded asks only, the best first.")
    says: str


def advise(kind: str, asks: Sequence[PastAsk]) -> Advice:
    """Return what the record of a kind says, and whether asking several pays."""
    graded = [ask for ask in asks if ask.right is not None and ask.sources]
    shadows = [(ask.adaptive, len(ask.labels)) for ask in asks if ask.adaptive is not None]
    costs = [ask.cost_usd_picos / PICOS_PER_MICRO for ask in asks if ask.cost_usd_picos is not None]
    ways = tuple(sorted(_ways(graded), key=lambda way: (-round(way.right, 4), way.calls))) if len(graded) > 1 else ()
    heard = sum(votes for _, votes in shadows)
    return Advice(
        kind=kind, asks=len(asks), graded=len(graded),
        agreement=mean(map(_agreement, asks)) if asks else None,
        cost_usd_micros=mean(costs) if costs else None,
        took_ms=mean(ask.took_ms for ask in asks) if asks else None,
        adaptive_saves=1 - sum(early for (early, _), _ in shadows) / heard if heard else None,
        adaptive_same=mean(same for (_, same), _ in shadows) if shadows else None,
        ways=ways, says=_says(kind, graded, ways),
    )  # fmt: skip


def _agreement(ask: PastAsk) -> float:
    return Counter(ask.labels).most_common(1)[0][1] / len(ask.labels) if ask.labels else 0.0


def _ways(graded: Sequence[PastAsk]) -> list[Way]:
    sources = Counter(source for ask in graded for source in set(ask.sources))
    found = [
        Way(name=f"one answer of {source}", right=_right_of(graded, source), calls=1.0)
        for source, times in sources.items()
        if times >= len(graded) / 2
    ]
    found.append(_counted("majority", graded, [Majority()] * len(graded)))
    rules = _learnt_on_others(graded)
    found.append(_counted("weighted", graded, rules))
    found.append(_counted("weighted, adaptive", graded, rules, adaptive=True))
    return found


def _right_of(graded: Sequence[PastAsk], source: str) -> float:
    """Return how often a single answer of a source is right."""
    given = [vote.key == str(ask.right) for ask in graded for vote in ask.votes if vote.source == source]
    return mean(given)


def _learnt_on_others(graded: Sequence[PastAsk]) -> list[Rule]:
    """Return for each ask a rule that has not seen it."""
    of_even, of_odd = (Weighted(Kinship(counts_of(graded[start::2]))) for start in (0, 1))
    return [of_odd if place % 2 == 0 else of_even for place in range(len(graded))]


def _counted(name: str, graded: Sequence[PastAsk], rules: Sequence[Rule], *, adaptive: bool = False) -> Way:
    right = calls = 0
    for ask, rule in zip(graded, rules, strict=True):
        votes: Sequence[Vote] = _best_first(ask.votes, rule) if adaptive else ask.votes
        if adaptive:
            votes = votes[: would_have(rule, votes).heard]
        calls += len(votes)
        right += leader(rule.scores(votes)) == str(ask.right)
    return Way(name=name, right=right / len(graded), calls=calls / len(graded))


def _best_first(votes: list[Vote], rule: Rule) -> list[Vote]:
    """Return votes in the order in which a weighted ask would hear them."""
    return sorted(votes, key=lambda vote: -rule.kinship.odds(vote.source)) if isinstance(rule, Weighted) else votes


def _says(kind: str, graded: Sequence[PastAsk], ways: Sequence[Way]) -> str:
    if len(graded) < ENOUGH:
        return (
            f"too little is known: expected {ENOUGH} asks of kind {kind} with a known answer, got {len(graded)}; ask "
            "with `right` (--right) to teach it"
        )
    single = max((way for way in ways if way.calls == 1.0), key=lambda way: way.right, default=None)
    best = ways[0]
    if single is None or best.right - single.right >= LEAST_GAIN:
        than = f", {100 * (best.right - single.right):.1f} points more than {single.name}" if single else ""
        return f"it pays: {best.name} is right in {best.right:.1%} for {best.calls:.1f} calls{than}"
    return f"it does not pay: {single.name} is right in {single.right:.1%}, and {best.name} in {best.right:.1%}"
