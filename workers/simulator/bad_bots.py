"""Bots that go bad, on demand: some voices answer nonsense, hardly at all, or late. Switched by `POST /bad`.

The provider stays well: what it answers here is a 200 each time. Its own failures are switched by `POST /failures`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Literal, get_args

from fleet.workers.context import count_tokens
from fleet.workers.simulator.answers import SimulatedAnswer, cut_to
from fleet.workers.simulator.chance import Draw
from fleet.workers.simulator.voices import Voice, Voices, rank, read_query, spelled

#: `errors`: a share of the calls gets no usable answer. `avoidance`: a few words, at once. `slow`: as told, but late.
Kind = Literal["errors", "avoidance", "slow"]
#: What an unusable answer is.
Spoilt = Literal["any", "empty", "refusal", "garbage"]
#: Different calls of one bad voice that are remembered, to tell a new task from one that is tried again.
MAX_ASKED = 10_000
#: Latency of a bot that avoids its tasks, against a good one's: it hardly writes anything.
AVOIDANCE_PACE = 0.1

REFUSALS = ("I'm sorry, but I can't help with that.", "I cannot assist with this request.", "I must decline.")
EXCUSES = ("Done.", "OK.", "See above.", "It depends.", "Sure.")
#: A model that has lost its thread says the same again and again.
GARBAGE = " ".join(["and so it goes on and"] * 60)


@dataclass(frozen=True, slots=True)
class BadMode:
    """Which voices go bad, and how.

    Args:
        errors: How many voices of this kind: a whole number of them, or (a float) a share of all heard so far.
        avoidance: The same of this kind.
        slow: The same of this kind.
        error_share: Share of the calls of an `errors` voice that get no usable answer.
        answers: What those get.
        pace: Latency of a `slow` voice against a good one's.
        seed: Decides which voices.

    Raises:
        ValueError: When a value is out of its range.
    """

    errors: int | float = 0
    avoidance: int | float = 0
    slow: int | float = 0
    error_share: float = 0.5
    answers: Spoilt = "any"
    pace: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        for kind in get_args(Kind):
            wanted = getattr(self, kind)
            if not 0 <= wanted <= (1 if isinstance(wanted, float) else wanted):
                raise ValueError(f"{kind}: expected a number of voices, or a share from 0.0 to 1.0, got {wanted:g}")
        if not 0 <= self.error_share <= 1:
            raise ValueError(f"error_share: expected a share from 0 to 1, got {self.error_share:g}")
        if not 0 < self.pace <= 1000:
            raise ValueError(f"pace: expected a factor above 0, at most 1000, got {self.pace:g}")
        if self.answers not in get_args(Spoilt):
            raise ValueError(f"answers: expected one of {', '.join(get_args(Spoilt))}, got something else")

    @classmethod
    def read(cls, query: Mapping[str, str]) -> BadMode:
        """Read a mode from the query of a URL. Raises `ValueError`."""
        wanted = dict.fromkeys(get_args(Kind), _number_or_share)
        return cls(**read_query(query, {**wanted, "error_share": float, "answers": str, "pace": float, "seed": int}))


@dataclass(slots=True)
class Conduct:
    """What one bad voice does, and has done since it went bad.

    Attributes:
        calls: Calls admitted. What is in flight counts, what is refused with 429 does not.
        tasks: Those of them that were not made before: a task that is tried again counts once.
        spoilt: Calls that got something else than a good answer.
    """

    kind: Kind
    temperature: float | None
    calls: int = 0
    tasks: int = 0
    spoilt: int = 0
    _asked: set[bytes] = field(default_factory=set, repr=False)

    def count(self, draw: Draw, *, spoilt: bool) -> None:
        """Count an admitted call."""
        is_new = draw.call not in self._asked
        if is_new and len(self._asked) < MAX_ASKED:
            self._asked.add(draw.call)
        self.calls += 1
        self.tasks += is_new
        self.spoilt += spoilt

    def report(self) -> dict[str, object]:
        """Return all of it as JSON values."""
        return {name: getattr(self, name) for name in ("kind", "temperature", "calls", "tasks", "spoilt")}


class BadBots:
    """Who is bad, and what they answer. Nobody is at first.

    A voice that changes in any way is another one, and good.
    """

    def __init__(self, voices: Voices) -> None:
        self._voices = voices
        self._bad: dict[Voice, Conduct] = {}
        self.mode = BadMode()

    def switch(self, mode: BadMode) -> None:
        """Let the wanted voices, of all heard so far, go bad; who was bad before and is not drawn again recovers."""
        known = sorted(self._voices, key=lambda voice: rank(spelled(voice), mode.seed))
        drawn = iter(known)
        self.mode, self._bad = mode, {}
        kinds: tuple[Kind, ...] = get_args(Kind)
        for kind in kinds:
            for voice in islice(drawn, _count(getattr(mode, kind), len(known))):
                self._bad[voice] = Conduct(kind, voice[1])

    def conduct(self, voice: Voice) -> Conduct | None:
        """Return how a bad voice behaves; None for a good one."""
        return self._bad.get(voice)

    def answer(self, conduct: Conduct, draw: Draw, *, max_tokens: int | None) -> SimulatedAnswer | None:
        """Return what a bad voice says instead of an answer; None when it answers this call as it should."""
        if conduct.kind == "slow":
            return None
        chance = random.Random(draw.words)
        if conduct.kind == "avoidance":
            text = chance.choice(EXCUSES)
        elif chance.random() < self.mode.error_share:
            text = _spoilt(self.mode.answers, chance)
        else:
            return None
        return cut_to(text, count_tokens(text), max_tokens, matched=True)

    def pace(self, conduct: Conduct) -> float:
        """Return the latency of a bad voice against a good one's."""
        return {"errors": 1.0, "avoidance": AVOIDANCE_PACE, "slow": self.mode.pace}[conduct.kind]

    def report(self) -> dict[str, object]:
        """Return the mode, how many voices there are, and each bad one by its temperature with what it has done."""
        return {**asdict(self.mode), "voices": len(self._voices), "bad": [one.report() for one in self._bad.values()]}


def _number_or_share(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _count(wanted: int | float, known: int) -> int:
    return round(wanted * known) if isinstance(wanted, float) else min(wanted, known)


def _spoilt(answers: Spoilt, chance: random.Random) -> str:
    kind = chance.choice(("empty", "refusal", "garbage")) if answers == "any" else answers
    return {"empty": "", "refusal": chance.choice(REFUSALS), "garbage": GARBAGE}[kind]
