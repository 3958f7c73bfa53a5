"""Bots that fall into one answer, on demand: a share of the voices that call says the same, with some words changed.

Switched by `POST /collapse`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fleet.workers.context import count_tokens
from fleet.workers.simulator.answers import SENTENCE_POOL, SimulatedAnswer, cut_to
from fleet.workers.simulator.chance import Draw
from fleet.workers.simulator.voices import Voice, Voices, rank, read_query, spelled

#: What ends the collapse of a voice: any change of its prompt, other words in it, or only another temperature.
Until = Literal["order", "persona", "temperature"]
#: Sentences of the one answer.
SENTENCES = 8

_WORDS = tuple(sorted({word for sentence in SENTENCE_POOL for word in sentence.split()}))


@dataclass(frozen=True, slots=True)
class Mode:
    """How voices collapse.

    Args:
        share: Share of the voices known when it is switched on; 0 is off.
        noise: Share of the words of each answer that are replaced.
        until: What ends it for a voice.
        seed: Decides the answer, and which voices.

    Raises:
        ValueError: When a value is out of its range.
    """

    share: float = 0.0
    noise: float = 0.05
    until: Until = "order"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("share", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name):g}")
        if self.until not in get_args(Until):
            raise ValueError(f"until: expected one of {', '.join(get_args(Until))}, got something else")

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Mode:
        """Read a mode from the query of a URL. Raises `ValueError`."""
        return cls(**read_query(query, {"share": float, "noise": float, "until": str, "seed": int}))


class Collapse:
    """Who has collapsed, and what they say. Off at first."""

    def __init__(self, voices: Voices) -> None:
        self._voices = voices
        self._members: frozenset[str] = frozenset()
        self._words: list[str] = []
        self.mode = Mode()
        self.answered = 0

    def switch(self, mode: Mode) -> None:
        """Let the wanted share of all voices heard so far collapse; who collapsed before does no longer."""
        known = sorted({_identity(voice, mode.until) for voice in self._voices}, key=lambda one: rank(one, mode.seed))
        draw = random.Random(mode.seed)
        self.mode, self.answered = mode, 0
        self._members = frozenset(known[: round(mode.share * len(known))])
        self._words = " ".join(draw.sample(SENTENCE_POOL, SENTENCES)).split()

    def answer(self, voice: Voice, draw: Draw, *, max_tokens: int | None) -> SimulatedAnswer | None:
        """Return the one answer, or None when this voice has not collapsed."""
        if not self._members or _identity(voice, self.mode.until) not in self._members:
            return None
        self.answered += 1
        chance = random.Random(draw.words)
        text = " ".join(chance.choice(_WORDS) if chance.random() < self.mode.noise else word for word in self._words)
        return cut_to(text, count_tokens(text), max_tokens, matched=True)

    def report(self) -> dict[str, object]:
        """Return the mode, how many voices have collapsed, and at which temperatures they speak."""
        mode = self.mode
        collapsed = [voice for voice in self._voices if _identity(voice, mode.until) in self._members]
        return {
            "share": mode.share, "noise": mode.noise, "until": mode.until, "seed": mode.seed,
            "voices": len(self._voices), "collapsed": len(collapsed), "answered": self.answered,
            "temperatures": sorted({temperature for _, temperature in collapsed if temperature is not None}),
        }  # fmt: skip


def _identity(voice: Voice, until: Until) -> str:
    """Return what makes a voice the same one although something else about it has changed."""
    system, temperature = voice
    if until == "temperature":
        return f"{temperature}"
    return spelled(voice if until == "order" else (" ".join(sorted(system.split())), temperature))
