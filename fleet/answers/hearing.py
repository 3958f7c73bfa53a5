"""One ask as it goes on: who has been heard, whether that is enough, and how many are to be asked next. Pure.

As few are asked at once as could decide it together: if they agree, the rest is never asked. Where they do not, that
costs time; `at_once` buys it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fleet.answers.kinship import Vote
from fleet.answers.rules import Rule, Weighted, leader
from fleet.answers.stopping import SURE, WORTH, is_fixed, majority_chance, rest_is_worth

#: When the rest is not asked: never, but it is counted what `adaptive` would have saved; when the outcome is fixed;
#: also when it is sure enough.
Stop = Literal["shadow", "fixed", "adaptive"]
#: Stands for an answer that nobody has given yet, when it is looked ahead.
_AHEAD = "\0ahead"


def why_enough(rule: Rule, votes: Sequence[Vote], rest: Sequence[str], stop: Stop) -> str:
    """Return why the rest need not be heard: `fixed` or `sure`; empty: it has to be, or there is none."""
    if not votes or not rest or stop == "shadow":
        return ""
    if is_fixed(rule, votes, rest):
        return "fixed"
    if stop == "fixed":
        return ""
    if isinstance(rule, Weighted):
        return "sure" if rest_is_worth(rule, votes, rest) < WORTH else ""
    return "sure" if majority_chance(votes) >= SURE else ""


@dataclass(frozen=True, slots=True)
class Early:
    """What an adaptive stop would have done.

    Args:
        heard: Votes after which it would have stopped.
        same: Whether the outcome would have been the same.
    """

    heard: int
    same: bool


def would_have(rule: Rule, votes: Sequence[Vote]) -> Early:
    """Return what an adaptive stop would have done with votes that came in this order."""
    for heard in range(1, len(votes) + 1):
        so_far, rest = votes[:heard], [vote.source for vote in votes[heard:]]
        if not rest or why_enough(rule, so_far, rest, "adaptive"):
            break
    return Early(heard, leader(rule.scores(votes[:heard])) == leader(rule.scores(votes)))


class Hearing:
    """Who has been asked and heard.

    Args:
        members: Their sources, in the order in which they are asked.
        rule: How their votes are counted; None: all are to be heard, and somebody else decides.
        stop: When the rest is not asked.
        at_once: How many are asked at the same time; None: as few as could decide it.
        least: Votes that must be heard before the rest may be left out.
    """

    def __init__(
        self, members: Sequence[str], rule: Rule | None, stop: Stop, *, at_once: int | None = None, least: int = 0
    ) -> None:
        self._members = members
        self._rule = rule
        self._stop = stop
        self._at_once = at_once
        self._least = least
        self._open = set[int]()
        self.asked = 0
        self.votes: list[Vote] = []

    def hear(self, member: int, key: str | None, source: str | None = None) -> None:
        """Take a member's vote.

        Args:
            member: Its place, from 0.
            key: Its answer in canonical form; None: it has failed, or lacks what is counted.
            source: Who has answered in fact; None: who was expected to.
        """
        self._open.discard(member)
        if key is not None:
            self.votes.append(Vote(source or self._members[member], key))

    def why_over(self) -> str:
        """Return why nobody else is to be heard: `heard` (all were), `fixed`, `sure`; empty: it goes on."""
        rest = self._rest()
        if not rest:
            return "heard"
        return self._why_enough(self.votes, rest)

    def _why_enough(self, votes: Sequence[Vote], rest: Sequence[str]) -> str:
        if self._rule is None or len(votes) < self._least:
            return ""
        return why_enough(self._rule, votes, rest, self._stop)

    def ask(self, *, hurry: bool = False) -> range:
        """Return the places of the members that are to be asked now, and take them for asked.

        Args:
            hurry: Ask all that are left, because time runs out.
        """
        more = len(self._members) - self.asked if hurry else self._more()
        asked = range(self.asked, self.asked + more)
        self.asked += more
        self._open.update(asked)
        return asked

    def _rest(self) -> list[str]:
        return [self._members[place] for place in sorted(self._open)] + list(self._members[self.asked :])

    def _more(self) -> int:
        left = len(self._members) - self.asked
        if self._at_once is not None:
            return max(0, min(left, self._at_once - len(self._open)))
        if self._rule is None or self._stop == "shadow":
            return left
        ahead = leader(self._rule.scores(self.votes)) or _AHEAD
        under_way = [self._members[place] for place in sorted(self._open)]
        for more in range(left):
            hoped = [*under_way, *self._members[self.asked : self.asked + more]]
            votes = [*self.votes, *(Vote(source, ahead) for source in hoped)]
            if hoped and self._why_enough(votes, self._members[self.asked + more :]):
                return more
        return left
