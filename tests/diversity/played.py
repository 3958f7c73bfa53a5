"""A class played through without a fleet: bots answer in turn, and every quarter of a window is looked at."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from functools import cache, lru_cache

from fleet.diversity.fingerprint import Fingerprint, bins_of
from fleet.diversity.ladder import LOOKS_PER_WINDOW, Happening, Look, advance
from fleet.diversity.state import ClassState
from fleet.models import Remedy

#: What a bot answers: (its number, its remedy, the question's number) -> text.
Answers = Callable[[int, Remedy | None, int], str]

WORDS = [f"{first}{second}{third}" for first in "bdfgklmnprst" for second in "aeiou" for third in "lmnrstx"]


def prose(draw: random.Random, words: int = 60) -> str:
    """Return words of which few are frequent and most are rare, as in any language."""
    ranks = (min(len(WORDS) - 1, int(len(WORDS) ** draw.random()) - 1) for _ in range(words))
    return " ".join(WORDS[rank] for rank in ranks)


@cache
def pool_of_prose() -> tuple[str, ...]:
    """Return some thousand different texts, made once: making them would take longer than comparing them."""
    draw = random.Random(0)
    return tuple(prose(draw) for _ in range(8000))


def with_noise(text: str, draw: random.Random, share: float = 0.05) -> str:
    """Return the text with a share of its words replaced."""
    return " ".join(draw.choice(WORDS) if draw.random() < share else word for word in text.split())


@lru_cache(maxsize=10_000)
def bins(text: str) -> array[int]:
    found = bins_of(text)
    assert found is not None
    return found


class Played:
    """One class of `bots` bots.

    Args:
        answers: What they say. Change it to let something happen.
        bots: How many.
        window: Answers of a window.
        questions: Returns the number of the next question.
        may_treat: False when remedies are switched off.
    """

    def __init__(
        self,
        answers: Answers,
        *,
        bots: int = 50,
        window: int = 200,
        questions: Callable[[int], int] = lambda n: n % 60_000,
        may_treat: bool = True,
    ) -> None:
        self.answers = answers
        self.state = ClassState(pool="pool", kind="kind")
        self.happened: list[Happening] = []
        self._bots, self._window, self._questions = bots, window, questions
        self._may_treat = may_treat
        self._said: list[tuple[int, Fingerprint]] = []

    def windows(self, count: float) -> list[str]:
        """Let the bots answer for so many windows; return the names of what happened."""
        before = len(self.happened)
        for _ in range(round(count * LOOKS_PER_WINDOW)):
            for _ in range(self._window // LOOKS_PER_WINDOW):
                self._answer()
            self._look()
        return [one.name for one in self.happened[before:]]

    def until(self, name: str, most: float = 20) -> float:
        """Play until something happens; return after how many windows."""
        quarters = 0
        while name not in self.windows(1 / LOOKS_PER_WINDOW):
            quarters += 1
            assert quarters < most * LOOKS_PER_WINDOW, f"no {name} in {most} windows, but {self.happened}"
        return (quarters + 1) / LOOKS_PER_WINDOW

    def last(self, name: str) -> dict[str, str | int | float]:
        """Return the facts of the last thing of that name."""
        return next(one.facts for one in reversed(self.happened) if one.name == name)

    def _answer(self) -> None:
        number = len(self._said) + 1
        bot, question = (number - 1) % self._bots + 1, self._questions(number)
        remedy = self.state.remedies.get(bot)
        mark = remedy.mark if remedy else 0
        said = bins(self.answers(bot, remedy, question))
        self._said.append((number, Fingerprint(bot, question % 65_536, mark, said)))

    def _look(self) -> None:
        window = self._said[-self._window :]
        marks = {bot: remedy.mark for bot, remedy in self.state.remedies.items()}
        current = [(number, one) for number, one in window if one.mark == marks.get(one.bot, 0)]
        if len(window) == self._window and len(current) >= 0.75 * self._window:
            look = Look(current, size=self._window, seen=len(self._said), may_treat=self._may_treat)
            self.state, happened = advance(self.state, look)
            self.happened += happened
